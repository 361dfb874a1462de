import { useEffect } from 'preact/hooks';
import { Mark } from '../parts/icon';
import { followLink } from '../route';
import { session } from '../session';
import { useStore } from '../store';

/** An address that leads to no page of this workspace. The server says 404 of it too. */
export function Nowhere() {
  const who = useStore(session);
  useEffect(() => {
    document.title = 'Page not found · ContextNexus';
  }, []);
  return (
    <main class="centred">
      <div class="message">
        <Mark size={44} />
        <h1>Page not found</h1>
        <p>
          There is no page at <bdi class="address">{location.pathname}</bdi>. The link may be incomplete or mistyped.
        </p>
        <a class="button primary" href="/" onClick={followLink}>
          {who ? 'Go to your documents' : 'Go to sign-in'}
        </a>
      </div>
    </main>
  );
}
