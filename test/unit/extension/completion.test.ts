import { describe, expect, it } from 'vitest';
import { AdaptiveDebounce, CompletionCache } from '../../../extension/completion/cache.ts';
import { type Moment, momentAt, wantsSeveralLines, worthAsking } from '../../../extension/completion/moment.ts';
import { trimSuggestion } from '../../../extension/completion/trim.ts';
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

const trim = (text: string, raw: string, multiline = false, languageId = 'typescript') =>
  trimSuggestion(raw, moment(text, languageId), multiline);

describe('the place of the cursor', () => {
  it('is described by the text before and after, and its line', () => {
    expect(moment('a\nconst x = |;\nb')).toEqual({
      languageId: 'typescript',
      prefix: 'a\nconst x = ',
      suffix: ';\nb',
      linePrefix: 'const x = ',
      lineSuffix: ';',
    });
  });

  it('has a prefix that starts at the same line while one types on, so that cached prompts stay usable', () => {
    const lines = Array.from({ length: 1000 }, (_, index) => `line ${index}`);
    const start = (line: number) => momentAt(documentOf(lines), new Position(line, 0)).prefix.split('\n')[0];
    expect(start(10)).toBe('line 0');
    const starts = new Set(Array.from({ length: 64 }, (_, step) => start(705 + step)));
    expect(starts.size).toBe(1);
    const used = momentAt(documentOf(lines), new Position(999, 0)).prefix.split('\n').length;
    expect(used).toBeGreaterThan(limits.completion.prefixLines - limits.completion.anchorLines);
    expect(used).toBeLessThanOrEqual(limits.completion.prefixLines + 1);
  });

  it('is bounded in characters too, for files of one line', () => {
    const long = momentAt(documentOf(['x'.repeat(1_000_000)]), new Position(0, 500_000));
    expect(long.prefix.length).toBeLessThanOrEqual(limits.completion.prefixChars);
    expect(long.prefix.length).toBeGreaterThan(limits.completion.prefixChars / 2);
    expect(long.suffix).toHaveLength(limits.completion.suffixChars);
  });

  it('takes the selected item of the suggestion widget for typed', () => {
    const found = momentAt(documentOf(['foo.le']), new Position(0, 6), { text: 'length', startCharacter: 4 });
    expect(found.prefix).toBe('foo.length');
  });
});

describe('whether a suggestion is asked for', () => {
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
    ['on a ruled line', 'x = 1\n# -----|'],
    ['after the end of a block comment', 'x;\n/* done */|'],
    ['in the licence at the top of a file', '// Copyright 2026\n// Licensed |'],
    ['after two blank lines', 'a();\n\n\n|'],
  ])('no: %s', (_, text) => {
    expect(worthAsking(moment(text), false)).toBe(false);
  });

  it('yes before more text on the line when the model fills gaps', () => {
    expect(worthAsking(moment('const | = compute();'), true)).toBe(true);
  });
});

describe('whether several lines are asked for', () => {
  it.each([
    ['where a block was opened', 'function f() {|', 'typescript', true],
    ['in the body of a block', 'function f() {\n  |\n}', 'typescript', true],
    ['after a colon in Python', 'def f():\n    |', 'python', true],
    ['below a comment', '// sums the list\n|', 'typescript', true],
    ['not after a type annotation', 'const x:|', 'typescript', false],
    ['not in the middle of a statement', 'const x = |', 'typescript', false],
    ['not before text', 'if (x) {| y', 'typescript', false],
  ])('%s', (_, text, languageId, expected) => {
    expect(wantsSeveralLines(moment(text, languageId), 'auto')).toBe(expected);
  });

  it('always or never where the user says so', () => {
    expect(wantsSeveralLines(moment('const x = |'), 'always')).toBe(true);
    expect(wantsSeveralLines(moment('function f() {|'), 'never')).toBe(false);
  });
});

