/** Mentions in a question, such as `@file:src/a.ts` and `#selection`. */

export const mentionKinds = [
  'file',
  'folder',
  'symbol',
  'selection',
  'problems',
  'diff',
  'terminal',
  'repository',
] as const;
export type MentionKind = (typeof mentionKinds)[number];

/** These take a value after a colon. */
export const valued: ReadonlySet<MentionKind> = new Set(['file', 'folder', 'symbol']);

export interface Mention {
  kind: MentionKind;
  /** Path or name; '' if the kind takes none. */
  value: string;
  /** As written in the question. */
  text: string;
}

const pattern = new RegExp(
  String.raw`(?<![^\s(\[])[@#](?<kind>${mentionKinds.join('|')})(?::(?:"(?<quoted>[^"\n]*)"|(?<plain>[^\s"]+)))?(?![\w-])`,
  'g',
);

/** Each mention once, in order. A kind without its value is plain text, and so is `name@file`. */
export function parseMentions(question: string): Mention[] {
  const found = new Map<string, Mention>();
  for (const match of question.matchAll(pattern)) {
    const kind = mentionKinds.find((known) => known === match.groups?.['kind']);
    if (kind === undefined) continue;
    const plain = match.groups?.['plain'] ?? '';
    // Punctuation after the path belongs to the sentence: "in @file:a.ts, line 3".
    const ending = /[.,;:!?)\]]*$/.exec(plain)?.[0] ?? '';
    const value = match.groups?.['quoted'] ?? plain.slice(0, plain.length - ending.length);
    if (valued.has(kind) !== (value !== '')) continue;
    const text = match[0].slice(0, match[0].length - ending.length);
    found.set(`${kind}:${value}`, { kind, value, text });
  }
  return [...found.values()];
}

/** Formats a mention. Quotes a value with blanks. */
export function mentionText(kind: MentionKind, value = ''): string {
  if (value === '') return `@${kind}`;
  return /[\s"]|[.,;:!?)\]]$/.test(value) ? `@${kind}:"${value.replaceAll('"', '')}"` : `@${kind}:${value}`;
}

/** Match of the characters of `query` in order in `text`: smaller is better, Infinity is no match. */
export function mismatch(query: string, text: string): number {
  const wanted = query.toLowerCase();
  const whole = text.toLowerCase();
  const name = whole.slice(whole.lastIndexOf('/') + 1);
  if (name.startsWith(wanted)) return text.length / 1_000;
  const inside = whole.indexOf(wanted);
  if (inside >= 0) return 1 + text.length / 1_000;
  let at = -1;
  let gaps = 0;
  for (const char of wanted) {
    const next = whole.indexOf(char, at + 1);
    if (next < 0) return Number.POSITIVE_INFINITY;
    gaps += next - at - 1;
    at = next;
  }
  return 2 + gaps;
}
