/** Python's string rules: whitespace, line ends and case. */

const blank = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
const blanks = new RegExp(`[${blank}]+`);
const isBlank = new RegExp(`[${blank}]`);
export const onlyBlanks = new RegExp(`^[${blank}]+$`);

/** `str.strip(characters)`: from both ends or one; without `named`, whitespace. */
export function strip(text: string, named: string | undefined, method: 'strip' | 'lstrip' | 'rstrip'): string {
  const set = named === undefined ? undefined : new Set(named);
  const goes = (char: string): boolean => (set === undefined ? isBlank.test(char) : set.has(char));
  let start = 0;
  let end = text.length;
  const charAt = (at: number): string => String.fromCodePoint(text.codePointAt(at) ?? 0);
  if (method !== 'rstrip') while (start < end && goes(charAt(start))) start += charAt(start).length;
  if (method !== 'lstrip') {
    while (end > start) {
      const low = text.charCodeAt(end - 1);
      const char = low >= 0xdc00 && low <= 0xdfff ? text.slice(end - 2, end) : text.charAt(end - 1);
      if (!goes(char)) break;
      end -= char.length;
    }
  }
  return text.slice(start, end);
}

/** Splits at whitespace, like `split()` without a separator, at most `most` times. */
export function splitAtBlanks(text: string, most: number, fromEnd: boolean): string[] {
  if (most < 0) return text.split(blanks).filter((word) => word !== '');
  if (!fromEnd) {
    const words: string[] = [];
    let rest = strip(text, undefined, 'lstrip');
    for (let gap = blanks.exec(rest); gap !== null && words.length < most; gap = blanks.exec(rest)) {
      words.push(rest.slice(0, gap.index));
      rest = rest.slice(gap.index + gap[0].length);
    }
    return rest === '' ? words : [...words, rest];
  }
  const all = text.split(blanks).filter((word) => word !== '');
  const kept = all.slice(Math.max(0, all.length - most));
  let head = strip(text, undefined, 'rstrip');
  for (const word of [...kept].reverse()) head = strip(head.slice(0, head.length - word.length), undefined, 'rstrip');
  return head === '' ? kept : [head, ...kept];
}

export function split(text: string, separator: string, most: number, fromEnd: boolean): string[] {
  const all = text.split(separator);
  if (most < 0 || all.length - 1 <= most) return all;
  return fromEnd
    ? [all.slice(0, all.length - most).join(separator), ...all.slice(all.length - most)]
    : [...all.slice(0, most), all.slice(most).join(separator)];
}

const ends = String.raw`\n\r\v\f\x1c-\x1e\x85\u2028\u2029`;
const line = new RegExp(`[^${ends}]*(?:\r\n|[${ends}]|$)`, 'g');
const lineEnd = new RegExp(`(?:\r\n|[${ends}])$`);

export function splitLines(text: string, keepEnds = false): string[] {
  const lines = text.match(line) ?? [];
  if (lines.at(-1) === '') lines.pop();
  return keepEnds ? lines : lines.map((ended) => ended.replace(lineEnd, ''));
}

export const capitalize = (text: string): string => {
  const [first = ''] = text;
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
};

/** `str.title`: a letter that follows no letter becomes upper case. */
export const title = (text: string): string => text.replaceAll(/\p{L}+/gu, (word) => capitalize(word));

/** Length of the result of `str.replace(old, new)`. */
export function replacedLength(text: string, old: string, by: string): number {
  if (old === '') return text.length + (text.length + 1) * by.length;
  let count = 0;
  for (let at = text.indexOf(old); at >= 0; at = text.indexOf(old, at + old.length)) count++;
  return text.length + count * (by.length - old.length);
}

export function replace(text: string, old: string, by: string, most: number): string {
  if (most < 0 && old !== '') return text.replaceAll(old, () => by);
  const pieces = old === '' ? ['', ...text, ''] : text.split(old);
  const count = most < 0 ? pieces.length - 1 : Math.min(most, pieces.length - 1);
  const head = pieces.slice(0, count + 1).join(by);
  return count + 1 < pieces.length ? [head, ...pieces.slice(count + 1)].join(old) : head;
}
