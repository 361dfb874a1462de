import { useEffect, useMemo, useState } from 'preact/hooks';
import * as api from '../api';
import { CODE, TEXT, firstUpdate, looksLikeCode, type DocumentKind } from '../collaboration/kind';
import { Prompt } from '../parts/dialog';
import { Icon, Mark } from '../parts/icon';
import { Menu } from '../parts/menu';
import { ThemeButton, UserMenu } from '../parts/page-menu';
import { toast, toastError } from '../parts/toast';
import { documentPath, followLink, go } from '../route';
import { ago } from '../time';
import { ShareDialog } from './share';

interface Loaded {
  projects: api.Project[];
  documents: api.Document[];
}

export function Documents() {
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [query, setQuery] = useState('');
  const [renaming, setRenaming] = useState<api.Document | null>(null);
  const [sharing, setSharing] = useState<api.Document | null>(null);
  const [naming, setNaming] = useState(false);

  const load = async () => {
    try {
      const [projects, documents] = await Promise.all([api.projects(), api.documents('living')]);
      setLoaded({ projects, documents });
      setTrouble(null);
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    }
  };

  useEffect(() => {
    document.title = 'Documents · ContextNexus';
    void load();
    // Others create and rename too: look again when the user comes back to this tab.
    const onFocus = () => void load();
    window.addEventListener('focus', onFocus);
    return () => window.removeEventListener('focus', onFocus);
  }, []);

  const found = useMemo(() => {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    return (loaded?.documents ?? []).filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)));
  }, [loaded, query]);

  const home = loaded?.projects.find((project) => project.is_default && mayWriteIn(project)) ?? loaded?.projects.find(mayWriteIn);
  const projectOf = (document: api.Document) => loaded!.projects.find((project) => project.id === document.project_id);

  const create = async (title: string, kind: DocumentKind) => {
    try {
      const created = await api.createDocument(home!.id, title);
      await api.writeUpdate(created.id, firstUpdate(kind));
      go(documentPath(created.id));
    } catch (error) {
      toastError(error);
    }
  };

  /** In its old place, or at its place by age when it comes back. */
  const put = (changed: api.Document) =>
    setLoaded((now) => {
      if (!now) return now;
      const others = now.documents.filter(({ id }) => id !== changed.id);
      const at = now.documents.findIndex(({ id }) => id === changed.id);
      const place = at >= 0 ? at : others.filter(({ created_at }) => created_at > changed.created_at).length;
      return { ...now, documents: others.toSpliced(place, 0, changed) };
    });

  const retitle = async (document: api.Document, title: string) => {
    setRenaming(null);
    try {
      put(await api.retitleDocument(document, title));
    } catch (error) {
      if (error instanceof api.Refused && error.status === 412) {
        toast('Somebody else changed this document’s title just now.', { isError: true });
        void load();
      } else toastError(error);
    }
  };

  const remove = async (document: api.Document) => {
    try {
      await api.deleteDocument(document.id);
    } catch (error) {
      return toastError(error);
    }
    setLoaded((now) => now && { ...now, documents: now.documents.filter(({ id }) => id !== document.id) });
    toast(`“${document.title}” was deleted.`, {
      action: { label: 'Undo', run: () => void restore(document) },
    });
  };

  const restore = (document: api.Document) => api.restoreDocument(document.id).then(put, toastError);

  const createMenu = (
    <Menu
      class="button primary"
      button={
        <>
          <Icon name="plus" /> New
        </>
      }
      items={[
        { icon: 'text', label: 'Document', hint: 'Formatted text', onChoose: () => void create('Untitled', TEXT) },
        { icon: 'code', label: 'Code file', hint: 'With syntax colours', onChoose: () => setNaming(true) },
      ]}
    />
  );

  return (
    <div class="page">
      <header class="top-bar">
        <a class="brand" href="/" onClick={followLink}>
          <Mark size={28} />
          <span>ContextNexus</span>
        </a>
        <div class="top-bar-end">
          <ThemeButton />
          <UserMenu />
        </div>
      </header>
      <main class="documents">
        <div class="documents-head">
          <h1>Documents</h1>
          {home && createMenu}
        </div>
        <label class="search">
          <Icon name="search" />
          <span class="for-screen-readers">Search by title</span>
          <input type="search" placeholder="Search by title" value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
        </label>

        {trouble && (
          <div class="notice" role="alert">
            <Icon name="warning" />
            <span>{trouble}</span>
            <button type="button" class="button" onClick={() => void load()}>
              Try again
            </button>
          </div>
        )}
        {!loaded && !trouble && <Skeleton />}
        {loaded && found.length > 0 && (
          <ul class="document-list">
            {found.map((document) => {
              const project = projectOf(document);
              return (
                <li key={document.id} class="document-row">
                  <a class="document-link" href={documentPath(document.id)} onClick={followLink}>
                    <span class="document-icon">
                      <Icon name={looksLikeCode(document.title) ? 'code' : 'text'} />
                    </span>
                    <span class="document-words">
                      <span class="document-title">{document.title}</span>
                      <small>
                        {loaded.projects.length > 1 && project ? `${project.name} · ` : ''}
                        Created {ago(document.created_at)}
                      </small>
                    </span>
                  </a>
                  <Menu
                    label={`Actions for ${document.title}`}
                    button={<Icon name="more" />}
                    items={[
                      { icon: 'share', label: 'Share', onChoose: () => setSharing(document) },
                      ...(document.role === 'viewer' ? [] : [{ icon: 'pencil' as const, label: 'Rename', onChoose: () => setRenaming(document) }]),
                      ...(document.role === 'admin'
                        ? [{ icon: 'trash' as const, label: 'Delete', danger: true, onChoose: () => void remove(document) }]
                        : []),
                    ]}
                  />
                </li>
              );
            })}
          </ul>
        )}
        {loaded && found.length === 0 && query && (
          <div class="empty">
            <p>
              No document’s title contains “{query}”.
            </p>
            <button type="button" class="button" onClick={() => setQuery('')}>
              Show all
            </button>
          </div>
        )}
        {loaded && loaded.documents.length === 0 && !query && (
          <div class="empty">
            <EmptyPicture />
            <h2>Nothing written yet</h2>
            {home ? (
              <>
                <p>Create the first document, open it in a second browser, and watch both cursors.</p>
                {createMenu}
              </>
            ) : (
              <p>Documents appear here when somebody shares a project with you.</p>
            )}
          </div>
        )}
        {loaded && <Deleted onRestored={put} />}
      </main>
      {renaming && (
        <Prompt
          title="Rename"
          label="Title"
          value={renaming.title}
          action="Rename"
          onDone={(title) => void retitle(renaming, title)}
          onClose={() => setRenaming(null)}
        />
      )}
      {naming && (
        <Prompt
          title="New code file"
          label="Title; its ending chooses the colours (.ts, .py, .rs, .md, .sql …)"
          value="untitled.ts"
          action="Create"
          onDone={(title) => {
            setNaming(false);
            void create(title, CODE);
          }}
          onClose={() => setNaming(false)}
        />
      )}
      {sharing && <ShareDialog id={sharing.id} title={sharing.title} onClose={() => setSharing(null)} />}
    </div>
  );
}

