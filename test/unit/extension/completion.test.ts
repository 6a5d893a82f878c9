import { describe, expect, it } from 'vitest';
import { joined, type Moment, momentAt, worthAsking } from '../../../extension/completion/moment.ts';
import { AdaptiveDebounce, CompletionCache } from '../../../extension/completion/suggestions.ts';
import { limits } from '../../../extension/limits.ts';
import { Position } from './vscode.ts';

/** A document around `|`, the cursor. */
function moment(text: string, languageId = 'typescript'): Moment {
  const at = text.indexOf('|');
  const before = text.slice(0, at).split('\n');
  const lines = (text.slice(0, at) + text.slice(at + 1)).split('\n');
  const position = new Position(before.length - 1, before.at(-1)?.length ?? 0);
  return momentAt(documentOf(lines, languageId), position);
}

const documentOf = (lines: string[], languageId = 'typescript') => ({
  languageId,
  lineCount: lines.length,
  lineAt: (line: number) => ({ text: lines[line] ?? '' }),
});

it('sees the other cells of a notebook', () => {
  const cells = [['import os'], ['a = 1', 'b = '], ['print(b)']].map((lines) => documentOf(lines, 'python'));
  const [, own] = cells;
  if (own === undefined) throw new Error('there are three cells');
  const { document, firstLine } = joined(cells, own);
  const { prefix, suffix } = momentAt(document, new Position(firstLine + 1, 4));
  expect([prefix, suffix]).toEqual(['import os\n\na = 1\nb = ', '\n\nprint(b)']);
});

describe("the cursor's position", () => {
  it('has the text before and after it, and its line', () => {
    expect(moment('a\nconst x = |;\nb')).toEqual({
      languageId: 'typescript',
      prefix: 'a\nconst x = ',
      suffix: ';\nb',
      linePrefix: 'const x = ',
      lineSuffix: ';',
    });
  });

  it('has a prefix that starts at the same line while the user types, so the cached prompt stays usable', () => {
    const lines = Array.from({ length: 1000 }, (_, index) => `line ${index}`);
    const start = (line: number) => momentAt(documentOf(lines), new Position(line, 0)).prefix.split('\n')[0];
    expect(start(10)).toBe('line 0');
    const starts = new Set(Array.from({ length: 64 }, (_, step) => start(705 + step)));
    expect(starts.size).toBe(1);
    const used = momentAt(documentOf(lines), new Position(999, 0)).prefix.split('\n').length;
    expect(used).toBeGreaterThan(limits.completion.prefixLines - limits.completion.anchorLines);
    expect(used).toBeLessThanOrEqual(limits.completion.prefixLines + 1);
  });

  it('keeps the imports of a long file', () => {
    const lines = ["import { a } from './a';", ...Array.from({ length: 3000 }, (_, index) => `line ${index}`)];
    const { prefix } = momentAt(documentOf(lines), new Position(2900, 0));
    expect(prefix.split('\n').slice(0, 2)).toEqual([lines[0], expect.stringMatching(/^line 19\d\d$/)]);
  });

  it('is limited in characters too, for one-line files', () => {
    const long = momentAt(documentOf(['x'.repeat(1_000_000)]), new Position(0, 500_000));
    expect(long.prefix.length).toBeLessThanOrEqual(limits.completion.prefixChars);
    expect(long.prefix.length).toBeGreaterThan(limits.completion.prefixChars / 2);
    expect(long.suffix).toHaveLength(limits.completion.suffixChars);
  });

  it('never splits a surrogate pair', () => {
    const faces = '😀'.repeat(limits.completion.suffixChars);
    for (const lead of ['', 'x']) {
      const { prefix, suffix } = momentAt(documentOf([faces + lead + faces]), new Position(0, faces.length));
      expect([prefix.isWellFormed(), suffix.isWellFormed()]).toEqual([true, true]);
    }
  });

  it("treats the suggestion widget's selected item as typed", () => {
    const found = momentAt(documentOf(['foo.le']), new Position(0, 6), { text: 'length', startCharacter: 4 });
    expect(found.prefix).toBe('foo.length');
  });
});

