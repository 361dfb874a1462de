// Values that JSON does not tell apart, written as an application writes them and read by type.
import * as Y from 'yjs'

const VALUES = {
  big: 1234567890123456789n,
  beyond: 12345678901234567890n, // lib0 writes the lower 64 bits
  small: 5n,
  zero: 0,
  negativeZero: -0,
  nan: NaN,
  infinite: -Infinity,
  float: 0.1,
  wide: 2 ** 53,
  ordered: { b: 1, a: 2 },
  reversed: { a: 2, b: 1 },
  numbered: { 10: 'ten', 2: 'two' },
  nested: { z: [{ y: -0, x: [7n, null, undefined] }], a: { c: {}, b: [] } },
  nothing: null,
  absent: undefined,
  true: true,
  text: 'é😀\u{10fffd}',
  bytes: new Uint8Array([0xf4, 0x8f, 0xbf, 0xbd, 1])
}

/** Writes them all into a map, an array, attributes, an embed, a format and a sub-document, and deletes one. Yjs 13. */
export const writeValues = doc => doc.transact(() => {
  const map = doc.getMap('map')
  const array = doc.getArray('array')
  const element = new Y.XmlElement('p')
  doc.getXmlFragment('xml').insert(0, [element])
  for (const [key, value] of Object.entries(VALUES)) {
    map.set(key, value)
    element.setAttribute(key, value)
  }
  const refused = value => typeof value === 'bigint' || value === undefined // by an array, as an element
  array.insert(0, Object.values(VALUES).map(value => refused(value) ? [value] : value))
  array.insert(4, [{ between: -0 }])
  array.delete(7, 1)
  const text = doc.getText('text')
  text.insert(0, 'words', { link: { title: null, href: '#', level: 1 } })
  text.insertEmbed(2, { b: 1.5, a: { d: [1, 2], c: '"\\' } })
  map.set('page', new Y.Doc({ guid: 'page-1', meta: { b: 1n, a: -0 } }))
})

/** All values of a document, each as text that tells its type, and the order of its keys. */
export const describeValues = update => {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, update)
  const [element] = doc.getXmlFragment('xml').toArray()
  return {
    map: sorted([...doc.getMap('map').entries()]),
    array: doc.getArray('array').toArray().map(described),
    attributes: sorted(Object.entries(element?.getAttributes() ?? {})),
    text: doc.getText('text').toDelta().map(described)
  }
}

const sorted = entries => entries.map(([key, value]) => `${key}: ${described(value)}`).sort()

const described = value => {
  if (typeof value === 'bigint') return `${value}n`
  if (Object.is(value, -0)) return '-0'
  if (value instanceof Y.Doc) return `document ${value.guid} ${described(value.meta)}`
  if (value instanceof Uint8Array) return `bytes ${value}`
  if (Array.isArray(value)) return `[${value.map(described)}]`
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value).map(([key, of]) => `${key}: ${described(of)}`)}}`
  }
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}
