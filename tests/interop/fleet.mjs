// A process full of clients, driven by JSON lines: a request `{id, do, …}` on stdin, an answer `{id, ok}` or `{id, error}` on stdout.
import { createInterface } from 'node:readline'
import { openSync, writeSync } from 'node:fs'
import * as Y from 'yjs'
import { Client, KINDS } from './lib/client.mjs'
import { difference, canonical } from './lib/compare.mjs'
import { editOnce, random } from './lib/random.mjs'
import { RawSocket } from './lib/raw.mjs'
import { describeValues, writeValues } from './lib/values.mjs'

/** @type {Map<string, Client>} */
const clients = new Map()
const raws = new Map()
/** Documents of clients that are gone, for a client that goes on with one. */
const kept = new Map()

const client = name => {
  const found = clients.get(name)
  if (!found) throw new Error(`no client ${name}`)
  return found
}
const named = names => names ? names.map(client) : [...clients.values()]
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const bytes = base64 => new Uint8Array(Buffer.from(base64, 'base64'))

/** No verdict is about how fast the machine is: what must come is waited for this long at least, except where the test waits in vain. */
const patient = (timeoutMs, inVain, leastMs = 120_000) => inVain || timeoutMs === 0 ? timeoutMs : Math.max(timeoutMs, leastMs)

/** Polls until `done` gives something other than undefined; the last complaint becomes the error. */
const until = async (timeoutMs, done, complaint) => {
  const started = Date.now()
  for (;;) {
    const result = done()
    if (result !== undefined && result !== false) return Date.now() - started
    if (Date.now() - started > timeoutMs) throw new Error(`${complaint()} after ${timeoutMs} ms`)
    await sleep(20)
  }
}

const documents = request => [
  ...named(request.clients).map(one => ({ name: one.name, update: one.update() })),
  ...(request.also ?? []).map(({ name, update }) => ({ name, update: bytes(update) })),
  ...(request.alsoFolded ?? []).map(({ name, updates }) => ({ name, update: fold(updates) }))
]

// No root is ever given a type here: a document that knows its texts tidies their formats on the way, and so deletes what no row of
// the log deleted.
const fold = updates => {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, bytes(update))
  return Y.encodeStateAsUpdate(doc)
}

const brief = ({ attempts, closes, ...status }) => ({ ...status, attempts: attempts.length, closes: closes.slice(-2) })

const conditions = {
  synced: status => status.synced,
  saved: status => status.saved,
  connected: status => status.connected,
  disconnected: status => !status.connected,
  denied: status => status.counts.denied > 0,
  refused: status => status.counts.refused > 0
}

