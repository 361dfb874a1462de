import { Store, useStore } from '../store';
import { Icon } from './icon';

interface Toast {
  id: number;
  text: string;
  isError: boolean;
  action?: { label: string; run: () => void };
}

const VISIBLE_MS = 5_000;
/** Whoever deletes by mistake needs time to see it. */
const VISIBLE_WITH_ACTION_MS = 12_000;

const toasts = new Store<Toast[]>([]);
let nextId = 1;

export function toast(text: string, options: { isError?: boolean; action?: Toast['action'] } = {}): void {
  const id = nextId++;
  toasts.set([...toasts.value.slice(-2), { id, text, isError: options.isError ?? false, ...(options.action && { action: options.action }) }]);
  setTimeout(() => dismiss(id), options.action ? VISIBLE_WITH_ACTION_MS : VISIBLE_MS);
}

/** Says what went wrong with something that the user asked for. */
export function toastError(error: unknown): void {
  toast(error instanceof Error ? error.message : String(error), { isError: true });
}

function dismiss(id: number): void {
  toasts.set(toasts.value.filter((toast) => toast.id !== id));
}

export function Toasts() {
  const shown = useStore(toasts);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.map(({ id, text, isError, action }) => (
        <div key={id} class={isError ? 'toast error' : 'toast'}>
          <span>{text}</span>
          {action && (
            <button
              type="button"
              class="toast-action"
              onClick={() => {
                dismiss(id);
                action.run();
              }}
            >
              {action.label}
            </button>
          )}
          <button type="button" class="toast-close" aria-label="Dismiss" onClick={() => dismiss(id)}>
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
    </div>
  );
}
