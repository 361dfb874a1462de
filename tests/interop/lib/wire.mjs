// Reads the frames of the three dialects, as far as the tests have to look at them. Knows nothing of any provider.
import * as decoding from 'lib0/decoding'
import * as Y from 'yjs'

export const SYNC = 0
export const AWARENESS = 1
export const AUTH = 2
export const CLOSE = 7
export const HOCUSPOCUS_SYNC_STATUS = 8
export const Y_SWEET_SYNC_STATUS = 102

/**
 * @param {'y-websocket'|'hocuspocus'|'y-sweet'} dialect
 * @param {Uint8Array} bytes
 */
export const parseFrame = (dialect, bytes) => {
  const decoder = decoding.createDecoder(bytes)
  const frame = { document: null, type: -1, sub: null, payload: null, status: null, text: null, rest: 0 }
  if (dialect === 'hocuspocus') {
    if (bytes.length === 1) return { ...frame, type: bytes[0] } // ping 9 and pong 10 carry no name
    frame.document = decoding.readVarString(decoder)
  }
  frame.type = decoding.readVarUint(decoder)
  if (frame.type === SYNC) {
    frame.sub = decoding.readVarUint(decoder)
    frame.payload = decoding.readVarUint8Array(decoder)
  } else if (frame.type === AWARENESS) {
    frame.payload = decoding.readVarUint8Array(decoder)
  } else if (frame.type === AUTH) {
    frame.sub = decoding.readVarUint(decoder)
    if (decoding.hasContent(decoder)) frame.text = decoding.readVarString(decoder)
  } else if (dialect === 'hocuspocus' && frame.type === CLOSE && decoding.hasContent(decoder)) {
    frame.text = decoding.readVarString(decoder)
  } else if (dialect === 'hocuspocus' && frame.type === HOCUSPOCUS_SYNC_STATUS) {
    frame.status = decoding.readVarUint(decoder)
  } else if (dialect !== 'hocuspocus' && frame.type === Y_SWEET_SYNC_STATUS) {
    frame.payload = decoding.readVarUint8Array(decoder)
    frame.status = decoding.readVarUint(decoding.createDecoder(frame.payload))
  }
  frame.rest = bytes.length - decoder.pos
  return frame
}

/** The clocks up to which an update holds content, and the tokens in it, whoever wrote them. */
export const contentOf = update => {
  const clocks = new Map()
  const tokens = []
  for (const struct of Y.decodeUpdate(update).structs) {
    if (struct.constructor.name === 'Skip') continue
    const { client, clock } = struct.id
    clocks.set(client, Math.max(clocks.get(client) ?? 0, clock + struct.length))
    const values = struct.content?.arr
    if (values) for (const value of values) if (isToken(value)) tokens.push(value)
  }
  return { clocks, tokens }
}

export const isToken = value => typeof value === 'string' && value.startsWith('tok-')

export const hex = bytes => Buffer.from(bytes).toString('hex')
