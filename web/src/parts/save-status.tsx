import { useEffect, useRef, useState } from 'preact/hooks';
import { describe, type SaveState } from '../collaboration/save-state';
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

/** Where the user's changes are. Worries are shown at once. */
export function SaveStatus({ state }: { state: SaveState }) {
  const shown = useCalm(state);
  const { short, long } = describe(shown);
  const icon = ICONS[shown.is];
  const worried = shown.is === 'offline' || (shown.is === 'saving' && shown.slow) || (shown.is === 'read-only' && shown.unsaved > 0);
  // Only turns for the better or worse are spoken, not each save.
  const spoken = shown.is === 'saving' && !shown.slow ? 'saved' : shown.is;
  const sentence = useRef({ spoken: '', text: '' });
  if (sentence.current.spoken !== spoken) sentence.current = { spoken, text: long };
  return (
    <div class={worried ? 'save-status worried' : 'save-status'} data-state={shown.is} title={long}>
      {icon ? <Icon name={icon} size={16} /> : <span class="ring" aria-hidden="true" />}
      <span class="save-words">{short}</span>
      <span class="for-screen-readers" role="status">
        {sentence.current.text}
      </span>
    </div>
  );
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
