import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import {
  codeOf,
  decided,
  edited,
  type MixedLine,
  mix,
  mixedHunks,
  reindented,
} from '../../../extension/edits/hunks.ts';

const marks = { same: ' ', removed: '-', added: '+' };
const shown = (lines: readonly MixedLine[]): string => lines.map(({ kind, text }) => marks[kind] + text).join('|');
const whole = { start: 0, end: Number.POSITIVE_INFINITY };

describe('old and new lines in one text', () => {
  it('show removed and added lines', () => {
    expect(shown(mix(['a', 'b', 'c'], ['a', 'x', 'y', 'c'], true))).toBe(' a|-b|+x|+y| c');
    expect(shown(mix(['a', 'b'], ['a'], true))).toBe(' a|-b');
    expect(shown(mix([''], ['new'], true))).toBe('-|+new');
  });

  it('keep the old lines that may still follow while the answer is written', () => {
    const before = ['a', 'b', 'c', 'd'];
    expect(shown(mix(before, [], false))).toBe(' a| b| c| d');
    expect(shown(mix(before, ['a'], false))).toBe(' a| b| c| d');
    expect(shown(mix(before, ['a', 'x'], false))).toBe(' a|-b|+x| c| d');
    expect(shown(mix(before, ['a', 'x', 'c'], false))).toBe(' a|-b|+x| c| d');
    expect(shown(mix(before, ['a', 'x', 'c'], true))).toBe(' a|-b|+x| c|-d');
  });

  it('become the new or the old text, as a whole and change by change', () => {
    const random = seededRandom(5);
    const text = (): string[] => Array.from({ length: 1 + random() * 12 }, () => 'abcde'.charAt(random() * 5));
    for (let i = 0; i < 2000; i++) {
      const [before, after] = [text(), text()];
      const lines = mix(before, after, true);
      const textOf = (of: readonly MixedLine[]) => of.map((line) => line.text);
      expect(textOf(decided(lines, whole, 'accept'))).toEqual(after);
      expect(textOf(decided(lines, whole, 'reject'))).toEqual(before);
      let [accepted, rejected] = [lines, lines];
      for (;;) {
        const [a] = mixedHunks(accepted);
        const [b] = mixedHunks(rejected);
        if (a === undefined || b === undefined) break;
        accepted = decided(accepted, a, 'accept');
        rejected = decided(rejected, b, 'reject');
      }
      expect([textOf(accepted), textOf(rejected)]).toEqual([after, before]);
      const streamed = mix(before, after, false);
      expect(textOf(decided(streamed, whole, 'reject'))).toEqual(before);
    }
  });

  it('keep what the user writes between them', () => {
    const lines = mix(['a', 'b', 'c'], ['a', 'x', 'c'], true);
    const after = edited(lines, 2, 1, ['x1', 'x2']);
    expect(shown(after)).toBe(' a|-b|+x1|+x2| c');
    expect(shown(decided(after, whole, 'accept'))).toBe(' a| x1| x2| c');
    expect(shown(edited(lines, 1, 1, ['B']))).toBe(' a|+B|+x| c');
  });
});

describe('the code of an answer', () => {
  it('is its first block, line by line while it is written', () => {
    expect(codeOf('Sure', false)).toBeUndefined();
    expect(codeOf('Sure:\n```py', false)).toBeUndefined();
    expect(codeOf('Sure:\n```py\nx = 1\ny', false)).toEqual(['x = 1']);
    expect(codeOf('```py\nx = 1\ny = 2\n```\nDone. ```z```', true)).toEqual(['x = 1', 'y = 2']);
    expect(codeOf('~~~\r\na\r\nb\r\n~~~', true)).toEqual(['a', 'b']);
    expect(codeOf('```\na', true)).toEqual(['a']);
  });

  it('is the whole answer if it has no block, once it is complete', () => {
    expect(codeOf('x = 1\n', true)).toEqual(['x = 1']);
    expect(codeOf('x = 1\n', false)).toBeUndefined();
    expect(codeOf('  ', true)).toBeUndefined();
  });

  it('ends at its own fence', () => {
    expect(codeOf('````md\n```js\n1\n```\n````\nx', true)).toEqual(['```js', '1', '```']);
  });

  it('is indented like the original if the model forgot it', () => {
    expect(reindented(['if x:', '    y()', ''], ['', '    if x:', '        z()'])).toEqual([
      '    if x:',
      '        y()',
      '',
    ]);
    expect(reindented(['\tx'], ['    x'])).toEqual(['\tx']);
    expect(reindented(['  x'], ['  y'])).toEqual(['  x']);
    expect(reindented([], ['  y'])).toEqual([]);
  });
});
