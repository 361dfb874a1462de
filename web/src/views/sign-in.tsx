import { useEffect, useRef, useState } from 'preact/hooks';
import * as api from '../api';
import { useOpener } from '../parts/focus';
import { Mark } from '../parts/icon';
import { ThemeButton } from '../parts/page-menu';
import { endedBecause, lastSignIn } from '../session';
import { useStore } from '../store';

/** Over a page it keeps what is behind it visible: an editor whose session ended. */
export function SignIn({ overPage, opensDocument }: { overPage: boolean; opensDocument: boolean }) {
  const [facts, setFacts] = useState<api.ServerFacts | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const ended = useStore(endedBecause);
  const form = useRef<HTMLFormElement>(null);
  const last = useRef(lastSignIn()).current;
  const giveFocusBack = useOpener();

  useEffect(() => {
    document.title = 'Sign in · ContextNexus';
    const fields = form.current!.elements as unknown as Record<'tenant' | 'email' | 'password', HTMLInputElement>;
    const focusFirstEmpty = () => [fields.tenant, fields.email, fields.password].find((field) => !field.value)?.focus();
    focusFirstEmpty();
    api.serverFacts().then(
      (known) => {
        setFacts(known);
        if (!known.demo || fields.tenant.value || fields.email.value) return;
        fields.tenant.value = 'demo';
        fields.email.value = 'admin@demo.local';
        focusFirstEmpty();
      },
      () => {
        // The form says so when it is sent.
      },
    );
    return () => {
      if (overPage) giveFocusBack(); // To the editor that the session ended in.
    };
  }, []);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(form.current!);
    const text = (name: string) => String(data.get(name) ?? '').trim();
    setBusy(true);
    setTrouble(null);
    try {
      await api.signIn(text('tenant'), text('email'), String(data.get('password') ?? ''), data.get('stay') === 'on');
    } catch (error) {
      setBusy(false);
      setTrouble(inWords(error));
      const password = form.current!.elements.namedItem('password') as HTMLInputElement;
      password.select();
      password.focus();
    }
  };

  const content = (
    <>
      <div class="sign-in-corner">
        <ThemeButton />
      </div>
      <div class="sign-in-card">
        <Mark size={44} />
        <h1 id="sign-in-title">{ended ? 'Sign in again' : 'Sign in to ContextNexus'}</h1>
        <p class="quiet-words">{ended ?? (opensDocument ? 'to open the document that was shared with you' : 'Write together. What anyone sees is committed.')}</p>
        <form ref={form} onSubmit={submit} aria-busy={busy}>
          <label class="field">
            <span>Workspace</span>
            <input name="tenant" type="text" defaultValue={last.tenant} required autocomplete="organization" autocapitalize="none" spellcheck={false} />
          </label>
          <label class="field">
            <span>E-mail</span>
            <input name="email" type="email" defaultValue={last.email} required autocomplete="username" />
          </label>
          <label class="field">
            <span>Password</span>
            <input name="password" type="password" required autocomplete="current-password" aria-describedby={facts?.demo ? 'where-password' : undefined} />
          </label>
          {facts?.demo && (
            <p class="hint" id="where-password">
              This is a demo server. Its password is in <code>credentials.json</code> in the server’s data directory; the server prints the
              path of that file when it starts.
            </p>
          )}
          <label class="check">
            <input name="stay" type="checkbox" defaultChecked />
            <span>Stay signed in on this device</span>
          </label>
          <p class="trouble" role="alert">
            {trouble}
          </p>
          <button type="submit" class="button primary wide" disabled={busy}>
            {busy ? 'Signing in…' : 'Sign in'}
          </button>
        </form>
      </div>
      <p class="sign-in-foot">{facts ? `${facts.name} ${facts.version}` : '\u00a0'}</p>
    </>
  );
  // Behind a dialog there is a page with a `main` of its own.
  return overPage ? (
    <div class="sign-in over-page" role="dialog" aria-modal="true" aria-labelledby="sign-in-title">
      {content}
    </div>
  ) : (
    <main class="sign-in">{content}</main>
  );
}

function inWords(error: unknown): string {
  if (error instanceof api.Unreachable) return 'The server cannot be reached. Is it running?';
  if (error instanceof api.Refused) {
    if (error.status === 401 || error.status === 403) return 'Workspace, e-mail and password do not fit together.';
    if (error.status === 429) return 'Too many attempts. Please wait a moment and try again.';
    if (error.status === 503) return 'The server is up but its database is away. Please try again in a moment.';
    return error.message;
  }
  return 'Something went wrong in this page. Please load it again.';
}
