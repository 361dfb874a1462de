// The control: a small Yjs server of the three dialects that acknowledges and shows on receipt and stores late, as servers without a
// log do. The checker must convict it. `--no-fanout` leaves out the sending of updates to others.
import { createServer } from 'node:http'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { WebSocketServer } from 'ws'
import * as Y from 'yjs'
import * as encoding from 'lib0/encoding'
import * as decoding from 'lib0/decoding'
import * as awarenessProtocol from 'y-protocols/awareness'

const [port, directory, ...flags] = process.argv.slice(2)
const fanout = !flags.includes('--no-fanout')
const storeAfterMs = Number(flags.find(flag => flag.startsWith('--store-after='))?.split('=')[1] ?? 500)
const rooms = new Map()

const roomOf = name => {
  if (rooms.has(name)) return rooms.get(name)
  const doc = new Y.Doc()
  const file = `${directory}/${Buffer.from(name).toString('hex')}.bin`
  if (existsSync(file)) Y.applyUpdate(doc, readFileSync(file))
  const room = { name, doc, peers: new Set(), awareness: new awarenessProtocol.Awareness(doc), timer: null }
  room.awareness.setLocalState(null)
  doc.on('update', update => {
    for (const peer of room.peers) if (fanout) peer.sync(2, update)
    room.timer ??= setTimeout(() => {
      room.timer = null
      writeFileSync(`${file}.new`, Y.encodeStateAsUpdate(doc))
      renameSync(`${file}.new`, file)
    }, storeAfterMs)
  })
  room.awareness.on('update', ({ added, updated, removed }) => {
    const update = awarenessProtocol.encodeAwarenessUpdate(room.awareness, [...added, ...updated, ...removed])
    for (const peer of room.peers) peer.aware(update)
  })
  rooms.set(name, room)
  return room
}

/** One document on one socket. */
class Peer {
  constructor (socket, room, prefix) {
    Object.assign(this, { socket, room, prefix, ids: new Set() })
    room.peers.add(this)
  }

  send (write) {
    const encoder = encoding.createEncoder()
    if (this.prefix !== null) encoding.writeVarString(encoder, this.prefix)
    write(encoder)
    if (this.socket.readyState === 1) this.socket.send(encoding.toUint8Array(encoder))
  }

  sync (sub, payload) { this.send(e => { encoding.writeVarUint(e, 0); encoding.writeVarUint(e, sub); encoding.writeVarUint8Array(e, payload) }) }
  aware (update) { this.send(e => { encoding.writeVarUint(e, 1); encoding.writeVarUint8Array(e, update) }) }

  hello () {
    this.sync(0, Y.encodeStateVector(this.room.doc))
    const present = [...this.room.awareness.getStates().keys()]
    if (present.length > 0) this.aware(awarenessProtocol.encodeAwarenessUpdate(this.room.awareness, present))
  }

  hear (decoder, type) {
    if (type === 0) {
      const sub = decoding.readVarUint(decoder)
      const payload = decoding.readVarUint8Array(decoder)
      if (sub === 0) return this.sync(1, Y.encodeStateAsUpdate(this.room.doc, payload))
      Y.applyUpdate(this.room.doc, payload, this)
      if (this.prefix !== null) this.send(e => { encoding.writeVarUint(e, 8); encoding.writeVarUint(e, 1) })
    } else if (type === 1) {
      const update = decoding.readVarUint8Array(decoder)
      const inner = decoding.createDecoder(update)
      for (let n = decoding.readVarUint(inner); n > 0; n -= 1) {
        this.ids.add(decoding.readVarUint(inner))
        decoding.readVarUint(inner)
        decoding.readVarString(inner)
      }
      awarenessProtocol.applyAwarenessUpdate(this.room.awareness, update, this)
    } else if (type === 102) {
      const payload = decoding.readVarUint8Array(decoder)
      this.send(e => { encoding.writeVarUint(e, 102); encoding.writeVarUint8Array(e, payload) })
    }
  }

  leave () {
    this.room.peers.delete(this)
    awarenessProtocol.removeAwarenessStates(this.room.awareness, [...this.ids], this)
  }
}

const http = createServer((request, response) => {
  const id = request.url.match(/^\/doc\/([^/]+)\/auth$/)?.[1]
  const update = request.url.match(/^\/d\/([^/]+)\/as-update$/)?.[1]
  if (id) {
    const host = request.headers.host
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ url: `ws://${host}/d/${id}/ws`, baseUrl: `http://${host}/d/${id}`, docId: id, authorization: 'full' }))
  } else if (update) {
    response.end(Y.encodeStateAsUpdate(roomOf(update).doc))
  } else {
    response.statusCode = 404
    response.end()
  }
})

new WebSocketServer({ server: http, perMessageDeflate: false }).on('connection', (socket, request) => {
  const { pathname } = new URL(request.url, 'http://localhost')
  socket.binaryType = 'nodebuffer'
  const peers = new Map()
  const isB = pathname === '/collab'
  const room = isB ? null : decodeURIComponent(pathname.match(/^\/yjs\/(.+)$/)?.[1] ?? pathname.match(/^\/d\/[^/]+\/ws\/(.+)$/)?.[1] ?? '')
  if (room) {
    peers.set(null, new Peer(socket, roomOf(room), null))
    peers.get(null).hello()
  }
  socket.on('message', data => {
    const decoder = decoding.createDecoder(new Uint8Array(data))
    if (isB && data.length === 1) return
    const name = isB ? decoding.readVarString(decoder) : null
    const type = decoding.readVarUint(decoder)
    if (isB && type === 2) {
      const peer = new Peer(socket, roomOf(name.split('\0')[0]), name)
      peers.set(name, peer)
      peer.send(e => { encoding.writeVarUint(e, 2); encoding.writeVarUint(e, 2); encoding.writeVarString(e, 'read-write') })
      peer.hello()
    } else if (isB && type === 7) {
      peers.get(name)?.leave()
      peers.delete(name)
    } else {
      peers.get(name)?.hear(decoder, type)
    }
  })
  socket.on('close', () => { for (const peer of peers.values()) peer.leave() })
})
http.listen(Number(port), '127.0.0.1', () => console.log(`ContextNexus is ready at http://127.0.0.1:${http.address().port}`))
