import type { Awareness } from 'y-protocols/awareness';

/** Somebody who has the document open. Name and colour are what their client claims. */
export interface Person {
  clientId: number;
  name: string;
  colour: string;
  isMe: boolean;
}

/** Dark enough for white letters, apart from each other, readable as a line on white and on near-black. */
export const PALETTE = ['#4f46e5', '#0b7f61', '#c93f0a', '#c2185b', '#0277b5', '#8e24aa', '#a16207', '#546e7a'];

const NAME_LENGTH_MAX = 40;

/** A colour that is safe to put into a style: what others claim is never used as it comes. */
export function safeColour(claimed: unknown, clientId: number): string {
  if (typeof claimed === 'string' && /^#[0-9a-f]{6}$/i.test(claimed)) return claimed;
  return PALETTE[clientId % PALETTE.length]!;
}

export function safeName(claimed: unknown): string {
  const name = typeof claimed === 'string' ? claimed.trim() : '';
  if (!name) return 'Anonymous';
  return name.length > NAME_LENGTH_MAX ? `${name.slice(0, NAME_LENGTH_MAX - 1)}…` : name;
}

export function personOf(clientId: number, state: unknown, ownClientId: number): Person {
  const user = (state as { user?: { name?: unknown; color?: unknown } } | null)?.user;
  return {
    clientId,
    name: safeName(user?.name),
    colour: safeColour(user?.color, clientId),
    isMe: clientId === ownClientId,
  };
}

/** Everybody present, oneself first, then by name. States without a user (servers, bots that only sync) are nobody. */
export function peopleIn(awareness: Awareness): Person[] {
  const people: Person[] = [];
  for (const [clientId, state] of awareness.getStates()) {
    if ((state as { user?: unknown }).user) people.push(personOf(clientId, state, awareness.clientID));
  }
  return people.sort((a, b) => Number(b.isMe) - Number(a.isMe) || a.name.localeCompare(b.name) || a.clientId - b.clientId);
}

/** The wished colour, or the first one that nobody with an older claim uses. */
export function freeColour(wished: string, taken: string[]): string {
  if (!taken.includes(wished)) return wished;
  return PALETTE.find((colour) => !taken.includes(colour)) ?? wished;
}

export function initials(name: string): string {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0]!, words[words.length - 1]!] : [words[0] ?? '?'];
  return letters.map((word) => [...word][0]!.toUpperCase()).join('');
}
