import { describe, expect, it } from 'vitest';
import { sectionsOf } from '../../../engine/tasks/sections.ts';

/** One token a word or line break. */
const countWords = (text: string): number =>
  text.split(/\s+/).filter(Boolean).length + (text.match(/\n/g)?.length ?? 0);
const lines = (...all: string[]): string => all.join('\n');

describe('sections of a long file', () => {
  it('are one when it fits', () => {
    expect(sectionsOf('a\nb\n', [], countWords, 10)).toEqual([{ startLine: 1, endLine: 3, names: [], text: 'a\nb\n' }]);
  });

  it('are the whole text in order, with consecutive line numbers, for any text', () => {
    const text = Array.from({ length: 300 }, (_, i) => `${' '.repeat((i * 7) % 5)}word${i} `.repeat(i % 9)).join('\n');
    const sections = sectionsOf(text, [], countWords, 40);
    expect(sections.map((section) => section.text).join('')).toBe(text);
    expect(sections[0]?.startLine).toBe(1);
    expect(sections.at(-1)?.endLine).toBe(300);
    for (const [i, { startLine }] of sections.entries()) {
      if (i > 0) expect(startLine).toBe((sections[i - 1]?.endLine ?? 0) + 1);
    }
    for (const section of sections) expect(countWords(section.text)).toBeLessThanOrEqual(40);
  });

  it('begin where symbols begin, and name them', () => {
    const text = lines('def a():', '  1', '  2', 'def b():', '  3', '', '  4', 'def c():', '  5');
    const symbols = [
      { name: 'a', startLine: 0, endLine: 2 },
      { name: 'b', startLine: 3, endLine: 6 },
      { name: 'c', startLine: 7, endLine: 8 },
    ];
    const sections = sectionsOf(text, symbols, countWords, 10);
    expect(sections.map(({ startLine, endLine, names }) => ({ startLine, endLine, names }))).toEqual([
      { startLine: 1, endLine: 3, names: ['a'] },
      { startLine: 4, endLine: 7, names: ['b'] },
      { startLine: 8, endLine: 9, names: ['c'] },
    ]);
  });

  it('begin after an empty line in an unknown language', () => {
    const text = lines('a {', '  1', '}', '', 'b {', '  2', '', '  3', '}', 'c');
    expect(sectionsOf(text, [], countWords, 11).map(({ startLine }) => startLine)).toEqual([1, 5]);
  });

  it('cut a single line that is too long, and not inside a character', () => {
    const text = '😀'.repeat(1000);
    const countUnits = (part: string): number => part.length;
    const sections = sectionsOf(text, [], countUnits, 33);
    expect(sections.map((section) => section.text).join('')).toBe(text);
    for (const section of sections) {
      expect(section.text.length).toBeLessThanOrEqual(33);
      expect(section.text.length % 2).toBe(0);
      expect(section).toMatchObject({ startLine: 1, endLine: 1 });
    }
  });

  it('do not count a huge line as a whole', () => {
    let longest = 0;
    const count = (part: string): number => {
      longest = Math.max(longest, part.length);
      return part.length / 4;
    };
    sectionsOf('x'.repeat(1_000_000), [], count, 100);
    expect(longest).toBeLessThanOrEqual(6400);
  });
});
