import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { RepetitionWatch } from '../../../engine/tasks/generate.ts';

/** Characters after which the watch says so; undefined: it does not. Pieces are as long as tokens are. */
function stoppedAfter(text: string): number | undefined {
  const watch = new RepetitionWatch();
  for (let at = 0; at < text.length; at += 4) if (watch.push(text.slice(at, at + 4))) return at + 4;
  return undefined;
}
const start = 'The function adds two numbers, and returns what they are together.\n';
const times = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, i) => line(i)).join('');

describe('a text that repeats in a cycle', () => {
  it.each([
    ['a character', '!'],
    ['a sentence', 'The file is then read by the function that reads the file. '],
    ['a list item', '- It is a function that is used to read the data.\n'],
    ['a line of code', '    if x == 0: return 0\n'],
    ['a paragraph', `${times(12, (i) => `Sentence ${i} says another thing than the others.`)}\n\n`],
  ])('is noticed within a few thousand characters: %s', (_, cycle) => {
    const at = stoppedAfter(start + cycle.repeat(Math.ceil(20_000 / cycle.length)));
    expect(at).toBeLessThan(start.length + Math.max(2_000, cycle.length * 6) + 2 * 512);
  });

  it.each([
    ['a table', times(300, (i) => `| row ${i} | yes | no | ${'-'.repeat(20)} |\n`)],
    ['a rule of dashes', `${'-'.repeat(1_500)}\nand then more text\n`.repeat(2)],
    [
      'equal lines of code',
      `${'  expect(next()).toBe(0);\n'.repeat(40)}}\n${'  0, 0, 0, 0, 0, 0, 0, 0,\n'.repeat(32)}`,
    ],
    ['a long list', times(2_000, (i) => `- item ${i}\n`)],
    ['base64', `${randomBytes(20_000).toString('base64')}${'A'.repeat(1_000)}==`],
    ['numbers that are counted', times(3_000, (i) => `${i}, `)],
    ['a verse that comes back', `${times(40, (i) => `Line ${i} of the verse.\n`)}La la la.\n`.repeat(3)],
  ])('is not: %s', (_, text) => expect(stoppedAfter(start + text)).toBeUndefined());

  it("is not found in this repository's own files", () => {
    for (const path of [
      'README.md',
      'ARCHITECTURE.md',
      'package.json',
      'package-lock.json',
      'engine/catalogue/catalogueData.ts',
    ])
      expect([path, stoppedAfter(readFileSync(path, 'utf8'))]).toEqual([path, undefined]);
  });
});
