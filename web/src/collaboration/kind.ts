import * as Y from 'yjs';
import { keyOf, shapeOf, usedRoots, type Shape } from './roots';

/** What a document is edited with, and the root type its content lies in. */
export interface DocumentKind {
  editor: 'text' | 'code';
  root: string;
}

/**
 * The kind is written into the document itself, in the map `meta`: it travels with the content and survives a rename.
 * Documents that other programs made have no such map; theirs is read off the roots that the well-known bindings use, then off the name.
 */
const META = 'meta';
const TEXT_ROOTS = ['default', 'prosemirror', 'document-store'];
const CODE_ROOTS = ['codemirror', 'monaco', 'code'];

export const TEXT: DocumentKind = { editor: 'text', root: 'default' };
export const CODE: DocumentKind = { editor: 'code', root: 'codemirror' };

/** The first update of a new document of this kind. */
export function firstUpdate(kind: DocumentKind): Uint8Array {
  const doc = new Y.Doc();
  doc.getMap(META).set('kind', kind.editor);
  const update = Y.encodeStateAsUpdate(doc);
  doc.destroy();
  return update;
}

/**
 * Call when the document has arrived: before that every document looks new. Null when there is content, and all of it in roots that no
 * editor of this page knows.
 */
export function kindOf(doc: Y.Doc, title: string): DocumentKind | null {
  const text = rootFor(doc, TEXT_ROOTS, 'xml');
  const code = rootFor(doc, CODE_ROOTS, 'text');
  const told = keyOf(doc.share.get(META), 'kind');
  if (told === 'code' || told === 'text') return told === 'code' ? kind('code', code.used ?? code.free) : kind('text', text.used ?? text.free);
  if (text.used) return kind('text', text.used);
  if (code.used) return kind('code', code.used);
  if (otherRoots(doc, null).length > 0) return null;
  return looksLikeCode(title) ? kind('code', code.free) : kind('text', text.free);
}

/** The root that an editor finds its content in, or else may begin in. One that holds something of another shape is neither. */
function rootFor(doc: Y.Doc, names: string[], shape: Shape): { used?: string; free?: string } {
  const shapes = names.map((name) => ({ name, is: shapeOf(doc.share.get(name)) }));
  const used = shapes.find(({ is }) => is === shape)?.name;
  const free = shapes.find(({ is }) => is === null)?.name;
  return { ...(used !== undefined && { used }), ...(free !== undefined && { free }) };
}

function kind(editor: DocumentKind['editor'], root: string | undefined): DocumentKind | null {
  return root === undefined ? null : { editor, root };
}

/** The roots with content that the editor of this kind does not show. The page's own note of the kind is no content. */
export function otherRoots(doc: Y.Doc, shown: DocumentKind | null): string[] {
  const isOwnNote = (name: string) => {
    const keys = [...doc.share.get(name)!._map].filter(([, item]) => !item.deleted).map(([key]) => key);
    return name === META && shapeOf(doc.share.get(name)) === 'map' && keys.every((key) => key === 'kind');
  };
  return usedRoots(doc).filter((name) => name !== shown?.root && !isOwnNote(name));
}

/** File endings that are written in the code editor, with the language of each. */
const LANGUAGE_OF_ENDING: Record<string, Language> = {
  js: 'javascript', mjs: 'javascript', cjs: 'javascript', jsx: 'javascript',
  ts: 'typescript', mts: 'typescript', tsx: 'typescript',
  py: 'python', rs: 'rust', md: 'markdown', html: 'html', htm: 'html', css: 'css', json: 'json', sql: 'sql',
  txt: 'plain', toml: 'plain', yaml: 'plain', yml: 'plain', sh: 'plain', c: 'plain', h: 'plain', go: 'plain', java: 'plain', cypher: 'plain',
};

export type Language = 'javascript' | 'typescript' | 'python' | 'rust' | 'markdown' | 'html' | 'css' | 'json' | 'sql' | 'plain';

export function languageOf(title: string): Language {
  const known = ending(title);
  return Object.hasOwn(LANGUAGE_OF_ENDING, known) ? LANGUAGE_OF_ENDING[known]! : 'plain';
}

export function looksLikeCode(title: string): boolean {
  return Object.hasOwn(LANGUAGE_OF_ENDING, ending(title));
}

function ending(title: string): string {
  return /\.([a-z]+)$/i.exec(title.trim())?.[1]?.toLowerCase() ?? '';
}
