/** The smallest edits that turn one text into another, so that breakpoints, folds and cursors around them stay. Pure. */
import { diffArrays } from 'diff';

/** Lines from 0; in the place of `removed` lines from `start` come `added`. */
export interface Hunk {
  readonly start: number;
  readonly removed: number;
  readonly added: readonly string[];
  /** Where `added` is in the new text. */
  readonly newStart: number;
}

/** An edit as editors take it: from one character to another, end exclusive. */
export interface Edit {
  readonly start: Point;
  readonly end: Point;
  readonly text: string;
}

export interface Point {
  readonly line: number;
  readonly character: number;
}

export const linesOf = (text: string): string[] => text.split(/\r?\n/);

/** In the order of the text; line ends do not count. */
export function hunks(before: string, after: string): Hunk[] {
  const found: Hunk[] = [];
  let [start, newStart, removed] = [0, 0, 0];
  let added: string[] = [];
  const close = () => {
    if (removed > 0 || added.length > 0) found.push({ start, removed, added, newStart });
    [start, newStart, removed, added] = [start + removed, newStart + added.length, 0, []];
  };
  for (const change of diffArrays(linesOf(before), linesOf(after))) {
    if (change.removed) removed += change.value.length;
    else if (change.added) added = [...added, ...change.value];
    else {
      close();
      start += change.value.length;
      newStart += change.value.length;
    }
  }
  close();
  return found;
}

/** @param lines of the text before; `eol` is its line end. */
export function editOf({ start, removed, added }: Hunk, lines: readonly string[], eol: string): Edit {
  const end = start + removed;
  if (end < lines.length) {
    const text = added.map((line) => line + eol).join('');
    return { start: { line: start, character: 0 }, end: { line: end, character: 0 }, text };
  }
  const last = { line: lines.length - 1, character: (lines.at(-1) ?? '').length };
  if (start === 0) return { start: { line: 0, character: 0 }, end: last, text: added.join(eol) };
  const before = { line: start - 1, character: (lines[start - 1] ?? '').length };
  return { start: before, end: last, text: added.map((line) => eol + line).join('') };
}

/** The hunk at a line, else the next one, else the last. `side`: which text the line is of. */
export function hunkAt(all: readonly Hunk[], line: number, side: 'before' | 'after'): Hunk | undefined {
  const endOf = (hunk: Hunk) =>
    side === 'before' ? hunk.start + Math.max(1, hunk.removed) : hunk.newStart + Math.max(1, hunk.added.length);
  return all.find((hunk) => line < endOf(hunk)) ?? all.at(-1);
}