function mayWriteIn(project: api.Project): boolean {
  return project.role !== 'viewer' && !project.is_archived;
}

/** Nothing is lost by deleting: what may be restored stands at the end of the list, when it is asked for. */
function Deleted({ onRestored }: { onRestored: (document: api.Document) => void }) {
  const [deleted, setDeleted] = useState<api.Document[] | null>(null);
  const show = () => api.documents('deleted').then(setDeleted, toastError);
  const restore = async (document: api.Document) => {
    try {
      onRestored(await api.restoreDocument(document.id));
      setDeleted((now) => now && now.filter(({ id }) => id !== document.id));
    } catch (error) {
      toastError(error);
    }
  };
  return (
    <details class="deleted" onToggle={(event) => (event.currentTarget.open ? void show() : setDeleted(null))}>
      <summary>Deleted documents</summary>
      {deleted?.length === 0 && <p class="quiet-words">None that you may restore.</p>}
      {deleted && deleted.length > 0 && (
        <ul class="document-list">
          {deleted.map((document) => (
            <li key={document.id} class="document-row deleted-row">
              <span class="document-words">
                <span class="document-title">{document.title}</span>
                <small>Deleted {ago(document.deleted_at ?? document.created_at)}</small>
              </span>
              <button type="button" class="button" aria-label={`Restore ${document.title}`} onClick={() => void restore(document)}>
                Restore
              </button>
            </li>
          ))}
        </ul>
      )}
    </details>
  );
}

function Skeleton() {
  return (
    <ul class="document-list" aria-hidden="true">
      {[62, 44, 53, 38].map((width) => (
        <li key={width} class="document-row skeleton">
          <span class="document-icon" />
          <span class="skeleton-line" style={{ width: `${width}%` }} />
        </li>
      ))}
    </ul>
  );
}

function EmptyPicture() {
  return (
    <svg class="empty-picture" width="176" height="120" viewBox="0 0 176 120" aria-hidden="true" focusable="false">
      <rect x="20" y="12" width="104" height="100" rx="10" fill="var(--surface)" stroke="var(--line-strong)" stroke-width="1.5" />
      <path d="M38 36h52M38 54h68M38 72h38M38 90h58" stroke="var(--line-strong)" stroke-width="5" stroke-linecap="round" />
      <path d="M94 28v16" stroke="#4f46e5" stroke-width="2.5" stroke-linecap="round" />
      <rect x="94" y="14" width="34" height="14" rx="4" fill="#4f46e5" />
      <path d="M80 64v16" stroke="#0b7f61" stroke-width="2.5" stroke-linecap="round" />
      <rect x="80" y="78" width="42" height="14" rx="4" fill="#0b7f61" />
      <path d="M101 21h20M87 85h28" stroke="#fff" stroke-width="3" stroke-linecap="round" opacity=".85" />
    </svg>
  );
}
