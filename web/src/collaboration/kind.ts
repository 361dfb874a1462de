import * as Y from 'yjs';

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

/** Call when the document has arrived: before that every document looks new. */
export function kindOf(doc: Y.Doc, title: string): DocumentKind {
  const used = (roots: string[]) => roots.find((root) => isUsed(doc.share.get(root)));
  const text = used(TEXT_ROOTS);
  const code = used(CODE_ROOTS);
  const told = doc.getMap(META).get('kind');
  if (told === 'code') return { editor: 'code', root: code ?? CODE.root };
  if (told === 'text') return { editor: 'text', root: text ?? TEXT.root };
  if (text) return { editor: 'text', root: text };
  if (code) return { editor: 'code', root: code };
  return looksLikeCode(title) ? CODE : TEXT;
}

function isUsed(root: Y.AbstractType<any> | undefined): boolean {
  return root !== undefined && (root._start !== null || root._map.size > 0);
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