describe('what of the continuation is shown', () => {
  it('is one line where one line was asked for', () => {
    expect(trim('const x = |', '1;\nconst y = 2;')).toBe('1;');
  });

  it('ends where the block ends, with its closing bracket', () => {
    expect(trim('function f() {|', '\n  return 1;\n}\n\nfunction g() {', true)).toBe('\n  return 1;\n}');
  });

  it('leaves out the closing bracket that is there', () => {
    expect(trim('function f() {|\n}', '\n  return 1;\n}\nf();', true)).toBe('\n  return 1;');
  });

  it('ends before a line that is further out', () => {
    const raw = 'return a\n\ndef other():\n    pass';
    expect(trim('def f(a):\n    |', raw, true, 'python')).toBe('return a');
  });

  it('keeps deeper lines and blank lines between them', () => {
    const raw = 'for x in a:\n        yield x\n\n    return\nprint()';
    const kept = 'for x in a:\n        yield x\n\n    return';
    expect(trim('def f(a):\n    |', raw, true, 'python')).toBe(kept);
  });

  it('ends before the bracket that the editor has already closed', () => {
    expect(trim('call(|)', 'a, b);')).toBe('a, b');
    expect(trim('call(|)', 'g(a), [b]);')).toBe('g(a), [b]');
    expect(trim('x = [|]', '1, 2, 3]')).toBe('1, 2, 3');
  });

  it('ends before the quote that the editor has already closed', () => {
    expect(trim("import x from '|';", "./x.ts';")).toBe('./x.ts');
    expect(trim("s = '|'", "it\\'s'")).toBe("it\\'s");
  });

  it('keeps brackets that it opens itself', () => {
    expect(trim('f(a|)', '.map((x) => x + 1)')).toBe('.map((x) => x + 1)');
  });

  it('does not repeat the rest of the line', () => {
    expect(trim('const | = 1;', 'x = 1;')).toBe('x');
  });

  it('ends before a line that comes next in the file', () => {
    expect(trim('{\n  a();|\n  c();\n}', '\n  b();\n  c();', true)).toBe('\n  b();');
  });

  it('is nothing when it only repeats the next line', () => {
    expect(trim('|\nreturn total;', 'return total;')).toBe('');
  });

  it.each(['<|endoftext|>', '<|im_end|>', '<fim_middle>', '</s>'])('ends before a leaked %s', (word) => {
    expect(trim('const x = |', `1;${word}rest`)).toBe('1;');
  });

  it('shows a repeated line once', () => {
    expect(trim('{\n  |', 'a += 1;\n  a += 2;\n  a += 2;\n  a += 2;\n  a += 2;', true)).toBe('a += 1;\n  a += 2;');
  });

  it('has no trailing blanks and is nothing when it is blank', () => {
    expect(trim('const x = |', '1;  ')).toBe('1;');
    expect(trim('const x = |', '   \n')).toBe('');
  });

  it('understands Windows line ends', () => {
    expect(trim('function f() {|', '\r\n  return 1;\r\n}', true)).toBe('\n  return 1;\n}');
  });

  it('has at most as many lines as one reads before accepting', () => {
    const raw = Array.from({ length: 100 }, (_, index) => `  x${index}();`).join('\n');
    expect(trim('{\n|', raw, true).split('\n')).toHaveLength(limits.completion.multilineLines);
  });
});

describe('the cache of suggestions', () => {
  const place = (prefix: string, suffix = '') => ({ document: 'd', prefix, suffix });

  it('answers at the same place', () => {
    const cache = new CompletionCache();
    cache.put(place('const x = '), 'compute(a);', false);
    expect(cache.get(place('const x = '))).toEqual({ text: 'compute(a);', multiline: false });
  });

  it('answers with the rest while the user types along', () => {
    const cache = new CompletionCache();
    cache.put(place('const x = '), 'compute(a);', false);
    expect(cache.get(place('const x = com'))?.text).toBe('pute(a);');
    expect(cache.get(place('const x = con'))).toBeUndefined();
  });

  it('answers when the editor closes the bracket that was typed', () => {
    const cache = new CompletionCache();
    cache.put(place('x = ', ';\n'), 'compute(a)', false);
    expect(cache.get(place('x = compute(', ');\n'))?.text).toBe('a)');
  });

  it('does not answer for another suffix, another document or once all is typed', () => {
    const cache = new CompletionCache();
    cache.put(place('x = ', ';'), 'y', false);
    expect(cache.get(place('x = ', ''))).toBeUndefined();
    expect(cache.get({ ...place('x = ', ';'), document: 'e' })).toBeUndefined();
    expect(cache.get(place('x = y', ';'))).toBeUndefined();
  });

  it('remembers that there was nothing to suggest', () => {
    const cache = new CompletionCache();
    cache.put(place('x'), '', false);
    expect(cache.get(place('x'))?.text).toBe('');
  });

  it('forgets the least recently used', () => {
    const cache = new CompletionCache();
    for (let index = 0; index < limits.completion.cacheEntries; index++) cache.put(place(`p${index}\n`), 't', false);
    cache.get(place('p0\n'));
    cache.put(place('one more'), 't', false);
    expect(cache.size).toBe(limits.completion.cacheEntries);
    expect(cache.get(place('p0\n'))).toBeDefined();
    expect(cache.get(place('p1\n'))).toBeUndefined();
  });

  it('keeps the newest answer for a place', () => {
    const cache = new CompletionCache();
    cache.put(place('x'), 'old', false);
    cache.put(place('x'), 'new', true);
    expect(cache.get(place('x'))).toEqual({ text: 'new', multiline: true });
    expect(cache.size).toBe(1);
  });
});

describe('the pause before asking', () => {
  it('is what the user set while answers are fast', () => {
    const debounce = new AdaptiveDebounce();
    expect(debounce.delayMs(50)).toBe(50);
    debounce.note(60);
    expect(debounce.delayMs(50)).toBe(50);
  });

  it('grows with slow answers, within bounds, and shrinks again', () => {
    const debounce = new AdaptiveDebounce();
    debounce.note(800);
    expect(debounce.delayMs(50)).toBe(400);
    for (let index = 0; index < 20; index++) debounce.note(10_000);
    expect(debounce.delayMs(50)).toBe(limits.completion.debounceMs);
    for (let index = 0; index < 40; index++) debounce.note(40);
    expect(debounce.delayMs(50)).toBe(50);
  });

  it('is never less than what the user set', () => {
    const debounce = new AdaptiveDebounce();
    debounce.note(10_000);
    expect(debounce.delayMs(2_000)).toBe(2_000);
  });
});
