import { useState } from 'preact/hooks';
import * as api from '../api';
import { PALETTE } from '../collaboration/people';
import { profile, setProfile } from '../profile';
import { session } from '../session';
import { useStore } from '../store';
import { nextTheme, theme } from '../theme';
import { Avatar } from './avatars';
import { Dialog } from './dialog';
import { Icon } from './icon';
import { Menu } from './menu';

const THEME_WORDS = { system: 'like the system', light: 'light', dark: 'dark' } as const;
const THEME_ICONS = { system: 'system', light: 'sun', dark: 'moon' } as const;

export function ThemeButton() {
  const now = useStore(theme);
  const label = `Colours: ${THEME_WORDS[now]}. Change`;
  return (
    <button type="button" class="button quiet square" aria-label={label} title={label} onClick={nextTheme}>
      <Icon name={THEME_ICONS[now]} />
    </button>
  );
}

/** Who is signed in, how others see them, and the way out. */
export function UserMenu() {
  const who = useStore(session);
  const me = useStore(profile);
  const [editing, setEditing] = useState(false);
  if (!who) return null;
  const name = me.name ?? who.user.name;
  return (
    <>
      <Menu
        label={`${name}: account`}
        class="avatar-button"
        button={<Avatar name={name} colour={me.colour} />}
        head={
          <>
            <strong>{who.user.name}</strong>
            <small>
              {[who.user.email, who.tenant].filter(Boolean).join(' · ')}
            </small>
          </>
        }
        items={[
          { icon: 'pencil', label: 'Name and colour', hint: 'How others see your cursor', onChoose: () => setEditing(true) },
          { icon: 'signOut', label: 'Sign out', onChoose: () => void api.signOut() },
        ]}
      />
      {editing && <ProfileDialog onClose={() => setEditing(false)} />}
    </>
  );
}

function ProfileDialog({ onClose }: { onClose: () => void }) {
  const me = profile.value;
  const accountName = session.value?.user.name ?? '';
  return (
    <Dialog title="Name and colour" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const data = new FormData(event.currentTarget as HTMLFormElement);
          const name = String(data.get('name') ?? '').trim();
          setProfile({ name: name && name !== accountName ? name : null, colour: String(data.get('colour')) });
          onClose();
        }}
      >
        <p class="quiet-words">Shown beside your cursor, for this browser only. The author of a change stays your account.</p>
        <label class="field">
          <span>Name</span>
          <input name="name" type="text" defaultValue={me.name ?? accountName} maxLength={40} autocomplete="off" />
        </label>
        <fieldset class="swatches">
          <legend>Colour</legend>
          {PALETTE.map((colour, index) => (
            <label key={colour} class="swatch">
              <input type="radio" name="colour" value={colour} defaultChecked={colour === me.colour} aria-label={`Colour ${index + 1}`} />
              <span style={{ backgroundColor: colour }} />
            </label>
          ))}
        </fieldset>
        <div class="dialog-actions">
          <button type="button" class="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button primary">
            Apply
          </button>
        </div>
      </form>
    </Dialog>
  );
}
