// The stock JavaScript clients behind one interface. What a client believes (connected, synced, saved) is read from the client itself;
// what it was told is read from the frames.
import * as Y from 'yjs'
import * as Y14 from '@y/y'
import * as yWebsocket1 from 'y-websocket-1'
import * as yWebsocket2 from 'y-websocket-2'
import * as yWebsocket3 from 'y-websocket'
import * as yWebsocket4 from '@y/websocket'
import PartyProvider from 'y-partyserver/provider'
import * as hocuspocus2 from '@hocuspocus/provider-2'
import * as hocuspocus3 from '@hocuspocus/provider-3'
import * as hocuspocus43 from '@hocuspocus/provider-4.3'
import * as hocuspocus47 from '@hocuspocus/provider-4.7'
import * as hocuspocus4 from '@hocuspocus/provider-4'
import * as ySweet8 from '@y-sweet/client-0.8'
import * as ySweet9 from '@y-sweet/client'
import { WebSocket } from 'ws'
import { Tap } from './tap.mjs'
import { rootsOf } from './random.mjs'
import {
  contentOf, hex, parseFrame, SYNC, AWARENESS, AUTH, CLOSE, HOCUSPOCUS_SYNC_STATUS, Y_SWEET_SYNC_STATUS
} from './wire.mjs'

/** kind -> dialect, generation of yjs and package */
export const KINDS = {
  'y-websocket-1': { dialect: 'y-websocket', generation: 13, module: yWebsocket1 },
  'y-websocket-2': { dialect: 'y-websocket', generation: 13, module: yWebsocket2 },
  'y-websocket-3': { dialect: 'y-websocket', generation: 13, module: yWebsocket3 },
  'y-websocket-4': { dialect: 'y-websocket', generation: 14, module: yWebsocket4 },
  party: { dialect: 'y-websocket', generation: 13 },
  'hocuspocus-2': { dialect: 'hocuspocus', generation: 13, module: hocuspocus2 },
  'hocuspocus-3': { dialect: 'hocuspocus', generation: 13, module: hocuspocus3 },
  'hocuspocus-4.3': { dialect: 'hocuspocus', generation: 13, module: hocuspocus43 },
  'hocuspocus-4': { dialect: 'hocuspocus', generation: 13, module: hocuspocus4 },
  'hocuspocus-4.7': { dialect: 'hocuspocus', generation: 13, module: hocuspocus47 },
  'y-sweet-0.8': { dialect: 'y-sweet', generation: 13, module: ySweet8 },
  'y-sweet-0.9': { dialect: 'y-sweet', generation: 13, module: ySweet9 }
}

// y-websocket's `resyncInterval` asks the global class for its constants; Node has one of its own since 22.
globalThis.WebSocket ??= WebSocket

// stdout belongs to the answers of the fleet.
for (const level of ['log', 'warn', 'error', 'info']) {
  console[level] = (...words) => process.stderr.write(`${words.map(String).join(' ')}\n`)
}

export class Client {
  /**
   * @param {{kind: string, base: string, room: string, token?: string, name?: string, user?: string, readOnly?: boolean,
   *   paths?: {yWebsocket?: string, hocuspocus?: string}, dropUpdates?: boolean, record?: boolean, socketOf?: Client,
   *   sessionAwareness?: boolean,
   *   protocols?: string[], resyncInterval?: number, clientToken?: object, awareness?: boolean, doc?: Y.Doc}} options
   */
  constructor (options) {
    this.options = options
    this.name = options.name ?? options.kind
    const { dialect, generation, module } = KINDS[options.kind]
    this.dialect = dialect
    this.generation = generation
    this.Y = generation === 14 ? Y14 : Y
    this.doc = options.doc ?? new this.Y.Doc()
    if (options.clientId) this.doc.clientID = options.clientId
    this.roots = rootsOf(this.doc, generation)
    this.tap = new Tap()
    this.tap.origin = options.origin
    this.counts = { stepOneIn: 0, stepTwoIn: 0, updatesIn: 0, stepTwoOut: 0, updatesOut: 0, saved: 0, refused: 0, status102: 0, awarenessIn: 0, awarenessOut: 0, denied: 0, closed: 0, framesWithMore: 0 }
    this.lowestUnsynced = 0
    this.record = []
    this.errors = []
    /** Own content up to this clock came back, or stood in the server's state vector. */
    this.echoed = 0
    /** Own clock at the last moment at which the client itself called everything saved. */
    this.saved = 0
    this.tokensSeen = new Set()
    this.onSeen = () => {}
    this.onSaved = () => {}
    this.unsyncedEvents = []
    this.failedAuthentications = []
    this.stateless = []
    this.tap.onIncoming = bytes => this.#incoming(bytes)
    this.tap.onOutgoing = bytes => this.#outgoing(bytes)
    /** Hocuspocus, this connection: what must be answered with a status each, and what was. */
    this.owed = { sent: 0, answered: 0, steps: 0 }
    this.tap.onOpen = () => { this.owed = { sent: 0, answered: 0, steps: 0 } }
    this.provider = this.#connect(module)
    this.awareness = this.provider.awareness
    if (options.user) this.awareness.setLocalStateField('user', { name: options.user })
  }

