/** The smallest edits that turn one text into another, so that breakpoints, folds and cursors around them stay. Pure. */
import { diffArrays } from 'diff';
import { indentOf, type LineRange } from './placement.ts';

/** Replaces `removed` lines from `start` (from 0) with `added`. */
export interface Hunk {
  readonly start: number;
  readonly removed: number;
  readonly added: readonly string[];
  /** Where `added` is in the new text. */
  readonly newStart: number;
}

/** An edit in editor coordinates: from one character to another, end exclusive. */
export interface Edit {
  readonly start: Point;
  readonly end: Point;
  readonly text: string;
}

interface Point {
  readonly line: number;
  readonly character: number;
}

export const linesOf = (text: string): string[] => text.split(/\r?\n/);

/** Hunks in text order; line ends are ignored. */
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

/** @param lines the text before; `eol` is its line end. */
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

/** The hunk at a line, otherwise the next one, otherwise the last. `side`: which text has the line. */
export function hunkAt(all: readonly Hunk[], line: number, side: 'before' | 'after'): Hunk | undefined {
  const endOf = (hunk: Hunk) =>
    side === 'before' ? hunk.start + Math.max(1, hunk.removed) : hunk.newStart + Math.max(1, hunk.added.length);
  return all.find((hunk) => line < endOf(hunk)) ?? all.at(-1);
}

/** The text with some of its hunks applied. */
export function withHunks(text: string, wanted: readonly Hunk[]): string {
  const eol = text.includes('\r\n') ? '\r\n' : '\n';
  return wanted
    .reduceRight((lines, { start, removed, added }) => lines.toSpliced(start, removed, ...added), linesOf(text))
    .join(eol);
}

/** Where lines of the text before are in the text after. */
export function moved<T extends LineRange>(range: T, all: readonly Hunk[]): T {
  const shift = (before: readonly Hunk[]): number =>
    before.reduce((sum, { added, removed }) => sum + added.length - removed, 0);
  const start = range.start + shift(all.filter((hunk) => hunk.start + hunk.removed <= range.start));
  return { ...range, start, end: Math.max(start, range.end + shift(all.filter((hunk) => hunk.start <= range.end))) };
}

/** Numbers of lines that a change adds and removes. `undefined`: no file. */
export function countsOf(before: string | undefined, after: string | undefined): { added: number; removed: number } {
  const count = (text: string) => (text === '' ? 0 : linesOf(text.replace(/\r?\n$/, '')).length);
  if (before === undefined || after === undefined) return { added: count(after ?? ''), removed: count(before ?? '') };
  const all = hunks(before, after);
  const sum = (of: (hunk: Hunk) => number) => all.reduce((total, hunk) => total + of(hunk), 0);
  return { added: sum(({ added }) => added.length), removed: sum(({ removed }) => removed) };
}

// Old and new lines together as one text in the editor, until the user decides. Pure.

type LineKind = 'same' | 'removed' | 'added';

export interface MixedLine {
  readonly kind: LineKind;
  readonly text: string;
}

/**
 * @param after the new text as far as it is written. Until it is `done`, the last change removes only as many lines as it adds:
 * more may follow.
 */
export function mix(before: readonly string[], after: readonly string[], done: boolean): MixedLine[] {
  const lines: MixedLine[] = [];
  const changes = diffArrays([...before], [...after]);
  const lastSame = changes.findLastIndex(({ added, removed }) => !added && !removed);
  const lastAdded = changes.slice(lastSame + 1).reduce((sum, { added, value }) => sum + (added ? value.length : 0), 0);
  let pending: MixedLine[] = [];
  for (const [index, { added, removed, value }] of changes.entries()) {
    const gone = removed && !done && index > lastSame ? lastAdded : value.length;
    const kind = added ? 'added' : removed ? 'removed' : 'same';
    lines.push(...value.slice(0, gone).map((text) => ({ kind, text }) as const));
    pending = [...pending, ...value.slice(gone).map((text) => ({ kind: 'same', text }) as const)];
  }
  return [...lines, ...pending];
}

/** Consecutive lines that changed; indexes into the mixed text, end exclusive. */
export interface MixedHunk {
  readonly start: number;
  readonly end: number;
}

export function mixedHunks(lines: readonly MixedLine[]): MixedHunk[] {
  const found: MixedHunk[] = [];
  for (const [index, { kind }] of lines.entries()) {
    const last = found.at(-1);
    if (kind === 'same') continue;
    if (last?.end === index) found[found.length - 1] = { start: last.start, end: index + 1 };
    else found.push({ start: index, end: index + 1 });
  }
  return found;
}

/** The text after the user's decision about some lines: rejected lines are removed, the rest stays unchanged. */
export function decided(lines: readonly MixedLine[], { start, end }: MixedHunk, decision: 'accept' | 'reject') {
  const unwanted = decision === 'accept' ? 'removed' : 'added';
  return lines.flatMap((line, index): MixedLine[] => {
    if (index < start || index >= end) return [line];
    return line.kind === unwanted ? [] : [{ kind: 'same', text: line.text }];
  });
}

/** After the user's own edit, which replaced `removed` lines from `start` with `added`. These lines count as decided. */
export function edited(lines: readonly MixedLine[], start: number, removed: number, added: readonly string[]) {
  const kind: LineKind = lines[start]?.kind === 'same' ? 'same' : 'added';
  return [...lines.slice(0, start), ...added.map((text) => ({ kind, text })), ...lines.slice(start + removed)];
}

/**
 * The code of an answer as far as it is written: its first fenced block, or the whole answer if it has none. Undefined: none
 * yet. The last line counts once it is finished.
 */
export function codeOf(answer: string, done: boolean): string[] | undefined {
  const fence = /^[ \t]*(`{3,}|~{3,})[^\n]*\n/m.exec(answer);
  if (fence === null) return done && answer.trim() !== '' ? answer.trim().split(/\r?\n/) : undefined;
  const lines = answer.slice(fence.index + fence[0].length).split(/\r?\n/);
  const end = lines.findIndex((line) => line.trim() === fence[1]);
  if (end >= 0) return lines.slice(0, end);
  return done ? lines : lines.slice(0, -1);
}

/** Adds the original first line's indentation to all lines, because small models drop it. */
export function reindented(code: readonly string[], before: readonly string[]): string[] {
  const [own, wanted] = [indentOf(code), indentOf(before)];
  if (own === wanted || !wanted.startsWith(own)) return [...code];
  const missing = wanted.slice(own.length);
  return code.map((line) => (line.trim() === '' ? line : missing + line));
}
