import * as Y from 'yjs';

/**
 * The names of what the rich-text editor may hold, with the attributes of each: the part of a ProseMirror schema that matters here.
 */
export interface Known {
  nodes: Record<string, { spec: { attrs?: Record<string, unknown> | null } }>;
  marks: Record<string, unknown>;
}

/**
 * Finds what this page's editor does not know, in a document that another program may have written.
 *
 * The binding between Yjs and ProseMirror deletes from the shared document whatever its own schema lacks, for everybody. So it must
 * never meet such content: the page asks here first, and again for everything that arrives.
 */
export function unknownParts(part: unknown, known: Known): string[] {
  const found = new Set<string>();
  const walk = (type: unknown): void => {
    if (type instanceof Y.XmlText) {
      for (const piece of type.toDelta() as { insert: unknown; attributes?: Record<string, unknown> }[]) {
        if (typeof piece.insert !== 'string') found.add('embed');
        for (const mark of Object.keys(piece.attributes ?? {})) {
          const name = mark.replace(/--.{8}$/, ''); // Overlapping marks carry a hash.
          if (!Object.hasOwn(known.marks, name)) found.add(name);
        }
      }
    } else if (type instanceof Y.XmlElement) {
      ofElement(type).forEach((name) => found.add(name));
      type.toArray().forEach(walk);
    } else if (type instanceof Y.XmlFragment) {
      for (const child of type.toArray()) {
        if (child instanceof Y.XmlText || typeof child === 'string') found.add('bare text');
        if (typeof child !== 'string') walk(child);
      }
    } else {
      found.add('hook');
    }
  };
  const ofElement = (element: Y.XmlElement): string[] => {
    const node = Object.hasOwn(known.nodes, element.nodeName) ? known.nodes[element.nodeName] : undefined;
    if (!node) return [element.nodeName];
    const attributes = node.spec.attrs ?? {};
    return Object.entries(element.getAttributes())
      .filter(([name, value]) => value !== null && value !== undefined && !Object.hasOwn(attributes, name))
      .map(([name]) => `${element.nodeName} with ${name}`);
  };
  walk(part);
  return [...found];
}

/** The same for one change: only what it touched is looked at, so that typing costs the length of a paragraph and not of the document. */
export function unknownInEvents(events: Y.YEvent<any>[], known: Known): string[] {
  return events.flatMap(({ target, changes, keys }) => {
    if (target instanceof Y.XmlText) return unknownParts(target, known);
    const added = [...changes.added].flatMap((item) => ('type' in item.content ? unknownParts(item.content.type, known) : ['bare text']));
    return keys.size > 0 && target instanceof Y.XmlElement ? [...added, ...unknownParts(target, known)] : added;
  });
}

/** The document's text, a line for each block: how content that cannot be edited here is shown. */
export function plainText(fragment: Y.XmlFragment): string {
  const lines: string[] = [];
  const walk = (type: unknown): void => {
    if (type instanceof Y.XmlText) lines.push(type.toDelta().map(({ insert }: { insert: unknown }) => (typeof insert === 'string' ? insert : '')).join(''));
    else if (type instanceof Y.XmlFragment) {
      // Bare characters, which no editor of XML writes, come one by one.
      const children = type.toArray() as unknown[];
      const bare = children.filter((child) => typeof child === 'string').join('');
      if (bare) lines.push(bare);
      children.forEach(walk);
    }
  };
  walk(fragment);
  return lines.join('\n');
}