  get clientId () { return this.doc.clientID }

  #connect (module) {
    const { base, room, token, paths = {}, validForSeconds } = this.options
    const socketBase = base.replace(/^http/, 'ws')
    if (this.options.kind === 'party') {
      // Without a prefix it asks for `/parties/main/{room}`. What is called a prefix is the whole path.
      return new PartyProvider(new URL(base).host, room, this.doc, {
        prefix: `${paths.yWebsocket ?? '/yjs'}/${encodeURIComponent(room)}`,
        protocol: socketBase.split(':')[0],
        params: { token },
        WebSocketPolyfill: this.tap.Socket,
        disableBc: true
      })
    }
    if (this.dialect === 'y-websocket') {
      const params = token && !this.options.protocols ? { token } : {}
      return new module.WebsocketProvider(`${socketBase}${paths.yWebsocket ?? '/yjs'}`, room, this.doc, {
        params,
        protocols: this.options.protocols ?? [],
        WebSocketPolyfill: this.tap.Socket,
        disableBc: true,
        resyncInterval: this.options.resyncInterval ?? -1
      })
    }
    if (this.dialect === 'hocuspocus') {
      this.socket = this.options.socketOf?.socket ?? new module.HocuspocusProviderWebsocket({
        url: `${socketBase}${paths.hocuspocus ?? '/collab'}`,
        WebSocketPolyfill: this.tap.Socket
      })
      if (this.options.socketOf) {
        this.tap = this.options.socketOf.tap
        // Both look at all frames of the shared socket and count those that bear their name.
        const before = this.tap.onIncoming
        const beforeOut = this.tap.onOutgoing
        const beforeOpen = this.tap.onOpen
        this.tap.onOpen = () => { beforeOpen(); this.owed = { sent: 0, answered: 0, steps: 0 } }
        this.tap.onIncoming = bytes => before(bytes) && this.#incoming(bytes)
        this.tap.onOutgoing = bytes => { beforeOut(bytes); this.#outgoing(bytes) }
      }
      const provider = new module.HocuspocusProvider({
        websocketProvider: this.socket,
        name: room,
        document: this.doc,
        token: token ?? 'none',
        broadcast: false,
        sessionAwareness: this.options.sessionAwareness ?? false,
        onAuthenticationFailed: ({ reason }) => this.failedAuthentications.push(reason),
        onStateless: ({ payload }) => this.stateless.push(payload)
      })
      provider.on('unsyncedChanges', event => {
        const number = typeof event === 'number' ? event : event.number
        this.unsyncedEvents.push(number)
        this.lowestUnsynced = Math.min(this.lowestUnsynced, number)
      })
      if (!provider._isAttached && provider.attach) provider.attach()
      return provider
    }
    const authEndpoint = async () => {
      if (this.options.clientToken) return this.options.clientToken
      const bearer = this.options.token
      const headers = { 'content-type': 'application/json', ...(bearer ? { authorization: `Bearer ${bearer}` } : {}) }
      // As the SDK's `getOrCreateDocAndToken` does.
      if (!this.options.readOnly) await fetch(`${base}/doc/new`, { method: 'POST', headers, body: JSON.stringify({ docId: room }) })
      const answer = await fetch(`${base}/doc/${encodeURIComponent(room)}/auth`, {
        method: 'POST',
        headers,
        body: JSON.stringify({ authorization: this.options.readOnly ? 'read-only' : 'full', validForSeconds })
      })
      if (!answer.ok) throw new Error(`POST /doc/…/auth answered ${answer.status}`)
      return await answer.json()
    }
    const provider = new module.YSweetProvider(authEndpoint, room, this.doc, { WebSocketPolyfill: this.tap.Socket, showDebuggerLink: false })
    provider.on('local-changes', unsaved => { if (!unsaved) this.#allSaved() })
    return provider
  }

  #allSaved () {
    this.saved = Math.max(this.saved, this.ownClock)
    this.onSaved()
  }

  get ownClock () { return clockOf(this.doc, this.clientId) }

  #incoming (bytes) {
    if (this.options.record) this.record.push({ at: Date.now(), way: 'in', hex: hex(bytes) })
    let frame
    try {
      frame = parseFrame(this.dialect, bytes)
    } catch (error) {
      this.errors.push(`unreadable frame ${hex(bytes).slice(0, 80)}: ${error}`)
      return true
    }
    if (this.dialect === 'hocuspocus' && frame.document !== null && frame.document !== this.#wireName()) return true
    const counts = this.counts
    if (frame.rest > 0) counts.framesWithMore += 1
    switch (frame.type) {
      case SYNC:
        if (frame.sub === 0) {
          counts.stepOneIn += 1
          this.#echo(Y.decodeStateVector(frame.payload).get(this.clientId) ?? 0)
        } else {
          if (frame.sub === 1) counts.stepTwoIn += 1
          else counts.updatesIn += 1
          if (this.options.dropUpdates && frame.sub === 2) return false
          const { clocks, tokens } = contentOf(frame.payload)
          this.#echo(clocks.get(this.clientId) ?? 0)
          for (const token of tokens) {
            if (!this.tokensSeen.has(token)) {
              this.tokensSeen.add(token)
              this.onSeen(token)
            }
          }
        }
        break
      case AWARENESS: counts.awarenessIn += 1; break
      case AUTH:
        if (frame.sub === (this.dialect === 'hocuspocus' ? 1 : 0)) {
          counts.denied += 1
          this.deniedAt ??= Date.now()
        }
        break
      case CLOSE: if (this.dialect === 'hocuspocus') counts.closed += 1; break
      case HOCUSPOCUS_SYNC_STATUS: if (this.dialect === 'hocuspocus') this.#answered(frame.status); break
      case Y_SWEET_SYNC_STATUS: if (this.dialect === 'y-sweet') counts.status102 += 1; break
    }
    return true
  }

  #wireName () {
    return this.provider?.effectiveName ?? this.options.room
  }

