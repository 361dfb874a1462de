// A WebSocket class for a provider to use, through which a test sees every frame and can take the network away.
import { WebSocket } from 'ws'

/** What one client's sockets have in common over all reconnects. */
export class Tap {
  constructor () {
    this.online = true
    this.sockets = new Set()
    this.opened = 0
    this.attempts = []
    this.closes = []
    /** The page that the sockets come from, as a browser would say; none: a program. */
    this.origin = undefined
    /** @type {(bytes: Uint8Array) => boolean} false = the frame never arrives */
    this.onIncoming = () => true
    /** @type {(bytes: Uint8Array) => void} */
    this.onOutgoing = () => {}
    this.onOpen = () => {}
    this.onClose = () => {}
    const tap = this
    this.Socket = class extends WebSocket {
      constructor (url, protocols) {
        // Without a network a connection is refused at once, as by a host that is not there.
        super(tap.online ? url : 'ws://127.0.0.1:1/', protocols, { origin: tap.origin })
        tap.attempts.push(Date.now())
        tap.sockets.add(this)
        // A browser reports to nobody what a provider no longer listens to; Node would end the process.
        this.on('error', () => {})
      }

      emit (event, ...args) {
        if (event === 'message') {
          const bytes = args[0] instanceof ArrayBuffer ? new Uint8Array(args[0]) : new Uint8Array(Buffer.concat([args[0]].flat()))
          if (!tap.onIncoming(bytes)) return true
        } else if (event === 'open') {
          tap.opened += 1
          tap.onOpen()
        } else if (event === 'close') {
          tap.sockets.delete(this)
          tap.closes.push({ code: args[0], reason: String(args[1] ?? ''), at: Date.now() })
          tap.onClose()
        }
        return super.emit(event, ...args)
      }

      send (data, ...rest) {
        if (typeof data !== 'string') tap.onOutgoing(new Uint8Array(data))
        return super.send(data, ...rest)
      }
    }
  }

  /** The cable is pulled: no close frame, nothing sent is known to have arrived. */
  cut () {
    this.online = false
    for (const socket of this.sockets) socket.terminate()
  }

  restore () {
    this.online = true
  }
}
