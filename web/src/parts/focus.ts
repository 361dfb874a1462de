import { useState } from 'preact/hooks';

/** Remembers what had the focus when the component came. The function that it returns gives it back, where that is still there. */
export function useOpener(): () => void {
  const [opener] = useState(() => document.activeElement);
  return () => {
    if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
  };
}
