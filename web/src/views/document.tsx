import type { ComponentType } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type * as Y from 'yjs';
import * as api from '../api';
import { kindOf, otherRoots, type DocumentKind } from '../collaboration/kind';
import { Room, type RoomState } from '../collaboration/room';
import { rootsTouchedBy } from '../collaboration/roots';
import { changes, type SaveState } from '../collaboration/save-state';
import { OtherContent } from '../editors/other-content';
import { Avatars } from '../parts/avatars';
import { Icon } from '../parts/icon';
import { Menu } from '../parts/menu';
import { ThemeButton, UserMenu } from '../parts/page-menu';
import { SaveStatus } from '../parts/save-status';
import { toast, toastError } from '../parts/toast';
import { profile } from '../profile';
import { followLink, go } from '../route';
import { session } from '../session';
import { useStore, type Store } from '../store';
import { ShareDialog } from './share';

type EditorComponent = ComponentType<{ room: Room; root: string; editable: boolean; title: string }>;

/** Each editor is a download of its own: whoever writes prose does not fetch the code editor. */
const EDITORS: Record<DocumentKind['editor'], () => Promise<{ default: EditorComponent }>> = {
  text: () => import('../editors/rich-text'),
  code: () => import('../editors/code'),
};

export function DocumentView({ id }: { id: string }) {
  const room = useRoom(id);
  return room && <OpenDocument id={id} room={room} />;
}

function useRoom(id: string): Room | null {
  const [room, setRoom] = useState<Room | null>(null);
  useEffect(() => {
    const present = () => ({ name: profile.value.name ?? session.value?.user.name ?? '', colour: profile.value.colour });
    const opened = new Room(id, present());
    setRoom(opened);
    const stopProfile = profile.subscribe(() => opened.present(present()));
    const stopSession = session.subscribe(() => {
      if (session.value) {
        opened.present(present());
        opened.retry();
      }
    });
    return () => {
      stopProfile();
      stopSession();
      opened.close();
    };
  }, [id]);
  return room;
}

