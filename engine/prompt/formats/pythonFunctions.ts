/** The functions and text methods of Python and transformers that templates count on. */

/** `str.strip(characters)`: from both ends, or from one. */
export function strip(text: string, characters: string, method: 'strip' | 'lstrip' | 'rstrip'): string {
  const named = new Set(characters);
  let start = 0;
  let end = text.length;
  if (method !== 'rstrip') while (start < end && named.has(text.charAt(start))) start++;
  if (method !== 'lstrip') while (end > start && named.has(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/** How many characters `str.replace(old, new)` would give. */
export function replacedLength(text: string, old: string, by: string): number {
  if (old === '') return text.length + (text.length + 1) * by.length;
  let count = 0;
  for (let at = text.indexOf(old); at >= 0; at = text.indexOf(old, at + old.length)) count++;
  return text.length + count * (by.length - old.length);
}

/** Bounds of `range(stop)` or `range(start, stop, step)`; the count may be infinite or no number. */
export function rangeOf(args: readonly unknown[]): { start: number; step: number; count: number } {
  const [first, second, third] = args;
  const start = second === undefined ? 0 : Number(first);
  const stop = Number(second === undefined ? first : second);
  const step = third === undefined ? 1 : Number(third);
  return { start, step, count: Math.max(0, Math.ceil((stop - start) / step)) };
}

/** Python's directives that templates use, in English and local time. */
export function strftime(now: Date, format: string): string {
  const english = (options: Intl.DateTimeFormatOptions): string => now.toLocaleString('en-US', options);
  const two = (value: number): string => String(value).padStart(2, '0');
  const directives: Record<string, () => string> = {
    Y: () => String(now.getFullYear()),
    y: () => two(now.getFullYear() % 100),
    m: () => two(now.getMonth() + 1),
    d: () => two(now.getDate()),
    B: () => english({ month: 'long' }),
    b: () => english({ month: 'short' }),
    A: () => english({ weekday: 'long' }),
    a: () => english({ weekday: 'short' }),
    H: () => two(now.getHours()),
    M: () => two(now.getMinutes()),
    S: () => two(now.getSeconds()),
    '%': () => '%',
  };
  return format.replace(/%(.)/g, (whole, directive: string) => directives[directive]?.() ?? whole);
}

/** `json.dumps(value, ensure_ascii=False)` */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${pythonJson(item)}`);
  return `{${members.join(', ')}}`;
}
