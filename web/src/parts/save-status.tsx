import { useEffect, useRef, useState } from 'preact/hooks';
import { describe, isWorry, turnOf, type SaveState } from '../collaboration/save-state';
import { Icon, type IconName } from './icon';

const ICONS: Record<SaveState['is'], IconName | null> = {
  opening: null,
  connecting: null,
  saving: null, // A turning ring.
  saved: 'check',
  offline: 'offline',
  'read-only': 'eye',
};

/** "Saved" may come late but never early: after "Saving" it waits this long, so that typing does not make the words flicker. */
const SAVED_AFTER_MS = 600;

/** Where the user's changes are. Worries are shown immediately. What a screen reader speaks is the very element that is shown. */
export function SaveStatus({ state }: { state: SaveState }) {
  const shown = useCalm(state);
  const { short, long } = describe(shown);
  const icon = ICONS[shown.is];
  const isTurn = useTurn(shown);
  return (
    <div class={isWorry(shown) ? 'save-status worried' : 'save-status'} data-state={shown.is} title={long}>
      {icon ? <Icon name={icon} size={16} /> : <span class="ring" aria-hidden="true" />}
      <span class="save-words" role="status" aria-live={isTurn ? 'polite' : 'off'}>
        {short}
      </span>
    </div>
  );
}

/** Whether the words have just turned for the better or worse. Nobody wants to hear each save, or each number while typing offline. */
function useTurn(shown: SaveState): boolean {
  const { short } = describe(shown);
  const last = useRef({ short: '', turn: '', isTurn: false });
  if (last.current.short !== short) {
    const turn = turnOf(shown);
    last.current = { short, turn, isTurn: turn !== last.current.turn };
  }
  return last.current.isTurn;
}

function useCalm(state: SaveState): SaveState {
  const [shown, setShown] = useState(state);
  useEffect(() => {
    if (state.is !== 'saved' || (shown.is !== 'saving' && shown.is !== 'connecting')) {
      setShown(state);
      return;
    }
    const timer = setTimeout(() => setShown(state), SAVED_AFTER_MS);
    return () => clearTimeout(timer);
  }, [state]);
  // Between the change and the effect: never the old "saved" when it is not true any more.
  return state.is !== 'saved' && shown.is === 'saved' ? state : shown;
}
