/** Parses a unified diff into labelled lines, and finds such a line in a document. Pure. */
import type * as vscode from 'vscode';
import { limits } from '../limits.ts';

export interface DiffLine {
  readonly kind: 'same' | 'added' | 'removed';
  readonly text: string;
  /** Line number in the new file, from 1; for a removed line, the number of the next line there. */
  readonly line: number;
  /** Label of a changed line: its line number; for a removed line, minus its number in the old file. 0: not changed. */
  readonly label: number;
}

export interface FileDiff {
  /** Path of the new file from the repository's root. */
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

/** Counts lines, because a removed line may look like a header. */
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
 * The path without git's prefix. Git's settings may change the prefix (`a/`, `b/`; `i/`, `w/`) or omit it; old and new path
 * never have the same one. '' for a deleted file.
 */
function pathOf(written: string, oldPrefix: string): string {
  const path = unquoted(written.replace(/[\t\r]+$/, ''));
  if (path === '/dev/null') return '';
  const prefix = /^\w\//.exec(path)?.[0];
  return prefix !== undefined && oldPrefix !== '' && prefix !== oldPrefix ? path.slice(prefix.length) : path;
}

/** Git quotes paths as C strings, with non-ASCII bytes in octal. */
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

/** The part of a diff in one prompt. */
export interface ReviewPart {
  readonly path: string;
  readonly lines: readonly DiffLine[];
}

const isChanged = ({ kind }: DiffLine): boolean => kind !== 'same';

/** A line as shown to the model: changed lines begin with their label. */
export const shownLine = ({ kind, text, label }: DiffLine): string => {
  const { lineChars } = limits.review;
  const shown = text.length > lineChars ? `${text.slice(0, lineChars)}…` : text;
  const sign = { same: ' ', added: '+', removed: '-' }[kind];
  return `${label === 0 ? '' : label}\t${sign}${shown}`;
};

/** Splits by file; a file that does not fit, by hunk; a hunk that does not fit, between lines. */
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

// Finds a diff's line in a document, and follows it through edits. Lines count from 0.

/** A line with its neighbours in the diff. */
export interface Anchor {
  readonly before: readonly string[];
  readonly text: string;
  readonly after: readonly string[];
  /** Its line in the diff's new file. */
  readonly line: number;
}

const neighbours = 3;

/** A removed line is not in the document, so the next line replaces it, or else the previous one. */
export function anchorOf(line: DiffLine, lines: readonly DiffLine[]): Anchor | undefined {
  const current = lines.filter(({ kind }) => kind !== 'removed');
  const found = current.findIndex((own) => own === line || (line.kind === 'removed' && own.line >= line.line));
  const at = found < 0 ? current.length - 1 : found;
  const own = current[at];
  if (own === undefined) return undefined;
  // Other hunks of the part are not adjacent.
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

/** The line with the same text and the most equal neighbours, the nearest if several; undefined if there is none. */
export function locate(anchor: Anchor, lines: readonly string[], near = anchor.line): number | undefined {
  const found = lines.flatMap((text, at) =>
    text === anchor.text ? [{ at, score: agreement(anchor, lines, at) }] : [],
  );
  const [best] = found.sort((a, b) => b.score - a.score || Math.abs(a.at - near) - Math.abs(b.at - near));
  // Short lines match by chance.
  const alone = found.length === 1 && /\w{3}/.test(anchor.text);
  return best !== undefined && (best.score > 0 || alone) ? best.at : undefined;
}

function agreement({ before, after }: Anchor, lines: readonly string[], at: number): number {
  const above = before.filter((text, i) => lines[at - before.length + i] === text);
  const below = after.filter((text, i) => lines[at + 1 + i] === text);
  return above.length + below.length;
}

type Change = Pick<vscode.TextDocumentContentChangeEvent, 'range' | 'text'>;

/** The line's position after an edit of its document; undefined if the edit removed it. */
export function moved(line: number, { range: { start, end }, text }: Change): number | undefined {
  const added = text.split('\n').length - 1;
  const isAbove = end.line < line || (end.line === line && end.character === 0);
  if (isAbove) return line + added - (end.line - start.line);
  if (start.line > line) return line;
  const isTaken = (start.line < line || start.character === 0) && end.line > line;
  if (isTaken) return undefined;
  return start.line === line ? line : start.line + added;
}
