/**
 * What the page may say about the user's changes. Nothing here knows a socket: facts come in, one sentence goes out.
 *
 * "Saved" is said only when the server has confirmed every change made here, which ContextNexus does after the commit in
 * PostgreSQL and not when it received them.
 */

export interface ConnectionFacts {
  /** The WebSocket is open. */
  socketOpen: boolean;
  /** What the browser says of its network. It may be wrong, and then only in saying that there is one. */
  browserOnline: boolean;
  /** The server's state of the document has arrived on this connection. */
  synced: boolean;
  /** It has arrived at least once since the page was opened. */
  everSynced: boolean;
  /** What the server lets this user do; null until it said so. */
  access: 'read-write' | 'readonly' | null;
  /** Changes made here whose commit the server has not confirmed. */
  unsaved: number;
  /** There have been unsaved changes on an open connection for longer than `SLOW_AFTER_MS`. */
  slow: boolean;
}

export type SaveState =
  | { is: 'opening' }
  | { is: 'connecting'; unsaved: number }
  | { is: 'offline'; unsaved: number }
  | { is: 'saving'; unsaved: number; slow: boolean }
  | { is: 'saved' }
  /** `because` names what stands in the way: the user's role, or content that no editor of this page knows. */
  | { is: 'read-only'; unsaved: number; because: 'role' | 'content' };

/** A commit takes milliseconds: after this long something is wrong, and the page says so. */
export const SLOW_AFTER_MS = 5_000;

export function saveState(facts: ConnectionFacts): SaveState {
  const { unsaved } = facts;
  if (!facts.browserOnline) return { is: 'offline', unsaved };
  if (!facts.socketOpen) return facts.everSynced ? { is: 'offline', unsaved } : { is: 'opening' };
  if (!facts.synced) return facts.everSynced ? { is: 'connecting', unsaved } : { is: 'opening' };
  if (facts.access === 'readonly') return { is: 'read-only', unsaved, because: 'role' };
  if (unsaved > 0) return { is: 'saving', unsaved, slow: facts.slow };
  return { is: 'saved' };
}

export function changes(count: number): string {
  return count === 1 ? '1 change' : `${count} changes`;
}

/** The user should know of it now: something is not saved, and will not be shortly. */
export function isWorry(state: SaveState): boolean {
  return state.is === 'offline' || (state.is === 'saving' && state.slow) || (state.is === 'read-only' && state.unsaved > 0);
}

/** Two states with the same turn differ in a number only, or are the ordinary course of saving. */
export function turnOf(state: SaveState): string {
  if (state.is === 'saved' || (state.is === 'saving' && !state.slow)) return 'well';
  return `${state.is} ${'unsaved' in state && state.unsaved > 0}`;
}

/** The state in words: a short text for the bar, and the whole truth for whoever asks. */
export function describe(state: SaveState): { short: string; long: string } {
  switch (state.is) {
    case 'opening':
      return { short: 'Connecting', long: 'Connecting to the server.' };
    case 'connecting':
      return {
        short: 'Reconnecting',
        long: state.unsaved ? `Reconnecting. ${changes(state.unsaved)} not saved yet.` : 'Reconnecting. Everything you wrote is saved.',
      };
    case 'offline':
      return state.unsaved
        ? {
            short: `Offline · ${state.unsaved} unsaved`,
            long: `The server cannot be reached. ${changes(state.unsaved)} only in this tab: keep it open, they are sent when the connection is back.`,
          }
        : { short: 'Offline', long: 'The server cannot be reached. Everything you wrote is saved; you can go on writing.' };
    case 'saving':
      return state.slow
        ? {
            short: `Waiting · ${state.unsaved} unsaved`,
            long: `The server is connected but has not confirmed ${changes(state.unsaved)} yet. Keep this tab open.`,
          }
        : { short: 'Saving', long: `Saving ${changes(state.unsaved)}.` };
    case 'saved':
      return { short: 'Saved', long: 'Everything you wrote is committed in the server’s database.' };
    case 'read-only':
      if (state.because === 'content') {
        return { short: 'View only', long: 'Another program wrote this document. This page shows it as it changes, but cannot edit it.' };
      }
      return state.unsaved
        ? { short: `View only · ${state.unsaved} refused`, long: `You may only read this document. ${changes(state.unsaved)} of yours were not accepted.` }
        : { short: 'View only', long: 'You may read this document, and follow others in it.' };
  }
}

/**
 * Counts the user's own unconfirmed changes from what the provider tells.
 *
 * The provider has a counter of its own, but it starts again at 1 with each connection (for the handshake) and so says nothing about
 * what was typed offline. This one only falls by confirmations.
 */
export class UnsavedCounter {
  count = 0;
  private lastSeen = 0;
  private restarting = false;

  /** A change was made here. */
  changed(): void {
    this.count += 1;
  }

  /** A connection was opened: the provider's next number is its restart and confirms nothing. */
  opened(): void {
    this.restarting = true;
  }

  /** The provider's own counter is now `outstanding`. */
  provider(outstanding: number): void {
    const confirmed = !this.restarting && outstanding < this.lastSeen;
    // The first confirmation after a restart is for the handshake, which carries everything that was typed before it.
    if (confirmed) this.count = Math.min(this.count, outstanding);
    this.restarting = false;
    this.lastSeen = outstanding;
  }
}