  #outgoing (bytes) {
    if (this.options.record) this.record.push({ at: Date.now(), way: 'out', hex: hex(bytes) })
    const frame = parseFrame(this.dialect, bytes)
    if (this.dialect === 'hocuspocus' && frame.document !== null && frame.document !== this.#wireName()) return
    if (frame.type === SYNC && frame.sub === 1) this.counts.stepTwoOut += 1
    if (frame.type === SYNC && frame.sub === 2) this.counts.updatesOut += 1
    // As the providers count: a step 1 begins the account anew with one, each update adds one. A step 2 that the server asked for
    // once more gets no status of its own.
    if (frame.type === SYNC && frame.sub === 0) this.owed = { sent: 1, answered: 0, steps: 0 }
    if (frame.type === SYNC && frame.sub === 1) this.owed.steps += 1
    if (frame.type === SYNC && frame.sub === 2) this.owed.sent += 1
    if (frame.type === AWARENESS) this.counts.awarenessOut += 1
  }

  /** One status per step 2 and per update: when the counts meet, everything that was sent is saved. */
  #answered (status) {
    this.owed.answered += 1
    if (status === 1) this.counts.saved += 1
    else this.counts.refused += 1
    if (this.owed.answered === this.owed.sent && this.owed.steps > 0 && this.counts.refused === 0) this.#allSaved()
  }

  #echo (clock) {
    if (clock > this.echoed) {
      this.echoed = clock
      if (this.dialect === 'y-websocket') {
        this.saved = Math.max(this.saved, clock)
        this.onSaved()
      }
    }
  }

  setToken (token) {
    this.options.token = token
    if (this.options.clientToken) this.options.clientToken = { ...this.options.clientToken, token }
    if (this.dialect === 'y-websocket') this.provider.params.token = token
    if (this.dialect === 'hocuspocus') this.provider.configuration.token = token
  }

  transact (change) { this.doc.transact(change) }

  /** Appends a token and returns the own clock after it: it is saved when `saved` has reached that. */
  write (token) {
    this.roots.tokens.push([token])
    return this.ownClock
  }

  get status () {
    const { provider } = this
    const state = {
      name: this.name,
      kind: this.options.kind,
      clientId: this.clientId,
      synced: Boolean(this.dialect === 'y-sweet' ? provider.status === 'connected' : provider.synced),
      connected: Boolean(this.dialect === 'y-websocket'
        ? provider.wsconnected
        : (this.dialect === 'hocuspocus' ? this.socket : provider).status === 'connected'),
      ownClock: this.ownClock,
      echoed: this.echoed,
      opened: this.tap.opened,
      closes: this.tap.closes,
      attempts: this.tap.attempts,
      deniedAt: this.deniedAt,
      counts: this.counts,
      errors: this.errors,
      saved: false
    }
    if (this.dialect === 'y-websocket') {
      state.saved = this.echoed >= this.ownClock
      state.gaveUp = provider.shouldConnect === false
    } else if (this.dialect === 'hocuspocus') {
      state.unsynced = provider.unsyncedChanges
      state.lowestUnsynced = this.lowestUnsynced
      state.authenticated = provider.isAuthenticated
      state.scope = provider.authorizedScope
      state.failedAuthentications = this.failedAuthentications
      state.stateless = this.stateless
      state.owed = this.owed
      // 2.15 counts what it queued offline only downwards: with its own server too it ends below zero. There the frames decide.
      const settled = this.owed.steps > 0 && this.owed.answered === this.owed.sent
      const counted = this.options.kind === 'hocuspocus-2' || provider.unsyncedChanges === 0
      state.saved = state.connected && settled && this.counts.refused === 0 && counted
    } else {
      state.unsaved = provider.hasLocalChanges
      state.saved = !provider.hasLocalChanges
    }
    return state
  }

  update () { return this.Y.encodeStateAsUpdate(this.doc) }

  states () {
    return [...this.awareness.getStates()].map(([clientId, state]) => ({ clientId, state }))
  }

  offline () { this.tap.cut() }

  online () {
    this.tap.restore()
    // Hocuspocus providers wait up to 30 s between attempts; a user who comes back presses reload.
    // (2.15 throws out of its clean-up when it is asked in the middle of an attempt of its own.)
    if (this.dialect === 'hocuspocus' && this.socket.status !== 'connecting') void this.socket.connect()
  }

  /** Leaves in the way that the provider offers. */
  close () {
    if (this.dialect === 'hocuspocus') {
      this.provider.destroy()
      if (!this.options.socketOf) this.socket.destroy()
    } else {
      this.provider.destroy()
      if (this.dialect === 'y-sweet') this.tap.cut() // 0.9.1 connects again after its own `destroy`
    }
    this.awareness.destroy?.()
  }

  /** The process is gone without a word. */
  vanish () {
    this.tap.cut()
    if (this.dialect === 'y-websocket') this.provider.shouldConnect = false
    if (this.dialect === 'hocuspocus') { this.socket.shouldConnect = false; this.socket.destroy() }
  }
}

const clockOf = (doc, client) => {
  const structs = doc.store.clients.get(client)
  if (!structs || structs.length === 0) return 0
  const last = structs[structs.length - 1]
  return last.id.clock + last.length
}
