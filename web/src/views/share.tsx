import { useRef, useState } from 'preact/hooks';
import { Dialog } from '../parts/dialog';
import { Icon } from '../parts/icon';
import { documentPath } from '../route';

/** The link names the document and nothing else: no token, so it may be forwarded, logged and printed. */
export function ShareDialog({ id, title, onClose }: { id: string; title: string; onClose: () => void }) {
  const [copied, setCopied] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const link = `${location.origin}${documentPath(id)}`;

  const copy = async () => {
    try {
      await navigator.clipboard.writeText(link);
    } catch {
      // Without https a browser may refuse: the old way needs a selection.
      input.current!.select();
      if (!document.execCommand('copy')) return;
    }
    setCopied(true);
    setTimeout(() => setCopied(false), 2_500);
  };

  return (
    <Dialog title={`Share “${title}”`} onClose={onClose}>
      <div class="copy-row">
        <input ref={input} type="text" readOnly value={link} aria-label="Link to the document" onFocus={(event) => event.currentTarget.select()} />
        <button type="button" class="button primary" onClick={() => void copy()} autofocus>
          <Icon name={copied ? 'check' : 'copy'} /> <span aria-live="polite">{copied ? 'Copied' : 'Copy link'}</span>
        </button>
      </div>
      <p class="quiet-words with-icon">
        <Icon name="key" />
        <span>The link holds no secret. Whoever opens it signs in, and may do there what their role in the project allows.</span>
      </p>
      {'share' in navigator && (
        <div class="dialog-actions">
          <button type="button" class="button" onClick={() => void navigator.share({ title, url: link }).catch(() => {})}>
            More ways to share
          </button>
        </div>
      )}
    </Dialog>
  );
}
