import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef } from 'preact/hooks';
import { useOpener } from './focus';
import { Icon } from './icon';

/** A modal dialog: the browser's own, so that Escape and the inert page behind it are right. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const giveFocusBack = useOpener();
  // Not after the paint: a field with `autofocus` has the focus by then, and the browser would give it back to that field.
  useLayoutEffect(() => {
    const dialog = ref.current!;
    dialog.showModal();
    return () => {
      dialog.close(); // Before it is closed, nothing outside of it can have the focus.
      giveFocusBack();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class="dialog"
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === ref.current) onClose(); // The backdrop.
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id={titleId}>{title}</h2>
          <button type="button" class="button quiet square" aria-label="Close" onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Asks for one line of text. */
export function Prompt({
  title,
  label,
  value,
  action,
  onDone,
  onClose,
}: {
  title: string;
  label: string;
  value: string;
  action: string;
  onDone: (value: string) => void;
  onClose: () => void;
}) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current!.select(), []);
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const text = input.current!.value.trim();
          if (text) onDone(text);
        }}
      >
        <label class="field">
          <span>{label}</span>
          <input ref={input} type="text" defaultValue={value} maxLength={200} required autofocus />
        </label>
        <div class="dialog-actions">
          <button type="button" class="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button primary">
            {action}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
