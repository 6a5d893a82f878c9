/** Lines as they were and as they would be, one text in the editor, until the user decides. Pure. */
import { diffArrays } from 'diff';
import { indentOf } from './placement.ts';

export type LineKind = 'same' | 'removed' | 'added';

export interface MixedLine {
  readonly kind: LineKind;
  readonly text: string;
}

/**
 * @param after as far as it is written. Until it is `done`, the last change takes away only as many lines as it brings:
 * the others may still come.
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

/** The text after the user has decided about some lines: what they did not want is gone, the rest stays as it is. */
export function decided(lines: readonly MixedLine[], { start, end }: MixedHunk, decision: 'accept' | 'reject') {
  const unwanted = decision === 'accept' ? 'removed' : 'added';
  return lines.flatMap((line, index): MixedLine[] => {
    if (index < start || index >= end) return [line];
    return line.kind === unwanted ? [] : [{ kind: 'same', text: line.text }];
  });
}

/** After the user's own edit of `removed` lines from `start`, in whose place `added` are. They are what the user wants. */
export function edited(lines: readonly MixedLine[], start: number, removed: number, added: readonly string[]) {
  const kind: LineKind = lines[start]?.kind === 'same' ? 'same' : 'added';
  return [...lines.slice(0, start), ...added.map((text) => ({ kind, text })), ...lines.slice(start + removed)];
}

/**
 * The code of an answer as far as it is written: its first fenced block, or an answer without one whole. Undefined: none yet.
 * The last line counts once it is finished.
 */
export function codeOf(answer: string, done: boolean): string[] | undefined {
  const fence = /^[ \t]*(`{3,}|~{3,})[^\n]*\n/m.exec(answer);
  if (fence === null) return done && answer.trim() !== '' ? answer.trim().split(/\r?\n/) : undefined;
  const lines = answer.slice(fence.index + fence[0].length).split(/\r?\n/);
  const end = lines.findIndex((line) => line.trim() === fence[1]);
  if (end >= 0) return lines.slice(0, end);
  return done ? lines : lines.slice(0, -1);
}

/** Small models forget the indentation of what they are shown: the first line's is put back before all. */
export function reindented(code: readonly string[], before: readonly string[]): string[] {
  const [own, wanted] = [indentOf(code), indentOf(before)];
  if (own === wanted || !wanted.startsWith(own)) return [...code];
  const missing = wanted.slice(own.length);
  return code.map((line) => (line.trim() === '' ? line : missing + line));
}
