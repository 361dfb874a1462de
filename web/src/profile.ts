import { PALETTE } from './collaboration/people';
import { Store } from './store';

/** How this browser shows its user to others: the account's name unless another was chosen here. */
export interface Profile {
  name: string | null;
  colour: string;
}

const KEY = 'contextnexus.profile';

function read(): Profile {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? 'null');
    if (PALETTE.includes(stored?.colour)) return { name: typeof stored.name === 'string' && stored.name ? stored.name : null, colour: stored.colour };
  } catch {
    // As if nothing had been stored.
  }
  const profile = { name: null, colour: PALETTE[Math.floor(Math.random() * PALETTE.length)]! };
  localStorage.setItem(KEY, JSON.stringify(profile));
  return profile;
}

export const profile = new Store<Profile>(read());

export function setProfile(next: Profile): void {
  localStorage.setItem(KEY, JSON.stringify(next));
  profile.set(next);
}
