// Runs every program of the README as the README tells, in Node or with Vite in a browser, against a running server. Checks that what
// it wrote is in the document, as any other reader sees it. The programs run on, as an application does; this ends them.
//
//   URL=http://127.0.0.1:8080 TOKEN=… node run.mjs [names…]
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createServer } from 'node:net'
import * as Y from 'yjs'

const { URL: server, TOKEN: token } = process.env
const PATIENCE_MS = 60_000 // Vite bundles first, and the machine may be busy.
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'

/** Program -> the text that it writes, and what it prints when it knows that it is saved. */
const PROGRAMS = {
  'y-websocket': { writes: /^Hello from y-websocket$/m },
  'y-websocket-ticket': { writes: /^Hello with a ticket$/m, room: 'hello-ticket' },
  hocuspocus: { writes: /^Hello from Hocuspocus$/m, says: /^saved$/m },
  'y-sweet': { writes: /^Hello from Y-Sweet$/m, says: /^saved$/m },
  tiptap: { writes: /<paragraph>Hello from <bold>Tiptap<\/bold><\/paragraph>/, inBrowser: true },
  codemirror: { writes: /^\/\/ Hello from CodeMirror$/m, inBrowser: true }
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

/** Node has a WebSocket of its own since version 22, and before behind a flag. */
const nodeFlags = Number(process.versions.node.split('.')[0]) < 22 ? ['--experimental-websocket'] : []

function start (command, args, env = {}) {
  // Without colours, which some programs print where `CI` is set: what they print is read here.
  const environment = { ...process.env, NO_COLOR: '1', ...env }
  const program = spawn(command, args, { cwd: import.meta.dirname, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  program.printed = ''
  for (const stream of [program.stdout, program.stderr]) stream.setEncoding('utf8').on('data', text => { program.printed += text })
  return program
}

/** `npx vite` and a browser at the program's page. */
async function startInBrowser (name) {
  const port = await freePort()
  const vite = path.join(import.meta.dirname, 'node_modules/vite/bin/vite.js')
  const bundler = start(process.execPath, [vite, '--port', String(port), '--strictPort'], { VITE_URL: server, VITE_TOKEN: token })
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'contextnexus-snippets-'))
  try {
    await eventually(() => assert.match(bundler.printed, /Local:/))
    const flags = ['--headless=new', '--no-sandbox', '--no-first-run', '--disable-background-networking', '--enable-logging=stderr', `--user-data-dir=${profile}`]
    return [bundler, start(CHROMIUM, [...flags, `http://localhost:${port}/${name}.html`])]
  } catch (error) {
    bundler.kill()
    throw error
  }
}

function freePort () {
  return new Promise(resolve => {
    const probe = createServer().listen(0, () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })
}

async function run (name, { writes, says, inBrowser, room = `hello-${name}` }) {
  const env = {}
  if (name === 'y-websocket-ticket') {
    const project = (await ask('/v1/projects')).items.find(({ is_default: isDefault }) => isDefault)
    const made = (await find(room)) ?? (await ask('/v1/documents', { method: 'POST', body: { project_id: project.id, name: room } }))
    env.DOCUMENT = made.id
  }
  const programs = inBrowser ? await startInBrowser(name) : [start(process.execPath, [...nodeFlags, `${name}.mjs`], env)]
  try {
    await eventually(async () => {
      for (const program of programs) assert.equal(program.exitCode, null, 'it runs on')
      const document = await find(room)
      assert.ok(document, `there is a document ${room}`)
      assert.match(await contentOf(document.id), writes)
      if (says) assert.match(programs[0].printed, says)
    })
    console.log(`ok   ${name}`)
  } catch (error) {
    console.error(`FAIL ${name}: ${error.message}\nit printed:\n${programs.map(({ printed }) => printed).join('\n')}`)
    process.exitCode = 1
  } finally {
    for (const program of programs) program.kill()
  }
}

const chosen = process.argv.slice(2)
for (const [name, expected] of Object.entries(PROGRAMS)) {
  if (chosen.length === 0 || chosen.includes(name)) await run(name, expected)
}
