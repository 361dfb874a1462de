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

  // When a session ends by itself, the document stays on the screen behind the sign-in: it may hold text that is nowhere else. It goes
  // on with the same user only: what one typed is not sent in the name of another.
  const [kept, setKept] = useState<{ documentId: string | null; userId: string } | null>(null);
  useEffect(() => {
    if (who) setKept({ documentId: openId, userId: who.user.id });
    else if (!ended) setKept(null);
  }, [who, openId, ended]);
  const isKept = openId !== null && kept?.documentId === openId && ended !== null;
  const userId = who?.user.id ?? kept?.userId;

  return (
    <>
      {openId && (who || isKept) && <DocumentView key={`${openId} ${userId}`} id={openId} />}
      {who && where.at === 'documents' && <Documents key={who.user.id} />}
      {where.at === 'nowhere' && <Nowhere />}
      {!who && where.at !== 'nowhere' && <SignIn overPage={isKept} opensDocument={openId !== null} />}
      <Toasts />
    </>
  );
}
