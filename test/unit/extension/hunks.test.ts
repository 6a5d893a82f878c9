import { describe, expect, it } from 'vitest';
import { type Edit, editOf, hunkAt, hunks, linesOf } from '../../../extension/edits/hunks.ts';

/** Applies edits as VS Code does: all ranges refer to the old text. */
function applied(text: string, edits: readonly Edit[]): string {
  const starts = [0];
  for (const line of text.split('\n').slice(0, -1)) starts.push((starts.at(-1) ?? 0) + line.length + 1);
  const at = ({ line, character }: Edit['start']) => (starts[line] ?? text.length) + character;
  return edits.reduceRight(
    (result, edit) => result.slice(0, at(edit.start)) + edit.text + result.slice(at(edit.end)),
    text,
  );
}
const edited = (before: string, after: string, eol: string) =>
  applied(
    before,
    hunks(before, after).map((hunk) => editOf(hunk, linesOf(before), eol)),
  );

describe('the edits of a change', () => {
  it('touch only the lines that differ', () => {
    const before = 'a\nb\nc\nd\ne';
    expect(hunks(before, 'a\nB\nc\nd\ne\nf')).toEqual([
      { start: 1, removed: 1, added: ['B'], newStart: 1 },
      { start: 5, removed: 0, added: ['f'], newStart: 5 },
    ]);
    expect(hunks(before, before)).toEqual([]);
  });

  it('turn the old text into the new one, also at both ends and from an empty text', () => {
    let seed = 7;
    const below = (count: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * count);
    };
    const text = () => Array.from({ length: below(7) }, () => 'ab'.charAt(below(2))).join('\n');
    for (let round = 0; round < 500; round += 1) {
      const [before, after] = [text(), text()];
      expect(edited(before, after, '\n')).toBe(after);
    }
    expect(edited('a\r\nb\r\n', 'a\r\nc\r\nd\r\n', '\r\n')).toBe('a\r\nc\r\nd\r\n');
  });

  it('are found by a line of either side', () => {
    const all = hunks('a\nb\nc\nd', 'x\ny\nb\nc\nD');
    expect(hunkAt(all, 1, 'after')?.start).toBe(0);
    expect(hunkAt(all, 1, 'before')?.start).toBe(3);
    expect(hunkAt(all, 9, 'after')?.start).toBe(3);
    expect(hunkAt([], 0, 'after')).toBeUndefined();
  });
});
