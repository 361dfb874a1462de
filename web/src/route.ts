import { Store } from './store';

/** The places of this page. None of them collides with a path of the server (`/v1`, `/yjs`, `/collab`, `/doc`, `/docs`, `/d`). */
export type Route = { at: 'documents' } | { at: 'document'; id: string } | { at: 'nowhere' };

export function parseRoute(path: string): Route {
  if (path === '/') return { at: 'documents' };
  const document = /^\/open\/([0-9a-f-]{36})$/i.exec(path);
  return document ? { at: 'document', id: document[1]!.toLowerCase() } : { at: 'nowhere' };
}

/** The address of a document: what is shared. It carries no secret; whoever opens it signs in. */
export function documentPath(id: string): string {
  return `/open/${id}`;
}

export const route = new Store<Route>(parseRoute(location.pathname));

export function go(path: string, how: 'push' | 'replace' = 'push'): void {
  if (path !== location.pathname) {
    if (how === 'push') history.pushState(null, '', path);
    else history.replaceState(null, '', path);
  }
  route.set(parseRoute(path));
}

window.addEventListener('popstate', () => route.set(parseRoute(location.pathname)));

/** Lets a plain link navigate without loading the page anew; clicks meant for a new tab stay the browser's. */
export function followLink(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.currentTarget as HTMLAnchorElement;
  event.preventDefault();
  go(link.pathname);
}
