import { useEffect, useState } from 'preact/hooks';
import { Toasts } from './parts/toast';
import { route } from './route';
import { endedBecause, session } from './session';
import { useStore } from './store';
import { DocumentView } from './views/document';
import { Documents } from './views/documents';
import { Nowhere } from './views/nowhere';
import { SignIn } from './views/sign-in';

export function App() {
  const who = useStore(session);
  const where = useStore(route);
  const ended = useStore(endedBecause);
  const openId = where.at === 'document' ? where.id : null;

  // When a session ends by itself, the document stays on the screen behind the sign-in: it may hold text that is nowhere else.
  const [keptOpen, setKeptOpen] = useState<string | null>(null);
  useEffect(() => {
    if (who) setKeptOpen(openId);
    else if (!ended) setKeptOpen(null);
  }, [who, openId, ended]);
  const isKept = openId !== null && keptOpen === openId && ended !== null;

  return (
    <>
      {openId && (who || isKept) && <DocumentView key={openId} id={openId} />}
      {who && where.at === 'documents' && <Documents key={who.user.id} />}
      {who && where.at === 'nowhere' && <Nowhere />}
      {!who && <SignIn overPage={isKept} opensDocument={openId !== null} />}
      <Toasts />
    </>
  );
}
