/** A unified diff as lines that can be named one by one. Pure. */
import { limits } from '../limits.ts';

export interface DiffLine {
  readonly kind: 'same' | 'added' | 'removed';
  readonly text: string;
  /** Its number in the new file, from 1; of a removed line, the number of the line that follows it there. */
  readonly line: number;
  /** Names a changed line in its file: its number, negative that of the old file if it was removed. 0: not changed. */
  readonly label: number;
}

export interface FileDiff {
  /** Of the new file, from the repository's root. */
  readonly path: string;
  readonly hunks: readonly (readonly DiffLine[])[];
}

/** Files that still exist, with their changed lines. Files without lines (binary, renamed only) are left out. */
export function parseDiff(diff: string): FileDiff[] {
  const lines = diff.split('\n');
  const files: { path: string; hunks: DiffLine[][] }[] = [];
  let oldPrefix = '';
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? '';
    if (line.startsWith('diff --git ')) oldPrefix = /^diff --git "?(\w\/)/.exec(line)?.[1] ?? '';
    else if (line.startsWith('+++ ')) files.push({ path: pathOf(line.slice(4), oldPrefix), hunks: [] });
    const header = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(line);
    const file = files.at(-1);
    if (header === null || file === undefined) continue;
    const [, oldLine = '', oldCount = '1', newLine = '', newCount = '1'] = header;
    const left = { old: Number(oldCount), new: Number(newCount) };
    const hunk = hunkOf(lines, at + 1, { old: Number(oldLine), new: Number(newLine) }, left);
    file.hunks.push(hunk.lines);
    at = hunk.end - 1;
  }
  return files.filter(({ path, hunks }) => path !== '' && hunks.length > 0);
}

/** Lines are counted, since the text of a removed one may look like a header. */
function hunkOf(
  lines: readonly string[],
  start: number,
  number: { old: number; new: number },
  left: { old: number; new: number },
): { lines: DiffLine[]; end: number } {
  const found: DiffLine[] = [];
  let at = start;
  for (; at < lines.length && (left.old > 0 || left.new > 0); at++) {
    const line = lines[at] ?? '';
    const text = line.slice(1).replace(/\r$/, '');
    if (line.startsWith('\\')) continue;
    if (line.startsWith('+')) found.push({ kind: 'added', text, line: number.new, label: number.new });
    else if (line.startsWith('-')) found.push({ kind: 'removed', text, line: number.new, label: -number.old });
    else found.push({ kind: 'same', text, line: number.new, label: 0 });
    if (!line.startsWith('-')) [number.new, left.new] = [number.new + 1, left.new - 1];
    if (!line.startsWith('+')) [number.old, left.old] = [number.old + 1, left.old - 1];
  }
  return { lines: found, end: at };
}

/**
 * Without git's prefix. Settings of git may change it (`a/`, `b/`; `i/`, `w/`) or leave it out; old and new paths never
 * have the same one. '' for a deleted file.
 */
function pathOf(written: string, oldPrefix: string): string {
  const path = unquoted(written.replace(/[\t\r]+$/, ''));
  if (path === '/dev/null') return '';
  const prefix = /^\w\//.exec(path)?.[0];
  return prefix !== undefined && oldPrefix !== '' && prefix !== oldPrefix ? path.slice(prefix.length) : path;
}

/** Git quotes paths as C strings, bytes beyond ASCII in octal. */
function unquoted(path: string): string {
  if (!path.startsWith('"') || !path.endsWith('"')) return path;
  const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' };
  const bytes = path
    .slice(1, -1)
    .replaceAll(/\\(?:([0-7]{3})|(.))/g, (_, octal?: string, char = '') =>
      octal === undefined ? (escapes[char] ?? char) : String.fromCharCode(Number.parseInt(octal, 8)),
    );
  return Buffer.from(bytes, /[\u0100-\uffff]/.test(bytes) ? 'utf8' : 'latin1').toString('utf8');
}

/** What the model reads at once. */
export interface ReviewPart {
  readonly path: string;
  readonly lines: readonly DiffLine[];
}

const isChanged = ({ kind }: DiffLine): boolean => kind !== 'same';

/** The lines as the model reads them: changed ones begin with their name. */
export const shownLine = ({ kind, text, label }: DiffLine): string => {
  const { lineChars } = limits.review;
  const shown = text.length > lineChars ? `${text.slice(0, lineChars)}…` : text;
  const sign = { same: ' ', added: '+', removed: '-' }[kind];
  return `${label === 0 ? '' : label}\t${sign}${shown}`;
};

/** File by file, and hunk by hunk where a file does not fit; a hunk that is larger still is cut between lines. */
export function partsOf(
  files: readonly FileDiff[],
  budgetTokens: number,
  tokensOf: (text: string) => number,
): ReviewPart[] {
  const sizeOf = (lines: readonly DiffLine[]): number => tokensOf(lines.map(shownLine).join('\n'));
  const parts = files.flatMap(({ path, hunks }) => {
    const groups: DiffLine[][] = [];
    let room = 0;
    for (const piece of hunks.flatMap((hunk) => cut(hunk, budgetTokens, sizeOf))) {
      const size = sizeOf(piece);
      const last = groups.at(-1);
      if (last !== undefined && size <= room) last.push(...piece);
      else groups.push([...piece]);
      room = (last !== undefined && size <= room ? room : budgetTokens) - size;
    }
    return groups.map((lines) => ({ path, lines }));
  });
  return parts.filter(({ lines }) => lines.some(isChanged));
}

function cut(
  hunk: readonly DiffLine[],
  budget: number,
  sizeOf: (lines: readonly DiffLine[]) => number,
): (readonly DiffLine[])[] {
  if (sizeOf(hunk) <= budget || hunk.length < 2) return [hunk];
  const middle = Math.ceil(hunk.length / 2);
  return [...cut(hunk.slice(0, middle), budget, sizeOf), ...cut(hunk.slice(middle), budget, sizeOf)];
}
