/** A unified diff as lines that can be named one by one, and where such a line is in a document. Pure. */
import type * as vscode from 'vscode';
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

// Where a line of a diff is in a document, and where it goes when that is edited. Lines count from 0.

/** A line with its neighbours, as the diff has them. */
export interface Anchor {
  readonly before: readonly string[];
  readonly text: string;
  readonly after: readonly string[];
  /** Its line in the diff's new file. */
  readonly line: number;
}

const neighbours = 3;

/** A removed line is not in the document: the line that follows it there stands for it, or else the one before. */
export function anchorOf(line: DiffLine, lines: readonly DiffLine[]): Anchor | undefined {
  const current = lines.filter(({ kind }) => kind !== 'removed');
  const found = current.findIndex((own) => own === line || (line.kind === 'removed' && own.line >= line.line));
  const at = found < 0 ? current.length - 1 : found;
  const own = current[at];
  if (own === undefined) return undefined;
  // Other hunks of a part are elsewhere.
  const textsOf = (from: number, to: number): string[] =>
    current.flatMap((each, i) =>
      i >= from && i < to && Math.abs(each.line - own.line) === Math.abs(i - at) ? [each.text] : [],
    );
  return {
    before: textsOf(at - neighbours, at),
    text: own.text,
    after: textsOf(at + 1, at + 1 + neighbours),
    line: own.line - 1,
  };
}

/** The line with the same text and most of the same neighbours, the nearest of several; undefined if it is gone. */
export function locate(anchor: Anchor, lines: readonly string[], near = anchor.line): number | undefined {
  const found = lines.flatMap((text, at) =>
    text === anchor.text ? [{ at, score: agreement(anchor, lines, at) }] : [],
  );
  const [best] = found.sort((a, b) => b.score - a.score || Math.abs(a.at - near) - Math.abs(b.at - near));
  // Other lines have the same text by chance.
  const alone = found.length === 1 && /\w{3}/.test(anchor.text);
  return best !== undefined && (best.score > 0 || alone) ? best.at : undefined;
}

function agreement({ before, after }: Anchor, lines: readonly string[], at: number): number {
  const above = before.filter((text, i) => lines[at - before.length + i] === text);
  const below = after.filter((text, i) => lines[at + 1 + i] === text);
  return above.length + below.length;
}

type Change = Pick<vscode.TextDocumentContentChangeEvent, 'range' | 'text'>;

/** Where a line is after an edit of its document; undefined if the edit took it. */
export function moved(line: number, { range: { start, end }, text }: Change): number | undefined {
  const added = text.split('\n').length - 1;
  const isAbove = end.line < line || (end.line === line && end.character === 0);
  if (isAbove) return line + added - (end.line - start.line);
  if (start.line > line) return line;
  const isTaken = (start.line < line || start.character === 0) && end.line > line;
  if (isTaken) return undefined;
  return start.line === line ? line : start.line + added;
}
