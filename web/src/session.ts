import { Store } from './store';
import type { User } from './api';

/** Somebody who is signed in, in this browser. */
export interface Session {
  tenant: string;
  token: string;
  expiresAt: string;
  user: User;
}

const KEY = 'contextnexus.session';

/** The tenant and e-mail of the last sign-in, to fill in the form next time. No secret. */
const LAST_KEY = 'contextnexus.last';

function read(): Session | null {
  for (const storage of [sessionStorage, localStorage]) {
    const text = storage.getItem(KEY);
    if (!text) continue;
    try {
      const session = JSON.parse(text) as Session;
      if (typeof session.token === 'string' && session.user && Date.parse(session.expiresAt) > Date.now()) return session;
    } catch {
      // Not ours, or of another version: as if it were not there.
    }
    storage.removeItem(KEY);
  }
  return null;
}

export const session = new Store<Session | null>(read());

/** Why the last session ended, when it was not the user's wish. */
export const endedBecause = new Store<string | null>(null);

/** `stay` keeps the token in this browser until it expires or is signed out; otherwise it dies with the tab. */
export function begin(next: Session, stay: boolean): void {
  forget();
  (stay ? localStorage : sessionStorage).setItem(KEY, JSON.stringify(next));
  localStorage.setItem(LAST_KEY, JSON.stringify({ tenant: next.tenant, email: next.user.email ?? '' }));
  endedBecause.set(null);
  session.set(next);
}

export function end(why: string | null): void {
  forget();
  endedBecause.set(why);
  session.set(null);
}

function forget(): void {
  localStorage.removeItem(KEY);
  sessionStorage.removeItem(KEY);
}

export function lastSignIn(): { tenant: string; email: string } {
  try {
    const last = JSON.parse(localStorage.getItem(LAST_KEY) ?? '{}');
    return { tenant: String(last.tenant ?? ''), email: String(last.email ?? '') };
  } catch {
    return { tenant: '', email: '' };
  }
}

// Signing in or out in one tab does so in all tabs that share the storage.
window.addEventListener('storage', (event) => {
  if (event.key === KEY) session.set(read());
});
