// Random edits from a seed, over yjs 13 and yjs 14 documents alike. An editor never splits a character, so neither do these.
import * as Y from 'yjs'
import * as Y14 from '@y/y'

/** mulberry32: small, and the same on every machine. */
export const random = seed => {
  let a = seed >>> 0
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = a
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = n => Math.floor(next() * n)
  return { next, below, pick: list => list[below(list.length)] }
}

/** The roots that every client edits, by one interface for both generations of yjs. */
export const rootsOf = (doc, generation) => generation === 14 ? roots14(doc) : roots13(doc)

const roots13 = doc => {
  const text = doc.getText('text')
  const map = doc.getMap('map')
  const array = doc.getArray('array')
  const xml = doc.getXmlFragment('xml')
  const tokens = doc.getArray('tokens')
  return {
    text,
    array,
    string: () => text.toString(),
    setKey: (key, value) => map.set(key, value),
    deleteKey: key => map.delete(key),
    nestInMap: key => map.set(key, new Y.Map([['made', key]])),
    nestInArray: (at, word) => array.insert(at, [new Y.Text(word)]),
    addElement: (at, name) => xml.insert(at, [new Y.XmlElement(name)]),
    addText: (element, word) => element.insert(element.length, [new Y.XmlText(word)]),
    elements: () => xml.toArray().filter(node => node instanceof Y.XmlElement),
    setAttribute: (element, key, value) => element.setAttribute(key, value),
    removeAttribute: (element, key) => element.removeAttribute(key),
    xml,
    tokens
  }
}

const roots14 = doc => {
  const text = doc.get('text')
  const map = doc.get('map')
  const array = doc.get('array')
  const xml = doc.get('xml')
  const tokens = doc.get('tokens')
  return {
    text,
    array,
    string: () => text.toArray().map(part => typeof part === 'string' ? part : '\ufffc').join(''),
    setKey: (key, value) => map.setAttr(key, value),
    deleteKey: key => map.deleteAttr(key),
    nestInMap: key => map.setAttr(key, new Y14.Type()),
    nestInArray: (at, word) => array.insert(at, [new Y14.Type()]),
    addElement: (at, name) => xml.insert(at, [new Y14.Type(name)]),
    addText: (element, word) => element.insert(element.length, word),
    elements: () => xml.toArray().filter(node => node instanceof Y14.Type && node.name),
    setAttribute: (element, key, value) => element.setAttr(key, value),
    removeAttribute: (element, key) => element.deleteAttr(key),
    xml,
    tokens
  }
}

const WORDS = ['alpha ', 'beta ', 'γάμμα ', '😀', '👩‍👩‍👧', 'דלת ', 'e', '\n', '🇺🇳', 'long sentence about nothing. ']
const KEYS = ['a', 'b', 'c', 'd', 'e']
const MARKS = [{ bold: true }, { bold: null }, { italic: true }, { italic: null }, { link: { href: 'https://example.org' } }, { link: null }]

/** Moves an index off the middle of a surrogate pair. */
const whole = (string, at) => {
  const code = string.charCodeAt(at)
  return at > 0 && code >= 0xdc00 && code <= 0xdfff ? at - 1 : at
}

const edits = [
  (roots, r) => insertText(roots, r),
  (roots, r) => insertText(roots, r),
  (roots, r) => insertText(roots, r),
  (roots, r) => {
    const string = roots.string()
    const from = whole(string, r.below(string.length + 1))
    const to = whole(string, Math.min(string.length, from + 1 + r.below(8)))
    if (to > from) roots.text.delete(from, to - from)
  },
  (roots, r) => {
    const string = roots.string()
    const from = whole(string, r.below(string.length + 1))
    const to = whole(string, Math.min(string.length, from + 1 + r.below(20)))
    if (to > from) roots.text.format(from, to - from, r.pick(MARKS))
  },
  (roots, r) => roots.setKey(r.pick(KEYS), r.pick([r.below(1000), 'word', true, null, { deep: [1, { er: '😀' }] }])),
  (roots, r) => roots.deleteKey(r.pick(KEYS)),
  (roots, r) => roots.nestInMap(r.pick(KEYS)),
  (roots, r) => roots.array.insert(r.below(roots.array.length + 1), [r.below(1000), r.pick(WORDS)]),
  (roots, r) => roots.nestInArray(r.below(roots.array.length + 1), r.pick(WORDS)),
  (roots, r) => {
    const length = roots.array.length
    if (length > 0) roots.array.delete(r.below(length), 1)
  },
  (roots, r) => roots.addElement(r.below(roots.xml.length + 1), r.pick(['paragraph', 'heading', 'li'])),
  (roots, r) => withElement(roots, r, element => roots.setAttribute(element, r.pick(KEYS), String(r.below(100)))),
  (roots, r) => withElement(roots, r, element => roots.removeAttribute(element, r.pick(KEYS))),
  (roots, r) => withElement(roots, r, element => roots.addText(element, r.pick(WORDS))),
  (roots, r) => {
    const length = roots.xml.length
    if (length > 6) roots.xml.delete(r.below(length), 1)
  }
]

const insertText = (roots, r) => {
  const string = roots.string()
  const at = whole(string, r.below(string.length + 1))
  roots.text.insert(at, r.pick(WORDS), r.below(4) === 0 ? r.pick(MARKS) : undefined)
}

const withElement = (roots, r, change) => {
  const elements = roots.elements()
  if (elements.length > 0) change(r.pick(elements))
}

/** One random change of the document. It may find nothing to do (a delete in an empty text). */
export const editOnce = (roots, r) => r.pick(edits)(roots, r)
