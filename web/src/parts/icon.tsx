import type { JSX } from 'preact';

/** Strokes on a 24 × 24 grid. */
const PATHS = {
  back: 'M15 5l-7 7 7 7',
  plus: 'M12 5v14M5 12h14',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16.2 16.2L20.5 20.5',
  text: 'M7 3.5h7l4.5 4.5v10.5a2 2 0 0 1-2 2h-9.5a2 2 0 0 1-2-2v-13a2 2 0 0 1 2-2zM13.5 3.5v5h5M8.5 13h7M8.5 16.5h4.5',
  code: 'M8.5 8L4.5 12l4 4M15.5 8l4 4-4 4M13.3 6l-2.6 12',
  more: 'M6 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2zM12 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2zM18 12.6a.6.6 0 1 0 0-1.2.6.6 0 0 0 0 1.2z',
  share: 'M10 13.5a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7l-1.2 1.2M14 10.5a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1.2-1.2',
  pencil: 'M4.5 19.5l1-4.2L16 4.8a1.8 1.8 0 0 1 2.5 0l.7.7a1.8 1.8 0 0 1 0 2.5L8.7 18.5z',
  trash: 'M4.5 6.5h15M9.5 6.5v-2h5v2M6.5 6.5l.9 12.1a2 2 0 0 0 2 1.9h5.2a2 2 0 0 0 2-1.9l.9-12.1M10 10.5v6M14 10.5v6',
  check: 'M5 12.5l4.7 4.7L19 7.5',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
  moon: 'M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7z',
  system: 'M5 4.5h14a1.5 1.5 0 0 1 1.5 1.5v9a1.5 1.5 0 0 1-1.5 1.5H5A1.5 1.5 0 0 1 3.5 15V6A1.5 1.5 0 0 1 5 4.5zM9 20h6M12 16.5V20',
  bold: 'M7.5 5h5.3a3.3 3.3 0 0 1 0 6.7H7.5zM7.5 11.7h6.2a3.6 3.6 0 0 1 0 7.3H7.5z',
  italic: 'M10.5 5h6M7.5 19h6M13.8 5l-3.6 14',
  strike: 'M4.5 12h15M16.5 7.8C16 6 14.3 5 12 5 9.3 5 7.7 6.3 7.7 8.2c0 .9.3 1.6 1 2.2M7.3 15.8C7.8 17.9 9.6 19 12.1 19c2.7 0 4.5-1.3 4.5-3.3 0-.5-.1-.9-.3-1.3',
  bullets: 'M9.5 6.5h10M9.5 12h10M9.5 17.5h10M5 6.5h.01M5 12h.01M5 17.5h.01',
  numbers: 'M10.5 6.5h9M10.5 12h9M10.5 17.5h9M4.3 5.3l1.4-.8v4.5M4.2 15.7c.3-1.4 2.6-1.2 2.3.2-.2.9-1.3 1.4-2.3 2.6h2.5',
  quote: 'M5 16.5c2.7-.6 4-2.5 4-5V8H5v4.5h3.5M14.5 16.5c2.7-.6 4-2.5 4-5V8h-4v4.5H18',
  inlineCode: 'M8.5 8L4.5 12l4 4M15.5 8l4 4-4 4',
  codeBlock: 'M5 4.5h14a1.5 1.5 0 0 1 1.5 1.5v12a1.5 1.5 0 0 1-1.5 1.5H5A1.5 1.5 0 0 1 3.5 18V6A1.5 1.5 0 0 1 5 4.5zM9.5 9.5L7 12l2.5 2.5M14.5 9.5L17 12l-2.5 2.5',
  undo: 'M8.5 5L4.5 9l4 4M4.5 9h9.5a5 5 0 0 1 0 10h-3.5',
  redo: 'M15.5 5l4 4-4 4M19.5 9H10a5 5 0 0 0 0 10h3.5',
  copy: 'M10 8.5h8a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 8.5 18v-8A1.5 1.5 0 0 1 10 8.5zM5.5 15.5A1.5 1.5 0 0 1 4.5 14V6A1.5 1.5 0 0 1 6 4.5h8a1.5 1.5 0 0 1 1.5 1',
  close: 'M6 6l12 12M18 6L6 18',
  offline: 'M3.5 3.5l17 17M9.5 5.3A12 12 0 0 1 21 9M3 9a12 12 0 0 1 3.7-2.3M6.3 12.7a8 8 0 0 1 3.2-1.9M14.8 11a8 8 0 0 1 2.9 1.7M9.6 16.2a3.7 3.7 0 0 1 4.8 0M12 19.5h.01',
  eye: 'M2.8 12S6 5.8 12 5.8 21.2 12 21.2 12 18 18.2 12 18.2 2.8 12 2.8 12zM12 14.7a2.7 2.7 0 1 0 0-5.4 2.7 2.7 0 0 0 0 5.4z',
  warning: 'M12 4l9 15.5H3zM12 10v4M12 16.8h.01',
  signOut: 'M14.5 16.5L19 12l-4.5-4.5M19 12H9.5M11 4.5H6.5a2 2 0 0 0-2 2v11a2 2 0 0 0 2 2H11',
  key: 'M14.5 13.5a5 5 0 1 0-4.7-3.3L3.5 16.5v4h4v-2.5H10v-2.5h1.8l1-1a5 5 0 0 0 1.7-1zM16 8h.01',
} as const;

export type IconName = keyof typeof PATHS;

/** Decoration: the control around it carries the words. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

export function Mark({ size = 32 }: { size?: number }): JSX.Element {
  return (
    <svg class="mark" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="9" fill="var(--accent)" />
      <path d="M10.5 21.5 16 10l5.5 11.5z" fill="none" stroke="#fff" stroke-opacity=".55" stroke-width="2" stroke-linejoin="round" />
      <circle cx="16" cy="10" r="3.3" fill="#fff" />
      <circle cx="10.5" cy="21.5" r="3.3" fill="#fff" />
      <circle cx="21.5" cy="21.5" r="3.3" fill="#c7d2fe" />
    </svg>
  );
}