describe('the decision to request a suggestion', () => {
  it.each([
    ['at the end of a line', 'const x = |'],
    ['before closing brackets and quotes', 'call(a, |);'],
    ['on an indented blank line', 'function f() {\n  |\n}'],
    ['below a comment', '// sums the list\n|'],
    ['in a comment that follows code', 'const x = 1;\n// this is |'],
    ['after an #include', '#include <stdio.h>\n|'],
  ])('yes: %s', (_, text) => {
    expect(worthAsking(moment(text), false)).toBe(true);
  });

  it.each([
    ['in the middle of a word', 'const le|ngth = 1;'],
    ['before more text, by a model that cannot fill gaps', 'const | = compute();'],
    ['in an empty file', '|'],
    ['among blank lines only', '\n\n  |\n'],
  ])('no: %s', (_, text) => {
    expect(worthAsking(moment(text), false)).toBe(false);
  });

  it('yes before more text on the line, if the model can fill in the middle', () => {
    expect(worthAsking(moment('const | = compute();'), true)).toBe(true);
  });
});

describe('the cache of suggestions', () => {
  const place = (prefix: string, suffix = '') => ({ document: 'd', prefix, suffix });

  const whole = (...texts: string[]) => texts.map((text) => ({ text, replaces: 0 }));

  it('hits at the same position', () => {
    const cache = new CompletionCache();
    cache.put(place('const x = '), ['compute(a);', 'run();']);
    expect(cache.get(place('const x = '))).toEqual(whole('compute(a);', 'run();'));
  });

  it('returns the rest while the user types along a suggestion', () => {
    const cache = new CompletionCache();
    cache.put(place('const x = '), ['compute(a);', 'count;']);
    expect(cache.get(place('const x = co'))).toEqual(whole('mpute(a);', 'unt;'));
    expect(cache.get(place('const x = com'))).toEqual(whole('pute(a);'));
    expect(cache.get(place('const x = con'))).toBeUndefined();
  });

  it('hits across a bracket that the editor closes automatically', () => {
    const cache = new CompletionCache();
    cache.put(place('x = ', ';\n'), ['compute(a)']);
    expect(cache.get(place('x = compute(', ');\n'))).toEqual([{ text: 'a)', replaces: 1 }]);
    cache.put(place('y = ', ')'), ['f([b], c)']);
    expect(cache.get(place('y = f([', ']))'))).toEqual([{ text: 'b], c)', replaces: 2 }]);
  });

  it('misses for another suffix, another document, or once all is typed', () => {
    const cache = new CompletionCache();
    cache.put(place('x = ', ';'), ['y']);
    expect(cache.get(place('x = ', ''))).toBeUndefined();
    expect(cache.get({ ...place('x = ', ';'), document: 'e' })).toBeUndefined();
    expect(cache.get(place('x = y', ';'))).toBeUndefined();
  });

  it('caches an empty result', () => {
    const cache = new CompletionCache();
    cache.put(place('x'), []);
    expect(cache.get(place('x'))).toEqual([]);
  });

  it('evicts the least recently used entry', () => {
    const cache = new CompletionCache();
    for (let index = 0; index < limits.completion.cacheEntries; index++) cache.put(place(`p${index}\n`), ['t']);
    cache.get(place('p0\n'));
    cache.put(place('one more'), ['t']);
    expect(cache.size).toBe(limits.completion.cacheEntries);
    expect(cache.get(place('p0\n'))).toBeDefined();
    expect(cache.get(place('p1\n'))).toBeUndefined();
  });

  it('keeps the newest entry for a position', () => {
    const cache = new CompletionCache();
    cache.put(place('x'), ['old']);
    cache.put(place('x'), ['new']);
    expect(cache.get(place('x'))).toEqual(whole('new'));
    expect(cache.size).toBe(1);
  });
});

describe('the debounce', () => {
  it("is the user's setting while answers are fast", () => {
    const debounce = new AdaptiveDebounce();
    expect(debounce.delayMs(50)).toBe(50);
    debounce.note(60);
    expect(debounce.delayMs(50)).toBe(50);
  });

  it('grows with slow answers, up to a limit, and shrinks again', () => {
    const debounce = new AdaptiveDebounce();
    debounce.note(800);
    expect(debounce.delayMs(50)).toBe(400);
    for (let index = 0; index < 20; index++) debounce.note(10_000);
    expect(debounce.delayMs(50)).toBe(limits.completion.debounceMs);
    for (let index = 0; index < 40; index++) debounce.note(40);
    expect(debounce.delayMs(50)).toBe(50);
  });

  it("is never below the user's setting", () => {
    const debounce = new AdaptiveDebounce();
    debounce.note(10_000);
    expect(debounce.delayMs(2_000)).toBe(2_000);
  });
});
