import { describe, expect, it } from 'vitest';
import * as Y from 'yjs';
import { unknownInEvents, unknownParts, type Known } from '../src/collaboration/foreign-content';
import { firstUpdate, kindOf, languageOf, otherRoots, CODE, TEXT } from '../src/collaboration/kind';
import { freeColour, initials, PALETTE, personOf } from '../src/collaboration/people';
import { partOfRoot, rootsTouchedBy, shapeOf, type Entry, type Part } from '../src/collaboration/roots';
import { ago } from '../src/time';

/** A document as it arrives: made elsewhere, so that none of its roots has a type here. */
function arrived(fill: (doc: Y.Doc) => void): Y.Doc {
  const made = new Y.Doc();
  fill(made);
  const doc = new Y.Doc();
  Y.applyUpdate(doc, Y.encodeStateAsUpdate(made));
  return doc;
}

describe('the roots of a document', () => {
  const everything = () =>
    arrived((doc) => {
      doc.getText('text').insert(0, 'plain');
      doc.getText('formatted').insert(0, 'bold', { bold: true });
      doc.getText('picture').insertEmbed(0, { image: 'a.png' });
      doc.getMap('map').set('done', false);
      doc.getArray('list').push(['a', 1, null]);
      doc.getArray('texts').push([new Y.Text('in a list')]);
      doc.getXmlFragment('xml').insert(0, [new Y.XmlElement('paragraph')]);
      doc.getText('emptied').insert(0, 'x');
      doc.getText('emptied').delete(0, 1);
      doc.getMap('cleared').set('x', 1);
      doc.getMap('cleared').delete('x');
    });

  it('are guessed from what is in them, and asked for by no type', () => {
    const doc = everything();
    const shapes = Object.fromEntries([...doc.share].map(([name, root]) => [name, shapeOf(root)]));
    expect(shapes).toEqual({ text: 'text', formatted: 'text', picture: 'text', map: 'map', list: 'list', texts: 'list', xml: 'xml', emptied: null, cleared: null });
    kindOf(doc, 'Notes');
    otherRoots(doc, null).forEach((name) => partOfRoot(doc, name));
    expect([...doc.share.values()].every((root) => root.constructor === Y.AbstractType)).toBe(true);
    expect(otherRoots(doc, null)).toEqual(['formatted', 'list', 'map', 'picture', 'text', 'texts', 'xml']);
  });

  it('that no editor knows leave the document without one', () => {
    expect(kindOf(arrived((doc) => doc.getText('content').insert(0, 'x')), 'Notes')).toBe(null);
    const both = arrived((doc) => {
      doc.getText('content').insert(0, 'x');
      doc.getText('codemirror').insert(0, 'y');
    });
    expect(otherRoots(both, kindOf(both, 'Notes'))).toEqual(['content']);
  });

  it('are no editor’s when their shape is another', () => {
    expect(kindOf(arrived((doc) => doc.getText('default').insert(0, 'x')), 'Notes')).toBe(null);
    const told = arrived((doc) => {
      doc.getMap('meta').set('kind', 'code');
      doc.getArray('codemirror').push([1]);
    });
    expect(kindOf(told, 'Notes')).toEqual({ editor: 'code', root: 'monaco' });
    expect(otherRoots(told, kindOf(told, 'Notes'))).toEqual(['codemirror']);
  });

  it('named “meta” are shown when another program uses them', () => {
    expect(otherRoots(arrived((doc) => doc.getMap('meta').set('kind', 'text')), null)).toEqual([]);
    expect(otherRoots(arrived((doc) => doc.getMap('meta').set('author', 'Ada')), null)).toEqual(['meta']);
    expect(otherRoots(arrived((doc) => doc.getText('meta').insert(0, 'text')), null)).toEqual(['meta']);
  });

  it('are read to the last leaf', () => {
    const read = (part: Part): unknown => {
      if (part.is === 'value') return part.value;
      if (part.is === 'text') return part.pieces(100).map((piece) => (typeof piece === 'string' ? piece : read(piece))).join('');
      const of = (entries: Entry[]) => entries.map(({ label, part }) => [label, read(part)]);
      return { [part.tag ?? part.word]: of([...part.attributes, ...part.entries(100)]) };
    };
    const doc = arrived((doc) => {
      const inner = new Y.Map<unknown>();
      doc.getMap('map').set('inner', inner);
      inner.set('json', { deep: [true] });
      inner.set('replaced', 1);
      inner.set('replaced', 2);
      doc.getArray('list').push([new Y.Text('ab'), 'c']);
      const heading = new Y.XmlElement('heading');
      heading.setAttribute('level', '2');
      heading.insert(0, [new Y.XmlText('Title')]);
      doc.getXmlFragment('xml').insert(0, [heading]);
      doc.getText('text').insert(0, 'visible gone');
      doc.getText('text').delete(7, 5);
    });
    expect(read(partOfRoot(doc, 'map'))).toEqual({ Map: [['inner', { Map: [['json', { Map: [['deep', { List: [['1', true]] }]] }], ['replaced', 2]] }]] });
    expect(read(partOfRoot(doc, 'list'))).toEqual({ List: [['1', 'ab'], ['2', 'c']] });
    expect(read(partOfRoot(doc, 'xml'))).toEqual({ XML: [[null, { heading: [['level', '2'], [null, 'Title']] }]] });
    expect(read(partOfRoot(doc, 'text'))).toBe('visible');
  });

  it('are known to be touched, however deep the change', () => {
    const doc = arrived((doc) => doc.getMap('map').set('inner', new Y.Map()));
    const touched: string[][] = [];
    doc.on('afterTransaction', (transaction) => {
      const roots = rootsTouchedBy(transaction);
      touched.push([...doc.share].filter(([, root]) => roots.has(root)).map(([name]) => name));
    });
    const other = new Y.Doc();
    Y.applyUpdate(other, Y.encodeStateAsUpdate(doc));
    (other.getMap('map').get('inner') as Y.Map<number>).set('x', 1);
    other.getText('new').insert(0, 'x');
    Y.applyUpdate(doc, Y.encodeStateAsUpdate(other));
    expect(touched).toEqual([['map', 'new']]);
  });
});

