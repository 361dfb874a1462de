// Records honest histories of several Yjs editors, for `tests/yjs.rs`: one per line, "state vector, state, text, updates" in hex.
//
//   npm install yjs@13.6.33 y14a@npm:yjs@14.0.0-16 @y/y@14.0.0-rc.7
//   node record.mjs yjs13 1 10 > yjs13.txt     (and yjs14a, y14)
//
// More of them, without a file: node record.mjs yjs13 1 10000 | cargo run --release -p contextnexus-gate --example honest -- --recorded
const [flavour, seed0, count] = [process.argv[2], +process.argv[3], +process.argv[4]]
const Y = await import({ yjs13: 'yjs', yjs14a: 'y14a', y14: '@y/y' }[flavour])
const Y13 = await import('yjs')
const legacy = flavour !== 'y14'
let s = 1
const rnd = () => { s |= 0; s = s + 0x6D2B79F5 | 0; let t = Math.imul(s ^ s >>> 15, 1 | s); t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t; return ((t ^ t >>> 14) >>> 0) / 4294967296 }
const int = n => Math.floor(rnd() * n)
const pick = a => a[int(a.length)]
const hex = u => Buffer.from(u).toString('hex')
const SNIP = ['a', 'bc', 'héllo ', '😀', 'x😀y😀', 'words and words ', '漢字']
class Editor {
  constructor (id, gc) {
    this.doc = new Y.Doc({ gc })
    this.doc.clientID = id
    this.out = []
    this.doc.on('update', (u, origin) => { if (origin !== 'remote') this.out.push(u) })
    this.t = legacy ? this.doc.getText('t') : this.doc.get('t')
    this.a = legacy ? this.doc.getArray('a') : this.doc.get('a')
    this.m = legacy ? this.doc.getMap('m') : this.doc.get('m')
    this.x = legacy ? this.doc.getXmlFragment('x') : this.doc.get('x')
    this.undo = new Y.UndoManager([this.t, this.m, this.a], { captureTimeout: int(2) * 500 })
  }
  nested () {
    if (!legacy) { const t = new Y.Type(pick([null, 'p', 'h1'])); return t }
    const k = int(6)
    if (k === 0) return new Y.Map([['k', 1], ['l', { deep: [1, 2.5, null, -0, 1e300, 12345678901234567890n % 2n ** 62n] }]])
    if (k === 1) return new Y.Text('nested')
    if (k === 2) return Y.Array.from(['deep', new Uint8Array([1, 2])])
    if (k === 3) return new Y.XmlElement('p')
    if (k === 4) return new Y.XmlText('xt')
    return new Y.XmlFragment()
  }
  value () { return pick([1, -1, 0, -0, 2.5, 1 / 3, 'str', '😀', null, true, undefined, { a: [1, { b: 'c' }], z: undefined }, [[], {}], new Uint8Array([9]), 2 ** 40, -(2 ** 31), 'half \ud83d', BigInt(7)]) }
  edit () {
    const r = int(22)
    const { t, a, m, x } = this
    if (r < 8) {
      const len = t.length
      if (len && rnd() < 0.35) { const at = int(len); t.delete(at, 1 + int(Math.min(6, len - at))) } else t.insert(int(len + 1), pick(SNIP))
    } else if (r < 10) {
      const len = t.length
      if (len && legacy) { const at = int(len); t.format(at, 1 + int(len - at), { [pick(['bold', 'em'])]: pick([true, null, { href: 'é' }, 'cut \ud83d', { '\ude00': [2 ** 63, 1e19] }]) }) } else if (len) { const at = int(len); t.format(at, 1 + int(len - at), { [pick(['bold', 'em'])]: pick([true, null]) }) }
      if (legacy && rnd() < 0.3) t.insertEmbed(int(t.length + 1), pick([{ image: 'x.png', n: [1, 2] }, { cut: '\ude00 in two \ud83d', n: 12e18 }]))
      if (legacy && rnd() < 0.3) t.setAttribute('align', pick(['left', 'right']))
      if (legacy && rnd() < 0.2) t.applyDelta([{ retain: int(t.length + 1) }, { insert: 'delta', attributes: { bold: true } }])
    } else if (r < 14) {
      const len = a.length
      if (len && rnd() < 0.3) { const at = int(len); a.delete(at, 1 + int(Math.min(3, len - at))) } else if (rnd() < 0.4) a.insert(int(len + 1), [this.nested()])
      else a.insert(int(len + 1), [this.value(), this.value(), this.value()])
      const child = a.length ? a.get(int(a.length)) : null
      if (legacy && child instanceof Y.Map) child.set(pick(['k', 'l']), rnd() < 0.3 ? this.nested() : this.value())
      else if (legacy && child instanceof Y.Array) child.insert(0, [this.nested()])
      else if (!legacy && child instanceof Y.Type) { rnd() < 0.5 ? child.insert(0, 'more') : child.setAttr('k', this.value()) }
    } else if (r < 16) {
      const k = pick(['a', 'b', 'ключ'])
      if (legacy) { const q = int(6); q === 0 ? m.delete(k) : q === 1 ? m.set(k, this.nested()) : q === 2 ? m.set(k, new Y.Doc({ autoLoad: rnd() < 0.5, meta: { x: 1 } })) : m.set(k, this.value()) } else { const q = int(5); q === 0 ? m.deleteAttr(k) : q === 1 ? m.setAttr(k, this.nested()) : m.setAttr(k, this.value()) }
    } else if (r < 19) {
      const len = x.length
      if (legacy) {
        if (len && rnd() < 0.3) { const at = int(len); x.delete(at, 1 + int(Math.min(2, len - at))) } else {
          const el = new Y.XmlElement('p')
          if (el.setAttribute) el.setAttribute('level', pick([1, 'two', { three: 3 }]))
          if (el.insert) el.insert(0, [new Y.XmlText('words'), new Y.XmlElement('br')])
          x.insert(int(len + 1), [el])
        }
      } else if (len && rnd() < 0.3) { x.delete(int(len), 1) } else x.insert(int(len + 1), [this.nested()])
    } else if (r < 20) this.undo.undo(); else if (r < 21) this.undo.redo()
    else this.doc.transact(() => { for (let i = 0; i < 4; i++) { t.insert(int(t.length + 1), pick(SNIP)); if (t.length > 2) t.delete(int(t.length - 1), 1) } })
  }
}
for (let seed = seed0; seed < seed0 + count; seed++) {
  s = seed * 7919 + 1
  const ids = legacy ? [7, 0xfffffffe, 300, 1234567890] : [7, 2 ** 53 - 1, 300, 2 ** 40 + 5]
  const editors = ids.slice(0, 3 + int(2)).map(id => new Editor(id, rnd() < 0.7))
  const sent = []
  const server = new Y.Doc({ gc: rnd() < 0.5 })
  const send = u => { sent.push(hex(u)); Y.applyUpdate(server, u, 'remote') }
  for (let edits = 0, n = 50 + int(50); edits < n;) {
    const e = pick(editors)
    const q = int(10)
    if (q < 6) { edits++; try { e.edit() } catch { /* some edits make no sense where they land */ } }
    else if (q === 6) Y.applyUpdate(e.doc, Y.encodeStateAsUpdate(server, Y.encodeStateVector(e.doc)), 'remote')
    else if (q === 7) Y.applyUpdate(e.doc, Y.encodeStateAsUpdate(pick(editors).doc), 'remote')
    else {
      const out = e.out.splice(0)
      const k = int(7)
      if (k < 2) out.forEach(send)
      else if (k === 2 && out.length) send(Y.mergeUpdates(out))
      else if (k === 3) { out.sort(() => rnd() - 0.5).forEach(u => { if (rnd() < 0.8) send(u) }) }
      else if (k === 4) send(Y.encodeStateAsUpdate(e.doc))
      else if (k === 5 && out.length) { // merged with holes: yjs writes Skips
        const part = out.filter(() => rnd() < 0.6); if (part.length) send(Y.mergeUpdates(part.sort(() => rnd() - 0.5)))
      } else if (k === 6) { const u = Y.encodeStateAsUpdate(e.doc); send(Y.diffUpdate(u, Y.encodeStateVector(server))) }
    }
  }
  // server state with pending structs goes to a fresh client and comes back
  if (rnd() < 0.5) sent.push(hex(Y.encodeStateAsUpdate(server)))
  for (const e of editors) send(Y.encodeStateAsUpdate(e.doc, Y.encodeStateVector(server)))
  const fresh = new Y.Doc(); for (const u of sent) Y.applyUpdate(fresh, Buffer.from(u, 'hex'))
  const reader = new Y13.Doc(); for (const u of sent) Y13.applyUpdate(reader, Buffer.from(u, 'hex'))
  const text = reader.getText('t').toString()
  console.log([hex(Y.encodeStateVector(fresh)), hex(Y.encodeStateAsUpdate(fresh)), hex(Buffer.from(text)), sent.join(',')].join(' '))
}
process.exit(0)
