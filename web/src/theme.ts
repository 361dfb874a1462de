import { Store } from './store';

/** `system` follows the operating system. */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'contextnexus.theme';

function stored(): Theme {
  const value = localStorage.getItem(KEY);
  return value === 'light' || value === 'dark' ? value : 'system';
}

export const theme = new Store<Theme>(stored());

export function applyTheme(): void {
  document.documentElement.dataset.theme = theme.value;
}

export function nextTheme(): void {
  const order: Theme[] = ['system', 'light', 'dark'];
  const next = order[(order.indexOf(theme.value) + 1) % order.length]!;
  localStorage.setItem(KEY, next);
  theme.set(next);
  applyTheme();
}
