/** Functions of Python and transformers that templates count on. */

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
