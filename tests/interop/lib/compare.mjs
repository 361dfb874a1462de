// One judge for all clients: whatever wrote it, a document is its v1 update, read by yjs 13 in a fresh document.
import { isDeepStrictEqual } from 'node:util'
import * as Y from 'yjs'

/** What makes two documents equal: content per root, state vector, delete set, and nothing that waits for something missing. */
export const canonical = update => {
  const doc = new Y.Doc()
  // `toString` of a type is read from what was integrated; tidying of formats by the reader must not change what is judged.
  const { structs } = Y.decodeUpdate(update)
  // What integration itself deletes (the loser of two writes to one key) stands in no row; what yjs tidies after it is not judged.
  let ds = { clients: new Map() }
  doc.once('afterTransaction', () => { ds = Y.createDeleteSetFromStructStore(doc.store) })
  Y.applyUpdate(doc, update)
  return {
    text: doc.getText('text').toDelta(),
    map: doc.getMap('map').toJSON(),
    array: doc.getArray('array').toJSON(),
    xml: doc.getXmlFragment('xml').toString(),
    tokens: doc.getArray('tokens').toJSON(),
    stateVector: clocks(structs),
    deleteSet: ranges(ds),
    pending: doc.store.pendingStructs === null && doc.store.pendingDs === null ? 'none' : 'structs or deletes wait for something missing'
  }
}

const clocks = structs => {
  const ends = {}
  for (const struct of structs) {
    if (struct.constructor.name === 'Skip') continue
    ends[struct.id.client] = Math.max(ends[struct.id.client] ?? 0, struct.id.clock + struct.length)
  }
  return ends
}

const ranges = ds => {
  const merged = {}
  for (const [client, items] of ds.clients) {
    const sorted = items.map(item => [item.clock, item.clock + item.len]).sort((a, b) => a[0] - b[0])
    const out = []
    for (const [from, to] of sorted) {
      const last = out.at(-1)
      if (last && from <= last[1]) last[1] = Math.max(last[1], to)
      else out.push([from, to])
    }
    if (out.length > 0) merged[client] = out
  }
  return merged
}

/**
 * The first difference in words, or null when all are equal.
 * @param {Array<{name: string, update: Uint8Array}>} documents
 */
export const difference = documents => {
  const [first, ...others] = documents.map(({ name, update }) => ({ name, state: canonical(update) }))
  if (first.state.pending !== 'none') return `${first.name}: ${first.state.pending}`
  for (const other of others) {
    for (const part of Object.keys(first.state)) {
      if (!isDeepStrictEqual(first.state[part], other.state[part])) {
        return `${part} of ${first.name} and ${other.name} differ: ${brief(first.state[part])} against ${brief(other.state[part])}`
      }
    }
  }
  return null
}

const brief = value => {
  const text = JSON.stringify(value)
  return text.length > 400 ? `${text.slice(0, 400)}… (${text.length} characters)` : text
}
