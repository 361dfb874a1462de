// Runs every program of the README against a running server and checks that what it wrote stands in the document, as any other reader
// sees it. The programs run on, as an application does; this ends them.
//
//   URL=http://127.0.0.1:8080 TOKEN=… node run.mjs [names…]
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import * as Y from 'yjs'

const { URL: server, TOKEN: token } = process.env
const PATIENCE_MS = 20_000

/** Program -> the text that it writes, and what it prints when it knows that it is saved. */
const PROGRAMS = {
  'y-websocket': { writes: /^Hello from y-websocket$/m },
  'y-websocket-ticket': { writes: /^Hello with a ticket$/m, room: 'hello-ticket' },
  hocuspocus: { writes: /^Hello from Hocuspocus$/m, says: /^saved$/m },
  'y-sweet': { writes: /^Hello from Y-Sweet$/m, says: /^saved$/m },
  tiptap: { writes: /<paragraph>Hello from <bold>Tiptap<\/bold><\/paragraph>/ },
  codemirror: { writes: /^\/\/ Hello from CodeMirror$/m }
}

async function ask (path, { method = 'GET', accept = 'application/json', body } = {}) {
  const response = await fetch(server + path, {
    method,
    headers: { authorization: `Bearer ${token}`, accept, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) })
  })
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  return accept === 'application/json' ? response.json() : new Uint8Array(await response.arrayBuffer())
}

const find = async room => (await ask('/v1/documents?limit=200')).items.find(({ name }) => name === room)

/** All text of the document, whichever root it lies in. */
async function contentOf (id) {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, await ask(`/v1/documents/${id}/content`, { accept: 'application/octet-stream' }))
  return doc.getText('content').toString() + doc.getText('codemirror').toString() + doc.getXmlFragment('default').toString()
}

async function eventually (check) {
  const until = Date.now() + PATIENCE_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > until) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

async function run (name, { writes, says, room = `hello-${name}` }) {
  const env = { ...process.env }
  if (name === 'y-websocket-ticket') {
    const project = (await ask('/v1/projects')).items.find(({ is_default: isDefault }) => isDefault)
    const made = (await find(room)) ?? (await ask('/v1/documents', { method: 'POST', body: { project_id: project.id, name: room } }))
    env.DOCUMENT = made.id
  }
  const program = spawn(process.execPath, ['--import', './browser.mjs', `./${name}.mjs`], { cwd: import.meta.dirname, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [program.stdout, program.stderr]) stream.setEncoding('utf8').on('data', text => { printed += text })
  try {
    await eventually(async () => {
      assert.equal(program.exitCode, null, 'it runs on')
      const document = await find(room)
      assert.ok(document, `there is a document ${room}`)
      assert.match(await contentOf(document.id), writes)
      if (says) assert.match(printed, says)
    })
    console.log(`ok   ${name}`)
  } catch (error) {
    console.error(`FAIL ${name}: ${error.message}\nit printed:\n${printed}`)
    process.exitCode = 1
  } finally {
    program.kill()
  }
}

const chosen = process.argv.slice(2)
for (const [name, expected] of Object.entries(PROGRAMS)) {
  if (chosen.length === 0 || chosen.includes(name)) await run(name, expected)
}