function OpenDocument({ id, room }: { id: string; room: Room }) {
  const state = useStore<RoomState>(room.state as Store<RoomState>);
  const [about, setAbout] = useState<api.Document | null>(null);
  const [editor, setEditor] = useState<{ kind: DocumentKind; Editor: EditorComponent } | null>(null);
  const [sharing, setSharing] = useState(false);

  const load = () => api.document(id).then(setAbout, () => {});
  useEffect(() => {
    void load();
    const onFocus = () => void load(); // The title may have been changed elsewhere.
    window.addEventListener('focus', onFocus);
    return () => window.removeEventListener('focus', onFocus);
  }, [id]);
  useEffect(() => {
    document.title = about ? `${about.title} · ContextNexus` : 'ContextNexus';
  }, [about?.title]);

  const contents = useContents(room.doc, state.loaded, about?.title);
  const kind = contents?.kind;
  useEffect(() => {
    if (!kind) return;
    EDITORS[kind.editor]().then(
      ({ default: Editor }) => setEditor({ kind, Editor }),
      () => toast('The editor could not be loaded. Please load the page again.', { isError: true }),
    );
  }, [kind]);

  const retitle = async (title: string) => {
    const before = about!;
    setAbout({ ...before, title });
    try {
      setAbout(await api.retitleDocument(before, title));
    } catch (error) {
      setAbout(before);
      toastError(error);
      void load();
    }
  };

  const remove = async () => {
    try {
      await api.deleteDocument(id);
    } catch (error) {
      return toastError(error);
    }
    go('/');
    toast(`“${about?.title ?? 'The document'}” was deleted.`, {
      action: { label: 'Undo', run: () => api.restoreDocument(id).then(() => go(`/open/${id}`), toastError) },
    });
  };

  const isForeign = contents?.kind === null;
  const isShown = editor !== null || isForeign;
  // Where there is nothing to edit there is nothing to save either: "Saved" would promise something.
  const save: SaveState = isForeign && state.save.is === 'saved' ? { is: 'read-only', unsaved: 0, because: 'content' } : state.save;
  if (state.refusal && !isShown) return <Refused refusal={state.refusal} />;

  return (
    <div class="page document-page">
      <header class="top-bar">
        <a class="button quiet square" href="/" onClick={followLink} aria-label="All documents" title="All documents">
          <Icon name="back" />
        </a>
        <div class="title-and-status">
          {about ? <Title title={about.title} editable={state.mayWrite} onChange={(title) => void retitle(title)} /> : <span class="skeleton-line title-skeleton" />}
          {!state.refusal && <SaveStatus state={save} />}
        </div>
        <div class="top-bar-end">
          <Avatars people={state.people} />
          <button type="button" class="button share-button" onClick={() => setSharing(true)} aria-label="Share" title="Share">
            <Icon name="share" /> <span class="wide-only">Share</span>
          </button>
          {about?.role === 'admin' && state.mayWrite && (
            <Menu
              label="More"
              button={<Icon name="more" />}
              items={[{ icon: 'trash', label: 'Delete', danger: true, onChoose: () => void remove() }]}
            />
          )}
          <span class="wide-only">
            <ThemeButton />
          </span>
          <UserMenu />
        </div>
      </header>
      {state.refusal && <RefusedBanner state={state} mayRestore={about?.role === 'admin'} id={id} onBack={() => room.retry()} />}
      <main class="document-main">
        {isShown && contents && contents.others.length > 0 && <ForeignNotice names={contents.others} isAll={isForeign} />}
        {editor && <editor.Editor room={room} root={editor.kind.root} editable={state.mayWrite} title={about?.title ?? ''} />}
        {isShown && contents && contents.others.length > 0 && <OtherContent doc={room.doc} names={contents.others} isAll={isForeign} />}
        {!isShown && <Opening />}
      </main>
      {sharing && <ShareDialog id={id} title={about?.title ?? 'Document'} onClose={() => setSharing(false)} />}
    </div>
  );
}

interface Contents {
  /** What the document is edited with; null where no editor of this page knows its content. */
  kind: DocumentKind | null;
  /** The roots with content that this editor does not show. */
  others: string[];
}

/** Others may write fast: what they write outside the editor is drawn again at most this often. */
const REDRAW_MS = 100;

/** What is in the document, and what of it changes outside the editor. An editor that was chosen stays. */
function useContents(doc: Y.Doc, isLoaded: boolean, title: string | undefined): Contents | null {
  const [contents, setContents] = useState<Contents | null>(null);
  const isReady = isLoaded && title !== undefined;
  useEffect(() => {
    if (!isReady) return;
    let kind: DocumentKind | null = null;
    let timer: number | undefined;
    const look = () => {
      timer = undefined;
      kind ??= kindOf(doc, title);
      setContents({ kind, others: otherRoots(doc, kind) });
    };
    const onTransaction = (transaction: Y.Transaction) => {
      const touched = rootsTouchedBy(transaction);
      if (kind) touched.delete(doc.share.get(kind.root)!);
      if (touched.size > 0) timer ??= window.setTimeout(look, REDRAW_MS);
    };
    look();
    doc.on('afterTransaction', onTransaction);
    return () => {
      doc.off('afterTransaction', onTransaction);
      clearTimeout(timer);
    };
  }, [doc, isReady]);
  return contents;
}

const NAMES_SHOWN = 4;

