/** The pattern of a one-line edit, and the places where it applies. Compares tokens, so spacing may differ. */

/** Columns count UTF-16 units from 0. */
export interface Token {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

/** Replaces the text between the columns of `line` (from 0) by `text`. */
export interface Place {
  readonly line: number;
  readonly start: number;
  readonly end: number;
  /** The line of `end`; absent: `line`. */
  readonly endLine?: number;
  readonly text: string;
}

export type EditPattern =
  /** A name or an expression was replaced; it is replaced everywhere. */
  | { readonly kind: 'tokens'; readonly tokens: readonly string[]; readonly text: string }
  /**
   * Inserts after some tokens (none: at the line's beginning) and before another (undefined: at its end); `text` is all that is
   * there afterwards.
   */
  | {
      readonly kind: 'between';
      readonly left: readonly string[];
      readonly tokens: readonly string[];
      readonly right: string | undefined;
      readonly text: string;
    }
  /** The first or last argument of a call was added. */
  | {
      readonly kind: 'argument';
      readonly callee: string;
      readonly at: 'first' | 'last';
      readonly alone: boolean;
      readonly text: string;
    };

const word = /[\p{L}\p{N}_$]/u;
const name = /^[\p{L}_$][\p{L}\p{N}_$]+$/u;
/** Keywords of languages: alone they do not identify a place. */
const keywords = new Set(
  (
    'and as async await bool break case catch char class const continue def default do double elif else enum except export extends ' +
    'false False final finally float fn for from func function if implements import in int interface is lambda let long match ' +
    'mut new nil None not null or override package pass private protected public raise return self static string struct super ' +
    'switch this throw true True try type undefined use val var void while with yield'
  ).split(' '),
);

/** Maximum distance in tokens between a change and the name that identifies its place: `retries(`, `limit = -`. */
const nearTokens = 3;

const tells = (text: string | undefined): boolean => text !== undefined && name.test(text) && !keywords.has(text);

export const tokensOf = (line: string): Token[] =>
  [...line.matchAll(/[\p{L}\p{N}_$]+|\S/gu)].map(({ 0: text, index }) => ({
    text,
    start: index,
    end: index + text.length,
  }));

/** Undefined if there is no pattern: typing at a line's end, blanks, or nothing that identifies the place. */
export function patternOf(before: string, after: string): EditPattern | undefined {
  const pattern = changePattern(before, after);
  // Otherwise the same edit would be offered again and again.
  return pattern && inLine(pattern, after).length < inLine(pattern, before).length ? pattern : undefined;
}

function changePattern(before: string, after: string): EditPattern | undefined {
  const { start, endBefore, endAfter } = changeOf(before, after);
  const removed = tokensOf(before.slice(start, endBefore)).map(({ text }) => text);
  const added = after.slice(start, endAfter).trim();
  if (removed.length === 0 && added === '') return undefined;
  if (added !== '' && removed.some(tells)) return { kind: 'tokens', tokens: removed, text: added };
  const tokens = tokensOf(before);
  const left = tokens.filter(({ end }) => end <= start);
  const right = tokens.filter(({ start: own }) => own >= endBefore);
  if (removed.length === 0) {
    if (right.length === 0) return undefined;
    const argument = argumentOf(left, right, after.slice(start, endAfter));
    if (argument !== undefined) return argument;
  }
  const [one, other] = [left.at(-1), right[0]];
  const neighbours = tells(other?.text) ? left.slice(-1) : telling(left);
  if (neighbours === undefined) return undefined;
  const from = one?.end ?? tokens[0]?.start ?? 0;
  const to = after.length - (before.length - (other?.start ?? before.length));
  return {
    kind: 'between',
    left: neighbours.map(({ text }) => text),
    tokens: removed,
    right: other?.text,
    text: after.slice(from, to),
  };
}

/** The last tokens, back to one that identifies the place; undefined if none is near. */
function telling(tokens: readonly Token[]): readonly Token[] | undefined {
  const at = tokens.findLastIndex(({ text }) => tells(text));
  return at < 0 || at < tokens.length - nearTokens ? undefined : tokens.slice(at);
}

/** The shortest replaced range, extended to whole words. */
export function changeOf(before: string, after: string): { start: number; endBefore: number; endAfter: number } {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start += 1;
  let tail = 0;
  while (tail < shorter - start && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const splits = (text: string, at: number) => word.test(text[at - 1] ?? '') && word.test(text[at] ?? '');
  while (start > 0 && (splits(before, start) || splits(after, start))) start -= 1;
  while (tail > 0 && (splits(before, before.length - tail) || splits(after, after.length - tail))) tail -= 1;
  return { start, endBefore: before.length - tail, endAfter: after.length - tail };
}

function argumentOf(left: readonly Token[], right: readonly Token[], text: string): EditPattern | undefined {
  const open = openBracket(left);
  const callee = left[open - 1]?.text;
  if (callee === undefined || !tells(callee)) return undefined;
  const first = open === left.length - 1;
  const last = right[0]?.text === ')';
  if (!first && !last) return undefined;
  return { kind: 'argument', callee, at: last ? 'last' : 'first', alone: first && last, text };
}

/** Index of the unclosed bracket; -1 if there is none. */
function openBracket(tokens: readonly Token[]): number {
  let closed = 0;
  for (let i = tokens.length - 1; i >= 0; i--) {
    const text = tokens[i]?.text;
    if (text === ')') closed += 1;
    if (text === '(' && closed-- === 0) return i;
  }
  return -1;
}

/** Places in file order; `except` is the edited line. */
export function placesOf(pattern: EditPattern, lines: readonly string[], except: number): Place[] {
  const needed = neededWord(pattern);
  return lines.flatMap((line, at) => {
    if (at === except || !line.includes(needed)) return [];
    return inLine(pattern, line).map((place) => ({ line: at, ...place }));
  });
}

function neededWord(pattern: EditPattern): string {
  if (pattern.kind === 'argument') return pattern.callee;
  const words = pattern.kind === 'tokens' ? pattern.tokens : [...pattern.left, ...pattern.tokens, pattern.right];
  return words.find(tells) ?? '';
}

function inLine(pattern: EditPattern, line: string): Omit<Place, 'line'>[] {
  const tokens = tokensOf(line);
  switch (pattern.kind) {
    case 'tokens':
      return tokens.flatMap((first, i) => {
        const last = tokens[i + pattern.tokens.length - 1];
        const here = last && pattern.tokens.every((text, j) => tokens[i + j]?.text === text);
        return here ? [{ start: first.start, end: last.end, text: pattern.text }] : [];
      });
    case 'between':
      // From before the first token to after the last.
      return Array.from({ length: tokens.length + 1 }, (_, i) => between(pattern, line, tokens, i)).flat();
    case 'argument':
      return tokens.flatMap((_, i) => argumentAt(pattern, line, tokens, i));
  }
}

function between(
  { left, tokens: wanted, right, text }: Extract<EditPattern, { kind: 'between' }>,
  line: string,
  tokens: readonly Token[],
  i: number,
): Omit<Place, 'line'>[] {
  const first = i - left.length;
  const other = tokens[i + wanted.length];
  if (first < 0 || (left.length === 0 && i > 0) || other?.text !== right) return [];
  if (![...left, ...wanted].every((own, j) => tokens[first + j]?.text === own)) return [];
  const start = tokens[i - 1]?.end ?? tokens[0]?.start ?? 0;
  return [{ start, end: other?.start ?? line.length, text }];
}

function argumentAt(
  { callee, at, alone, text }: Extract<EditPattern, { kind: 'argument' }>,
  line: string,
  tokens: readonly Token[],
  i: number,
): Omit<Place, 'line'>[] {
  const [own, open] = [tokens[i], tokens[i + 1]];
  if (own?.text !== callee || open?.text !== '(') return [];
  const close = closeOf(tokens, i + 1);
  if (close === undefined) return [];
  const given = line.slice(open.end, close.start).trim();
  const column = at === 'first' ? open.end : close.start;
  const there = at === 'first' ? given.startsWith(text.trim()) : given.endsWith(text.trim());
  return (given === '') === alone && !there ? [{ start: column, end: column, text }] : [];
}

function closeOf(tokens: readonly Token[], open: number): Token | undefined {
  let depth = 0;
  for (const token of tokens.slice(open)) {
    if (token.text === '(') depth += 1;
    if (token.text === ')' && --depth === 0) return token;
  }
  return undefined;
}

/** The first place below the line, otherwise the first in the file. */
export const nextPlace = (places: readonly Place[], line: number): Place | undefined =>
  places.find((place) => place.line > line) ?? places[0];

// Lines that resemble an edited one. The model is asked whether and how they change too.

/** Lines above and below the edited one that are compared. */
const nearLines = 400;
/** Below this, two lines share little more than their brackets. */
const leastLikeness = 0.3;

/** At most `count` lines, the most alike first, then the nearest below. `before`: the edited line as it was. */
export function linesLike(before: string, lines: readonly string[], edited: number, count: number): number[] {
  const wanted = wordsIn(before);
  const from = Math.max(0, edited - nearLines);
  const found = lines.slice(from, edited + nearLines).flatMap((text, i) => {
    const line = from + i;
    const likeness = line === edited || text === lines[edited] ? 0 : likenessOf(wanted, wordsIn(text));
    const distance = line > edited ? line - edited : nearLines + edited - line;
    return likeness >= leastLikeness ? [{ line, likeness, distance }] : [];
  });
  found.sort((a, b) => b.likeness - a.likeness || a.distance - b.distance);
  return found.slice(0, count).map(({ line }) => line);
}

const wordsIn = (line: string): Set<string> => new Set(tokensOf(line).map(({ text }) => text));

/** Jaccard index; 0 if no name is shared. */
function likenessOf(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const shared = [...a].filter((word) => b.has(word));
  return shared.some(tells) ? shared.length / (a.size + b.size - shared.length) : 0;
}