const commands = {
  kinds: () => Object.keys(KINDS),

  open: ({ client: name, ...options }) => {
    if (clients.has(name)) throw new Error(`client ${name} is there already`)
    const socketOf = options.socketOf ? client(options.socketOf) : undefined
    const doc = kept.get(options.documentOf)
    clients.set(name, new Client({ ...options, name, socketOf, doc }))
    return { clientId: client(name).clientId }
  },
  close: ({ client: name, keepDocument }) => {
    if (keepDocument) kept.set(name, client(name).doc)
    client(name).close()
    clients.delete(name)
  },
  vanish: ({ client: name }) => { client(name).vanish(); clients.delete(name) },
  offline: ({ client: name }) => client(name).offline(),
  online: ({ client: name }) => client(name).online(),
  /** A text frame, as y-partyserver sends its own messages. */
  say: ({ client: name, text }) => client(name).provider.sendMessage(text),
  resync: ({ client: name }) => client(name).provider.forceSync(),
  /** The token that the client presents from now on, as a page refreshes it; `send`: on the open document (Hocuspocus from 3 on). */
  setToken: async ({ client: name, token, send = false }) => {
    client(name).setToken(token)
    if (send) await client(name).provider.sendToken()
  },
  /** Hocuspocus 2.15, whose provider leaves after a refusal: comes back, as its application does. */
  attach: ({ client: name }) => client(name).provider.connect(),

  /** Random edits of all clients given, in turn, `pauseMs` between two; some go offline and come back on the way. */
  edit: async ({ clients: names, seed, count, pauseMs = 2, flaky = false }) => {
    const r = random(seed)
    const all = named(names)
    const away = new Map()
    for (let at = 0; at < count; at += 1) {
      for (const [one, back] of away) if (at >= back) { one.online(); away.delete(one) }
      const one = r.pick(all)
      one.transact(() => editOnce(one.roots, r))
      if (flaky && r.below(25) === 0 && away.size < all.length - 1) {
        const leaver = r.pick(all)
        leaver.offline()
        away.set(leaver, at + 5 + r.below(40))
      }
      if (pauseMs > 0) await sleep(pauseMs)
    }
    for (const one of away.keys()) one.online()
    return { edits: count }
  },
  /** `count` transactions of one client without a pause between them. */
  burst: ({ client: name, count, word = 'x' }) => {
    const one = client(name)
    for (let n = 0; n < count; n += 1) one.transact(() => one.roots.text.insert(0, word))
  },
  write: ({ client: name, token }) => ({ clock: client(name).write(token) }),
  text: ({ client: name }) => client(name).roots.string(),
  insert: ({ client: name, at, text }) => client(name).roots.text.insert(at, text),
  setKey: ({ client: name, key, value }) => client(name).transact(() => client(name).roots.setKey(key, value)),
  tokens: ({ client: name }) => canonical(client(name).update()).tokens,
  writeValues: ({ client: name }) => writeValues(client(name).doc),
  values: ({ client: name }) => describeValues(client(name).update()),
  apply: ({ client: name, update }) => client(name).Y.applyUpdate(client(name).doc, bytes(update), 'relay'),

  /** Writes under the client id of somebody else, as no honest client does, and sends it as its own; `deletes`: and deletes it again. */
  forge: ({ client: name, clientId, at, text, deletes = false }) => {
    const { Y, doc } = client(name)
    const forger = new Y.Doc()
    const root = forger.getText('text')
    Y.applyUpdate(forger, client(name).update())
    forger.clientID = clientId
    forger.on('update', update => Y.applyUpdate(doc, update, 'relay'))
    root.insert(at, text)
    if (deletes) root.delete(at, text.length)
  },

  status: ({ client: name }) => client(name).status,
  update: ({ client: name }) => Buffer.from(client(name).update()).toString('base64'),
  record: ({ client: name }) => client(name).record,

  wait: async ({ clients: names, until: condition, timeoutMs = 10_000 }) => {
    const open = () => named(names).filter(one => !conditions[condition](one.status)).map(one => one.name)
    return await until(patient(timeoutMs), () => open().length === 0, () => `${open()} not ${condition}: ${JSON.stringify(open().map(name => brief(client(name).status)))}`)
  },
  /** Waits until all clients, and whatever else is given, are equal; answers how long that took. `inVain`: they are not to be. */
  converge: async ({ timeoutMs = 5_000, inVain = false, ...request }) => {
    let last
    return await until(patient(timeoutMs, inVain), () => (last = difference(documents(request))) === null, () => last)
  },
  difference: request => difference(documents(request)),
  tokensOf: ({ update }) => canonical(bytes(update)).tokens,
  /** All text that an update holds, whether it stands alone or not. */
  rawText: ({ update }) => Y.decodeUpdate(bytes(update)).structs.map(struct => struct.content?.str ?? '').join(''),
  fold: ({ updates }) => Buffer.from(fold(updates)).toString('base64'),

  setAwareness: ({ client: name, state }) => client(name).awareness.setLocalState(state),
  /**
   * From now on the client neither repeats its state after 15 s nor forgets one that was not repeated for 30 s: what it sees again was
   * shown to it, however long that took.
   */
  noRenewals: ({ client: name }) => clearInterval(client(name).awareness._checkInterval),
  awareness: ({ client: name }) => client(name).states(),
  /**
   * Waits until a client sees exactly these client ids (its own included). Less patiently than for other things: after 30 s without a
   * renewal clients drop a cursor by themselves.
   */
  waitAwareness: async ({ client: name, ids, timeoutMs = 5_000 }) => {
    const wanted = [...ids].sort((a, b) => a - b).join()
    const seen = () => client(name).states().filter(({ state }) => state !== null).map(({ clientId }) => clientId).sort((a, b) => a - b).join()
    return await until(patient(timeoutMs, false, 20_000), () => seen() === wanted, () => `${name} sees ${seen()}, not ${wanted}`)
  },

  /**
   * Each client writes unique tokens and notes in `log`, one JSON line each: `wrote`, `acked` (the client calls it saved) and `seen` (by another).
   * The lines are written before the next event is handled, so they outlive a SIGKILL of this process.
   */
  load: ({ clients: names, perSecond, log, prefix }) => {
    const file = openSync(log, 'a')
    const note = line => writeSync(file, `${JSON.stringify(line)}\n`)
    for (const one of named(names)) {
      let next = 0
      const waiting = []
      one.onSaved = () => {
        while (waiting.length > 0 && waiting[0].clock <= one.saved) note({ acked: waiting.shift().token, by: one.name, at: Date.now() })
      }
      one.onSeen = token => { if (!token.startsWith(`tok-${prefix}-${one.name}-`)) note({ seen: token, by: one.name, at: Date.now() }) }
      if (one.options.silent) continue
      one.timer = setInterval(() => {
        const token = `tok-${prefix}-${one.name}-${next++}`
        // Announced before it is sent: an acknowledgement may come at any later moment.
        const entry = { token, clock: Infinity }
        waiting.push(entry)
        entry.clock = one.write(token)
      }, 1000 / perSecond)
    }
  },
  stopLoad: () => { for (const one of clients.values()) clearInterval(one.timer) },

  http: async ({ method = 'GET', url, headers = {}, body, json }) => {
    const answer = await fetch(url, {
      method,
      headers: { ...headers, ...(json === undefined ? {} : { 'content-type': 'application/json' }) },
      body: json !== undefined ? JSON.stringify(json) : body === undefined ? undefined : bytes(body)
    })
    const content = new Uint8Array(await answer.arrayBuffer())
    const text = Buffer.from(content).toString()
    let parsed = null
    try { parsed = JSON.parse(text) } catch { /* not JSON: then there is none */ }
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: Buffer.from(content).toString('base64'), json: parsed }
  },

  rawOpen: async ({ raw: name, ...options }) => { raws.set(name, await RawSocket.open(options)) },
  rawSend: ({ raw: name, hex }) => raws.get(name).send(Buffer.from(hex, 'hex')),
  rawFrames: ({ raw: name }) => raws.get(name).frames,
  rawWait: async ({ raw: name, count, timeoutMs = 5_000 }) => {
    const raw = raws.get(name)
    await until(patient(timeoutMs), () => raw.frames.length >= count || raw.closed !== null, () => `only ${JSON.stringify(raw.frames)}`)
    return { frames: raw.frames, closed: raw.closed }
  },
  rawClosed: async ({ raw: name, timeoutMs = 5_000 }) => {
    const raw = raws.get(name)
    await until(patient(timeoutMs), () => raw.closed !== null, () => 'the socket is open')
    return raw.closed
  },
  rawPause: ({ raw: name }) => raws.get(name).pause(),
  rawClose: ({ raw: name }) => { raws.get(name).close(); raws.delete(name) },

  exit: () => process.exit(0)
}

const answer = line => process.stdout.write(`${JSON.stringify(line)}\n`)
process.on('uncaughtException', error => answer({ event: 'uncaught', error: String(error?.stack ?? error) }))
process.on('unhandledRejection', error => answer({ event: 'uncaught', error: String(error?.stack ?? error) }))

const lines = createInterface({ input: process.stdin })
lines.on('line', async line => {
  const { id, do: command, ...request } = JSON.parse(line)
  try {
    if (!commands[command]) throw new Error(`no command ${command}`)
    answer({ id, ok: (await commands[command](request)) ?? null })
  } catch (error) {
    answer({ id, error: String(error?.stack ?? error) })
  }
})
// The test is gone: so are the clients.
lines.on('close', () => process.exit(0))
