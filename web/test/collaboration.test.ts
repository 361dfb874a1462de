import { describe, expect, it } from 'vitest';
import * as Y from 'yjs';
import { unknownInEvents, unknownParts, type Known } from '../src/collaboration/foreign-content';
import { firstUpdate, kindOf, languageOf, CODE, TEXT } from '../src/collaboration/kind';
import { freeColour, initials, PALETTE, personOf } from '../src/collaboration/people';
import { ago } from '../src/time';

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
    const doc = (fill: (doc: Y.Doc) => void) => {
      const made = new Y.Doc();
      fill(made);
      const arrived = new Y.Doc(); // Roots that came by update have no type yet.
      Y.applyUpdate(arrived, Y.encodeStateAsUpdate(made));
      return arrived;
    };
    expect(kindOf(doc((d) => d.getText('monaco').insert(0, 'x')), 'Notes')).toEqual({ editor: 'code', root: 'monaco' });
    expect(kindOf(doc((d) => d.getXmlFragment('prosemirror').insert(0, [new Y.XmlElement('paragraph')])), 'a.ts')).toEqual({ editor: 'text', root: 'prosemirror' });
    expect(kindOf(new Y.Doc(), 'a.ts').editor).toBe('code');
    expect(kindOf(new Y.Doc(), 'Notes').editor).toBe('text');
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
