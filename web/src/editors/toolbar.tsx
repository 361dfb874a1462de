import type { ComponentChildren } from 'preact';
import { useRef } from 'preact/hooks';

/** A row of controls that is one stop of the Tab key; arrows walk inside (the ARIA toolbar pattern). */
export function Toolbar({ label, children }: { label: string; children: ComponentChildren }) {
  const root = useRef<HTMLDivElement>(null);
  const stops = () => [...root.current!.querySelectorAll<HTMLElement>('button:not(:disabled), select:not(:disabled)')];

  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = stops();
    const next = all[(all.indexOf(document.activeElement as HTMLElement) + step + all.length) % all.length];
    event.preventDefault();
    next?.focus();
  };
  const onFocusIn = (event: FocusEvent) => {
    for (const stop of root.current!.querySelectorAll<HTMLElement>('button, select')) stop.tabIndex = stop === event.target ? 0 : -1;
  };
  return (
    <div ref={root} class="toolbar" role="toolbar" aria-label={label} onKeyDown={onKeyDown} onFocusIn={onFocusIn}>
      {children}
    </div>
  );
}

export function ToolbarGap() {
  return <span class="toolbar-gap" aria-hidden="true" />;
}

export function ToolbarButton({
  label,
  keys,
  pressed,
  disabled,
  onPress,
  children,
}: {
  label: string;
  /** The keyboard shortcut, as people read it. */
  keys?: string;
  /** Left out for what acts once instead of switching something. */
  pressed?: boolean;
  disabled?: boolean;
  onPress: () => void;
  children: ComponentChildren;
}) {
  const title = keys ? `${label} (${keys})` : label;
  return (
    <button
      type="button"
      class="button quiet square"
      aria-label={label}
      aria-pressed={pressed}
      title={title}
      disabled={disabled}
      // The press must not take the focus, and with it the selection, out of the text.
      onMouseDown={(event) => event.preventDefault()}
      onClick={onPress}
    >
      {children}
    </button>
  );
}

const IS_APPLE = /Mac|iPhone|iPad/.test(navigator.platform);

/** `mod` is Ctrl, or Command on Apple's machines. */
export function keys(combination: string): string {
  return combination.replace('mod', IS_APPLE ? '⌘' : 'Ctrl').replace('shift', IS_APPLE ? '⇧' : 'Shift');
}