describe('the kind of a document', () => {
  it('is what its maker wrote into it, whatever the title says later', () => {
    for (const kind of [TEXT, CODE]) {
      const doc = new Y.Doc();
      Y.applyUpdate(doc, firstUpdate(kind));
      expect(kindOf(doc, 'main.rs')).toEqual(kind);
      expect(kindOf(doc, 'Minutes')).toEqual(kind);
    }
  });

  it('is read off the roots of documents that others made', () => {
    expect(kindOf(arrived((d) => d.getText('monaco').insert(0, 'x')), 'Notes')).toEqual({ editor: 'code', root: 'monaco' });
    expect(kindOf(arrived((d) => d.getXmlFragment('prosemirror').insert(0, [new Y.XmlElement('paragraph')])), 'a.ts')).toEqual({ editor: 'text', root: 'prosemirror' });
    expect(kindOf(new Y.Doc(), 'a.ts')?.editor).toBe('code');
    expect(kindOf(new Y.Doc(), 'Notes')?.editor).toBe('text');
  });

  it('has a language by the ending', () => {
    expect([languageOf('a/b.TSX'), languageOf('x.rs'), languageOf('Makefile'), languageOf('x.constructor')]).toEqual(['typescript', 'rust', 'plain', 'plain']);
  });
});

describe('content of other editors', () => {
  const known: Known = { nodes: { paragraph: { spec: {} }, heading: { spec: { attrs: { level: {} } } } }, marks: { bold: {} } };
  const paragraph = (text: string, marks = {}) => {
    const element = new Y.XmlElement('paragraph');
    const inner = new Y.XmlText();
    inner.insert(0, text, marks);
    element.insert(0, [inner]);
    return element;
  };

  it('is found before the editor meets it: nodes, attributes, marks', () => {
    const fragment = new Y.Doc().getXmlFragment('default');
    const heading = new Y.XmlElement('heading');
    heading.setAttribute('level', '1');
    fragment.insert(0, [heading, paragraph('fine', { bold: true })]);
    expect(unknownParts(fragment, known)).toEqual([]);
    heading.setAttribute('align', 'left');
    fragment.insert(2, [new Y.XmlElement('table'), paragraph('x', { 'comment--a1b2c3d4': {} })]);
    expect(unknownParts(fragment, known)).toEqual(['heading with align', 'table', 'comment']);
  });

  it('is found as it arrives', () => {
    const fragment = new Y.Doc().getXmlFragment('default');
    const found: string[] = [];
    fragment.observeDeep((events) => found.push(...unknownInEvents(events, known)));
    fragment.insert(0, [paragraph('fine')]);
    expect(found).toEqual([]);
    (fragment.get(0) as Y.XmlElement).insert(1, [new Y.XmlElement('image')]);
    ((fragment.get(0) as Y.XmlElement).get(0) as Y.XmlText).format(0, 2, { colour: 'red' });
    (fragment.get(0) as Y.XmlElement).setAttribute('indent', '2');
    expect(new Set(found)).toEqual(new Set(['image', 'colour', 'paragraph with indent']));
  });
});

describe('other people', () => {
  it('cannot put anything but a colour and a short name into the page', () => {
    const evil = personOf(7, { user: { name: 'x'.repeat(500), color: 'red;position:fixed' } }, 1);
    expect(PALETTE).toContain(evil.colour);
    expect(evil.name.length).toBeLessThanOrEqual(40);
    for (const state of [null, {}, { user: 5 }, { user: { name: { toString: 1 } } }]) expect(personOf(7, state, 1).name).toBe('Anonymous');
  });

  it('get different colours while there are any', () => {
    expect(freeColour(PALETTE[0]!, [PALETTE[0]!, PALETTE[1]!])).toBe(PALETTE[2]);
    expect(freeColour(PALETTE[0]!, [...PALETTE])).toBe(PALETTE[0]);
  });

  it('have initials', () => {
    expect(['Ada Lovelace', 'bob', '😀 x', ''].map(initials)).toEqual(['AL', 'B', '😀X', '?']);
  });
});

describe('a time', () => {
  it('is told as people tell it', () => {
    const now = Date.parse('2026-11-24T12:00:00Z');
    const told = (instant: string) => ago(instant, now);
    expect(told('2026-11-24T11:59:30Z')).toBe('just now');
    expect(told('2026-11-24T12:00:30Z')).toBe('just now'); // A server's clock ahead of ours.
    expect(told('2026-11-24T11:15:00Z')).toBe('45 minutes ago');
    expect(told('2026-11-23T11:00:00Z')).toBe('yesterday');
    expect(told('2026-01-02T12:00:00Z')).toBe('Jan 2, 2026');
  });
});
