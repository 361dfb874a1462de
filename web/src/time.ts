const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['minute', 60],
  ['hour', 3_600],
  ['day', 86_400],
];

/** How long ago, in words; a date when it is more than a week. */
export function ago(instant: string, now = Date.now()): string {
  const seconds = Math.max(0, (now - Date.parse(instant)) / 1000);
  if (seconds < 60) return 'just now';
  if (seconds > 7 * 86_400) return new Date(instant).toLocaleDateString('en', { year: 'numeric', month: 'short', day: 'numeric' });
  const [unit, size] = UNITS.findLast(([, size]) => seconds >= size)!;
  return new Intl.RelativeTimeFormat('en', { numeric: 'auto' }).format(-Math.floor(seconds / size), unit);
}
