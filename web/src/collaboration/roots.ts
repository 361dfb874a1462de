import * as Y from 'yjs';

/**
 * What is in a document that any program may have written, whatever it named its roots.
 *
 * A root that came by an update has no type until somebody asks for it by one, and asking by a wrong one spoils it for everything in
 * this page. So nothing here asks: the shape of a root is read off its items, as Yjs itself would hold them.
 */
export type Shape = 'text' | 'list' | 'map' | 'xml';

type Type = Y.AbstractType<any>;

/** The shape of a root or of any type in it; null while it holds nothing. */
export function shapeOf(type: Type | undefined): Shape | null {
  if (!type || !holdsAnything(type)) return null;
  if (type instanceof Y.Text) return 'text';
  if (type instanceof Y.Array) return 'list';
  if (type instanceof Y.Map) return 'map'; // Y.XmlHook too.
  if (type instanceof Y.XmlFragment) return 'xml';
  let guess: Shape = 'map'; // Only keys.
  for (const { content } of itemsOf(type)) {
    // Only a text holds these; the strings of an array are values like any other.
    if (content instanceof Y.ContentString || content instanceof Y.ContentFormat || content instanceof Y.ContentEmbed) return 'text';
    guess = content instanceof Y.ContentType && isXml(content.type) ? 'xml' : 'list';
    if (guess === 'list') return guess;
  }
  return guess;
}

function isXml(type: Type): boolean {
  return type instanceof Y.XmlFragment || type instanceof Y.XmlText || type instanceof Y.XmlHook;
}

function holdsAnything(type: Type): boolean {
  for (const _ of itemsOf(type)) return true;
  for (const item of type._map.values()) if (!item.deleted) return true;
  return false;
}

function* itemsOf(type: Type): Generator<Y.Item> {
  for (let item = type._start; item !== null; item = item.right) if (!item.deleted) yield item;
}

/** A part of the content, for showing it. Children are made when they are asked for. */
export type Part =
  | { is: 'text'; length: number; pieces: (limit: number) => Piece[]; attributes: Entry[] }
  | { is: 'group'; word: string; count: number; entries: (limit: number) => Entry[]; attributes: Entry[]; tag?: string }
  | { is: 'value'; value: unknown };

/** A run of characters, or what is embedded between two. */
export type Piece = string | Part;

export interface Entry {
  /** A key or a position; null where the order says enough. */
  label: string | null;
  part: Part;
}

/** The root by this name. */
export function partOfRoot(doc: Y.Doc, name: string): Part {
  return partOfType(doc.share.get(name)!);
}

function partOfType(type: Type): Part {
  switch (shapeOf(type)) {
    case 'text':
      return { is: 'text', length: type._length, pieces: (limit) => piecesOf(type, limit), attributes: keysOf(type) };
    case 'xml':
      return xml(type);
    case 'list':
      return { is: 'group', word: 'List', count: type._length, entries: (limit) => valuesOf(type, limit, true), attributes: keysOf(type) };
    case 'map': {
      const keys = keysOf(type);
      return { is: 'group', word: 'Map', count: keys.length, entries: (limit) => keys.slice(0, limit), attributes: [] };
    }
    case null:
      return emptyPart(type);
  }
}

function emptyPart(type: Type): Part {
  if (type instanceof Y.Text) return { is: 'text', length: 0, pieces: () => [], attributes: [] };
  if (type instanceof Y.XmlFragment) return xml(type);
  return { is: 'group', word: type instanceof Y.Map ? 'Map' : 'List', count: 0, entries: () => [], attributes: [] };
}

function xml(type: Type): Part {
  const tag = type instanceof Y.XmlElement ? { tag: type.nodeName } : {};
  return { is: 'group', word: 'XML', count: type._length, entries: (limit) => valuesOf(type, limit, false), attributes: keysOf(type), ...tag };
}

function partOfValue(value: unknown): Part {
  if (value instanceof Y.AbstractType) return partOfType(value);
  if (Array.isArray(value)) {
    return { is: 'group', word: 'List', count: value.length, entries: (limit) => value.slice(0, limit).map(numbered), attributes: [] };
  }
  if (value !== null && typeof value === 'object' && !(value instanceof Uint8Array) && !(value instanceof Y.Doc)) {
    const keys = Object.keys(value);
    const entry = (key: string) => ({ label: key, part: partOfValue((value as Record<string, unknown>)[key]) });
    return { is: 'group', word: 'Map', count: keys.length, entries: (limit) => keys.slice(0, limit).map(entry), attributes: [] };
  }
  return { is: 'value', value };
}

const numbered = (value: unknown, index: number): Entry => ({ label: String(index + 1), part: partOfValue(value) });

function keysOf(type: Type): Entry[] {
  const entries: Entry[] = [];
  for (const [label, item] of type._map) {
    if (!item.deleted) entries.push({ label, part: partOfValue(item.content.getContent()[item.length - 1]) });
  }
  return entries.sort((a, b) => a.label!.localeCompare(b.label!));
}

function valuesOf(type: Type, limit: number, isNumbered: boolean): Entry[] {
  const entries: Entry[] = [];
  for (const { content, countable } of itemsOf(type)) {
    if (!countable) continue;
    for (const value of content.getContent()) {
      if (entries.length === limit) return entries;
      entries.push({ label: isNumbered ? String(entries.length + 1) : null, part: partOfValue(value) });
    }
  }
  return entries;
}

function piecesOf(type: Type, limit: number): Piece[] {
  const pieces: Piece[] = [];
  let run: string[] = [];
  let left = limit;
  const endRun = () => {
    if (run.length > 0) pieces.push(run.join(''));
    run = [];
  };
  for (const { content } of itemsOf(type)) {
    if (left <= 0) break;
    if (content instanceof Y.ContentString) {
      run.push(content.str.slice(0, left));
      left -= content.str.length;
    } else if (content.isCountable()) {
      endRun();
      for (const value of content.getContent().slice(0, left)) pieces.push(partOfValue(value));
      left -= content.getLength();
    }
  }
  endRun();
  return pieces;
}

/** The names of all roots that hold something, in the order of the alphabet. */
export function usedRoots(doc: Y.Doc): string[] {
  return [...doc.share].filter(([, type]) => holdsAnything(type)).map(([name]) => name).sort((a, b) => a.localeCompare(b));
}

/** A key of a root that is a map; undefined where it is none. */
export function keyOf(root: Type | undefined, key: string): unknown {
  const item = root?._map.get(key);
  return item && !item.deleted ? item.content.getContent()[item.length - 1] : undefined;
}

/** The roots that a transaction changed something in, however deep. */
export function rootsTouchedBy(transaction: Y.Transaction): Set<Type> {
  const touched = new Set<Type>();
  for (const [changed] of transaction.changed) {
    let type = changed as Type;
    while (type._item) type = type._item.parent as Type;
    touched.add(type);
  }
  return touched;
}
