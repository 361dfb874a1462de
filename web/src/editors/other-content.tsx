import { useId, useState } from 'preact/hooks';
import * as Y from 'yjs';
import { partOfRoot, type Entry, type Part, type Piece } from '../collaboration/roots';

/** So much is shown at first; the rest when it is asked for. */
const ROOTS_SHOWN = 30;
const ENTRIES_SHOWN = 100;
const CHARACTERS_SHOWN = 50_000;
/** Larger groups, and those deeper inside, are closed at first. */
const OPEN_ENTRIES_MAX = 30;
const OPEN_DEPTH_MAX = 3;

/** Roots that no editor of this page knows, each under its name: as text or as a tree, to read and not to edit. */
export function OtherContent({ doc, names, isAll }: { doc: Y.Doc; names: string[]; isAll: boolean }) {
  const headId = useId();
  const [limit, setLimit] = useState(ROOTS_SHOWN);
  return (
    <section class="other-content" id="other-content" aria-labelledby={headId} tabIndex={-1}>
      <h2 id={headId} class={isAll ? 'for-screen-readers' : 'other-content-head'}>
        {isAll ? 'Content, read only' : 'From other programs'}
      </h2>
      {names.slice(0, limit).map((name) => (
        <Root key={name} doc={doc} name={name} />
      ))}
      <More shown={limit} of={names.length} word="parts" onMore={() => setLimit(limit * 10)} />
    </section>
  );
}

function Root({ doc, name }: { doc: Y.Doc; name: string }) {
  const headId = useId();
  const part = partOfRoot(doc, name);
  return (
    <article class="root" aria-labelledby={headId}>
      <header class="root-head">
        <h3 id={headId}>
          <bdi>{name || '(no name)'}</bdi>
        </h3>
        <small>{sizeOf(part)}</small>
      </header>
      <div class={part.is === 'text' ? 'root-body root-text' : 'root-body'}>
        {'attributes' in part && part.attributes.length > 0 && <Tree entries={part.attributes} depth={0} />}
        {part.is === 'text' && <Text part={part} />}
        {part.is === 'group' && <Entries part={part} depth={0} />}
      </div>
    </article>
  );
}

type TextPart = Extract<Part, { is: 'text' }>;
type GroupPart = Extract<Part, { is: 'group' }>;

function Text({ part }: { part: TextPart }) {
  const [limit, setLimit] = useState(CHARACTERS_SHOWN);
  return (
    <>
      {part.pieces(limit).map((piece, index) => (
        <TextPiece key={index} piece={piece} />
      ))}
      <More shown={limit} of={part.length} word="characters" onMore={() => setLimit(limit * 10)} />
    </>
  );
}

function TextPiece({ piece }: { piece: Piece }) {
  if (typeof piece === 'string') return <>{piece}</>;
  if (piece.is === 'value') return <Value value={piece.value} />;
  return (
    <div class="embedded">
      <Tree entries={[{ label: null, part: piece }]} depth={1} />
    </div>
  );
}

function Entries({ part, depth }: { part: GroupPart; depth: number }) {
  const [limit, setLimit] = useState(ENTRIES_SHOWN);
  return (
    <>
      <Tree entries={part.entries(limit)} depth={depth} />
      <More shown={limit} of={part.count} word="entries" onMore={() => setLimit(limit * 10)} />
    </>
  );
}

function Tree({ entries, depth }: { entries: Entry[]; depth: number }) {
  return (
    <ul class="tree">
      {entries.map((entry, index) => (
        <li key={entry.label ?? index}>
          <Branch entry={entry} depth={depth} />
        </li>
      ))}
    </ul>
  );
}

function Branch({ entry: { label, part }, depth }: { entry: Entry; depth: number }) {
  if (part.is === 'group') {
    const text = onlyText(part);
    return text ? <Line label={label} tag={part.tag} attributes={part.attributes} part={text} /> : <Group label={label} part={part} depth={depth} />;
  }
  return <Line label={label} attributes={part.is === 'text' ? part.attributes : []} part={part} />;
}

/** What fits beside its name: a value, or a text, as most elements of XML have no other child. */
function Line({ label, tag, attributes, part }: { label: string | null; tag?: string | undefined; attributes: Entry[]; part: Exclude<Part, GroupPart> }) {
  return (
    <div class="tree-line">
      <Name label={label} tag={tag} attributes={attributes} />
      <span class="tree-value">{part.is === 'value' ? <Value value={part.value} /> : part.length > 0 ? <Text part={part} /> : <span class="value-none">empty</span>}</span>
    </div>
  );
}

function Group({ label, part, depth }: { label: string | null; part: GroupPart; depth: number }) {
  const [open, setOpen] = useState(depth < OPEN_DEPTH_MAX && part.count <= OPEN_ENTRIES_MAX);
  const name = <Name label={label} tag={part.tag} attributes={part.tag ? part.attributes : []} />;
  if (part.count === 0) {
    return (
      <div class="tree-line">
        {name}
        {!part.tag && <span class="value-none">{`empty ${part.word === 'XML' ? part.word : part.word.toLowerCase()}`}</span>}
      </div>
    );
  }
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {name} {!part.tag && <small>{sizeOf(part)}</small>}
      </summary>
      {open && !part.tag && part.attributes.length > 0 && <Tree entries={part.attributes} depth={depth + 1} />}
      {open && <Entries part={part} depth={depth + 1} />}
    </details>
  );
}

function onlyText(part: GroupPart): TextPart | null {
  if (!part.tag || part.count !== 1) return null;
  const only = part.entries(1)[0]?.part;
  return only?.is === 'text' && only.attributes.length === 0 ? only : null;
}

function Name({ label, tag, attributes }: { label: string | null; tag?: string | undefined; attributes: Entry[] }) {
  return (
    <>
      {label !== null && <bdi class="tree-label">{label}</bdi>}
      {tag && <bdi class="tree-tag">{tag}</bdi>}
      {attributes.map(({ label, part }) => (
        <span key={label} class="tree-attribute">
          <bdi>{label}</bdi>={part.is === 'value' ? <Value value={part.value} /> : '…'}
        </span>
      ))}
    </>
  );
}

function Value({ value }: { value: unknown }) {
  if (typeof value === 'string') return value ? <bdi class="value-text">{value}</bdi> : <span class="value-none">empty</span>;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return <span class="value-plain">{String(value)}</span>;
  if (value instanceof Uint8Array) return <span class="value-none">{count(value.length, 'byte', 'bytes')}</span>;
  if (value instanceof Y.Doc) return <span class="value-none">another document, {value.guid}</span>;
  return <span class="value-none">none</span>;
}

function More({ shown, of, word, onMore }: { shown: number; of: number; word: string; onMore: () => void }) {
  if (of <= shown) return null;
  return (
    <p class="more">
      The first {shown.toLocaleString('en')} of {of.toLocaleString('en')} {word}.{' '}
      <button type="button" class="button" onClick={onMore}>
        Show more
      </button>
    </p>
  );
}

function sizeOf(part: Part): string {
  if (part.is === 'text') return `Text · ${count(part.length, 'character', 'characters')}`;
  if (part.is === 'group') return `${part.word} · ${count(part.count, 'entry', 'entries')}`;
  return '';
}

const count = (number: number, one: string, many: string) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
