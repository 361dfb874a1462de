import { initials, type Person } from '../collaboration/people';

export function Avatar({ name, colour, title }: { name: string; colour: string; title?: string }) {
  return (
    <span class="avatar" style={{ backgroundColor: colour }} title={title ?? name} aria-hidden="true">
      {initials(name)}
    </span>
  );
}

const SHOWN_MAX = 4;

/** Who else is here (oneself stands in the account menu beside it). Pictures for the eye, one sentence for a screen reader. */
export function Avatars({ people }: { people: Person[] }) {
  const others = people.filter((person) => !person.isMe);
  if (others.length === 0) return null;
  const shown = others.length > SHOWN_MAX ? others.slice(0, SHOWN_MAX - 1) : others;
  const rest = others.slice(shown.length);
  return (
    <div class="avatars" role="img" aria-label={`Also here: ${others.map((person) => person.name).join(', ')}`}>
      {shown.map((person) => (
        <Avatar key={person.clientId} name={person.name} colour={person.colour} />
      ))}
      {rest.length > 0 && (
        <span class="avatar rest" title={rest.map((person) => person.name).join(', ')} aria-hidden="true">
          +{rest.length}
        </span>
      )}
    </div>
  );
}
