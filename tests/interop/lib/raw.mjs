// A WebSocket without any client behind it: exactly the bytes that a test gives, exactly the bytes that come back.
import { WebSocket } from 'ws'
import { hex } from './wire.mjs'

export class RawSocket {
  /** @param {{url: string, protocols?: string[], headers?: Record<string, string>, mayFail?: boolean}} options */
  static async open ({ url, protocols, headers, mayFail = false }) {
    const raw = new RawSocket()
    raw.frames = []
    raw.closed = null
    raw.socket = new WebSocket(url, protocols ?? [], { headers, perMessageDeflate: false })
    raw.socket.on('message', (data, binary) => raw.frames.push(binary ? hex(data) : `text:${data}`))
    raw.socket.on('close', (code, reason) => { raw.closed ??= { code, reason: String(reason) } })
    await new Promise((resolve, reject) => {
      raw.socket.once('open', resolve)
      raw.socket.once('unexpected-response', (_, response) => {
        raw.closed = { status: response.statusCode }
        mayFail ? resolve() : reject(new Error(`the upgrade was answered with ${response.statusCode}`))
      })
      raw.socket.once('error', error => {
        raw.closed ??= { error: String(error) }
        mayFail ? resolve() : reject(error)
      })
    })
    raw.socket.on('error', () => {})
    raw.protocol = raw.socket.protocol
    return raw
  }

  /** Reads nothing more, as a laptop whose lid was closed. Answers the local port, by which the kernel knows this connection. */
  pause () {
    this.socket._socket.pause()
    return this.socket._socket.localPort
  }

  send (bytes) { this.socket.send(bytes) }
  close () { this.socket.terminate() }
}