/** Says what else is in the document before anyone takes it for empty. */
function ForeignNotice({ names, isAll }: { names: string[]; isAll: boolean }) {
  const show = () => {
    const section = document.getElementById('other-content')!;
    section.scrollIntoView({ behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
    section.focus({ preventScroll: true });
  };
  if (isAll) {
    return (
      <div class="notice banner calm">
        <Icon name="eye" />
        <span>Another program wrote this document. You see it here as it changes; this page cannot edit it.</span>
      </div>
    );
  }
  const rest = names.length - NAMES_SHOWN;
  return (
    <div class="notice banner calm">
      <Icon name="eye" />
      <span>
        Other programs keep something of their own in this document:{' '}
        {names.slice(0, NAMES_SHOWN).map((name, index) => (
          <span key={name}>
            {index > 0 && ', '}
            <bdi class="root-mention">{name || '(no name)'}</bdi>
          </span>
        ))}
        {rest > 0 && ` and ${rest} more`}.
      </span>
      <button type="button" class="button" onClick={show}>
        Show
      </button>
    </div>
  );
}

/** A blank page at first, words only when it takes long: most documents are there before anyone could read them. */
function Opening() {
  const [isLate, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 700);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class="opening" role="status">
      {isLate && (
        <>
          <span class="ring" aria-hidden="true" /> Opening the document…
        </>
      )}
    </div>
  );
}

function Title({ title, editable, onChange }: { title: string; editable: boolean; onChange: (title: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  // Somebody else's new title comes in, unless this one is being edited.
  useEffect(() => {
    if (input.current && document.activeElement !== input.current) input.current.value = title;
  }, [title]);
  if (!editable) return <h1 class="document-heading">{title}</h1>;
  return (
    <h1 class="document-heading" data-title={title}>
      <input
        ref={input}
        type="text"
        size={1} // As wide as the words: see the style sheet.
        aria-label="Title"
        defaultValue={title}
        maxLength={200}
        spellcheck={false}
        onKeyDown={(event) => {
          if (event.key === 'Escape') input.current!.value = title;
          if (event.key === 'Enter' || event.key === 'Escape') input.current!.blur();
        }}
        onBlur={() => {
          const next = input.current!.value.trim();
          if (next && next !== title) onChange(next);
          else input.current!.value = title;
        }}
      />
    </h1>
  );
}

const REFUSALS = {
  deleted: ['This document was deleted', 'An administrator of its project can restore it.'],
  'not-found': ['This document is not here', 'Its link is wrong, or it is in a project that you are not a member of. Ask whoever sent you the link.'],
  forbidden: ['You may not open this document', 'Your account has no role in its project. Ask one of the project’s administrators to add you.'],
  'signed-out': ['You are signed out', 'Sign in again to go on.'],
} as const;

function Refused({ refusal }: { refusal: keyof typeof REFUSALS }) {
  const [title, text] = REFUSALS[refusal];
  return (
    <main class="centred">
      <div class="message" role="alert">
        <span class="message-icon">
          <Icon name="warning" size={28} />
        </span>
        <h1>{title}</h1>
        <p>{text}</p>
        <a class="button primary" href="/" onClick={followLink}>
          To the documents
        </a>
      </div>
    </main>
  );
}

/** The document was open when it was taken away: its text stays readable, and nobody is told that it was saved. */
function RefusedBanner({ state, id, mayRestore, onBack }: { state: RoomState; id: string; mayRestore: boolean; onBack: () => void }) {
  const unsaved = 'unsaved' in state.save ? state.save.unsaved : 0;
  const loss =
    unsaved === 0
      ? ''
      : state.refusal === 'signed-out'
        ? ` ${changes(unsaved)} of yours will be saved when you sign in again.`
        : ` ${changes(unsaved)} of yours could not be saved: copy what you need.`;
  const text = {
    deleted: 'This document was deleted.',
    'not-found': 'You were removed from this document’s project.',
    forbidden: 'You are no longer allowed to open this document.',
    'signed-out': 'Your session has ended.',
  }[state.refusal!];
  const restore = () => api.restoreDocument(id).then(onBack, toastError);
  return (
    <div class="notice banner" role="alert">
      <Icon name="warning" />
      <span>
        {text}
        {loss}
      </span>
      {state.refusal === 'deleted' && mayRestore && (
        <button type="button" class="button" onClick={() => void restore()}>
          Restore
        </button>
      )}
    </div>
  );
}
