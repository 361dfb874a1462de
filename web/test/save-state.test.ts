import { describe, expect, it } from 'vitest';
import { UnsavedCounter, describe as inWords, isWorry, saveState, turnOf, type ConnectionFacts } from '../src/collaboration/save-state';

const SOUND: ConnectionFacts = { socketOpen: true, browserOnline: true, synced: true, everSynced: true, access: 'read-write', unsaved: 0, slow: false };
const when = (facts: Partial<ConnectionFacts>) => saveState({ ...SOUND, ...facts });

describe('the save state', () => {
  it('says saved only when connected, synced and with nothing unconfirmed', () => {
    expect(when({}).is).toBe('saved');
    for (const doubt of [{ socketOpen: false }, { synced: false }, { unsaved: 1 }, { browserOnline: false }]) {
      expect(when(doubt).is, JSON.stringify(doubt)).not.toBe('saved');
    }
  });

  it('counts what is only in this tab while there is no connection', () => {
    expect(when({ socketOpen: false, synced: false, unsaved: 3 })).toEqual({ is: 'offline', unsaved: 3 });
    expect(inWords(when({ socketOpen: false, unsaved: 3 })).short).toContain('3 unsaved');
  });

  it('tells a reader that changes were refused instead of promising to save them', () => {
    expect(when({ access: 'readonly', unsaved: 2 })).toEqual({ is: 'read-only', unsaved: 2, because: 'role' });
  });

  it('is opening, not offline, before the document was here for the first time', () => {
    expect(when({ socketOpen: false, synced: false, everSynced: false }).is).toBe('opening');
  });
});

describe('a turn that is spoken', () => {
  it('is each change for the better or worse, and neither a save nor a number', () => {
    const turn = (facts: Partial<ConnectionFacts>) => turnOf(when(facts));
    const gone = { socketOpen: false, synced: false };
    expect(turn({ unsaved: 3 })).toBe(turn({}));
    expect(turn({ ...gone, unsaved: 1 })).toBe(turn({ ...gone, unsaved: 19 }));
    const turns = [turn({}), turn({ unsaved: 1, slow: true }), turn(gone), turn({ ...gone, unsaved: 1 }), turn({ synced: false }), turn({ access: 'readonly' })];
    expect(new Set(turns).size).toBe(turns.length);
  });

  it('is a worry where something is not saved and will not be shortly', () => {
    expect([when({ socketOpen: false }), when({ unsaved: 1, slow: true }), when({ access: 'readonly', unsaved: 1 })].map(isWorry)).toEqual([true, true, true]);
    expect([when({}), when({ unsaved: 1 }), when({ access: 'readonly' })].map(isWorry)).toEqual([false, false, false]);
  });
});

describe('the counter of unsaved changes', () => {
  const connected = () => {
    const counter = new UnsavedCounter();
    counter.opened();
    counter.provider(1); // The restart: the handshake is outstanding.
    counter.provider(0); // The handshake is confirmed.
    return counter;
  };

  it('falls with each confirmation', () => {
    const counter = connected();
    for (const outstanding of [1, 2, 3]) {
      counter.changed();
      counter.provider(outstanding);
    }
    expect(counter.count).toBe(3);
    counter.provider(2);
    expect(counter.count).toBe(2);
    counter.provider(0);
    expect(counter.count).toBe(0);
  });

  it('does not take the restart of the provider’s number for a confirmation', () => {
    const counter = connected();
    for (const outstanding of [1, 2, 3, 4]) {
      counter.changed(); // Typed offline.
      counter.provider(outstanding);
    }
    counter.opened();
    counter.provider(1); // From 4 to 1, and yet nothing was confirmed.
    expect(counter.count).toBe(4);
    counter.provider(0); // The handshake carried all four.
    expect(counter.count).toBe(0);
  });

  it('keeps what was typed during the handshake until it is confirmed itself', () => {
    const counter = connected();
    counter.changed();
    counter.provider(1);
    counter.opened();
    counter.provider(1);
    counter.changed();
    counter.provider(2);
    counter.provider(1); // The handshake, with the change from before.
    expect(counter.count).toBe(1);
    counter.provider(0);
    expect(counter.count).toBe(0);
  });
});
