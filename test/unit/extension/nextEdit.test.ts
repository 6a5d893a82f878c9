import { describe, expect, it } from 'vitest';
import { linesLike, nextPlace, patternOf, placesOf } from '../../../extension/nextEdit/pattern.ts';

/** The file after its first line changed from `before` to `after` and every similar place was changed. */
function repeated(before: string, after: string, rest: string[]): string[] {
  const pattern = patternOf(before, after);
  if (pattern === undefined) return rest;
  const lines = [after, ...rest];
  for (const { line, start, end, text } of placesOf(pattern, lines, 0).reverse()) {
    const own = lines[line] ?? '';
    lines[line] = own.slice(0, start) + text + own.slice(end);
  }
  return lines.slice(1);
}

describe('the last edit at similar places', () => {
  it.each([
    [
      'a name, wherever it is a whole word',
      'let total = 0;',
      'let sum = 0;',
      'total += subtotal(total);',
      'sum += subtotal(sum);',
    ],
    ['a name that grew', 'user.name;', 'user.fullName;', 'print(user.name)', 'print(user.fullName)'],
    ['a call that was replaced', 'a = list.get(0)', 'a = list.first()', 'b = list.get(0)', 'b = list.first()'],
    [
      'a word put before a name',
      'const a = load(x);',
      'const a = await load(x);',
      'y = load(z);',
      'y = await load(z);',
    ],
    ['a word put at the beginning of a line', 'save(a);', 'await save(a);', '  save(b);', '  await save(b);'],
    ['a word taken away', 'const a = await load(x);', 'const a = load(x);', 'y = await load(z);', 'y = load(z);'],
    [
      'an argument that was added last',
      'log(a);',
      'log(a, level);',
      'if (b) log(f(b), c);',
      'if (b) log(f(b), c, level);',
    ],
    ['an argument that was added first', 'log(a);', 'log(level, a);', '  log(b);', '  log(level, b);'],
    ['the only argument', 'open();', 'open(path);', 'x = open();', 'x = open(path);'],
    ['a keyword beside the same name', 'var total = 0;', 'let total = 0;', 'var total = 1;', 'let total = 1;'],
    ['a number near the same name', 'limit = -3;', 'limit = -5;', 'x.limit = -3;', 'x.limit = -5;'],
    ['whatever the spacing is', 'f(left, right)', 'f(left + right)', 'f(left,right)', 'f(left + right)'],
  ])('repeats %s', (_, before, after, line, expected) => {
    expect(repeated(before, after, [line])).toEqual([expected]);
  });

  it.each([
    ['a part of a word', 'let total = 0;', 'let sum = 0;', 'subtotal();'],
    ['an argument that is there already', 'log(a);', 'log(a, level);', 'log(b, level);'],
    ['an argument of no call but this', 'log(a);', 'log(a, level);', 'trace(a);'],
    ['an only argument where there are others', 'open();', 'open(path);', 'open(file);'],
    ['a call that does not end on its line', 'log(a);', 'log(a, level);', 'log('],
    ['a number near another name', 'limit = -3;', 'limit = -5;', 'size = -3;'],
    ['another number', 'limit = -3;', 'limit = -5;', 'limit = -4;'],
    ['a keyword beside another name', 'var total = 0;', 'let total = 0;', 'var other = 1;'],
  ])('leaves alone %s', (_, before, after, line) => {
    expect(repeated(before, after, [line])).toEqual([line]);
  });

  it.each([
    ['what is written on at the end of a line', 'const x', 'const x = load();'],
    ['blanks alone', 'a = b;', 'a  =  b;'],
    ['punctuation between punctuation', '} ) ]', '} , ) ]'],
    ['nothing', 'same', 'same'],
    ['a change that could be made again at its own place', 'x = total', 'x = f(total, 1)'],
  ])('learns nothing from %s', (_, before, after) => {
    expect(patternOf(before, after)).toBeUndefined();
  });

  it('finds every place in file order, except the edited line', () => {
    const pattern = patternOf('total = 1', 'sum = 1');
    const lines = ['total', 'x = total + total', 'total is edited here', '  total'];
    expect(pattern && placesOf(pattern, lines, 2)).toEqual([
      { line: 0, start: 0, end: 5, text: 'sum' },
      { line: 1, start: 4, end: 9, text: 'sum' },
      { line: 1, start: 12, end: 17, text: 'sum' },
      { line: 3, start: 2, end: 7, text: 'sum' },
    ]);
  });

  it('continues below the cursor and wraps around', () => {
    const place = (line: number) => ({ line, start: 0, end: 1, text: 'x' });
    const places = [place(1), place(5), place(9)];
    expect(nextPlace(places, 4)?.line).toBe(5);
    expect(nextPlace(places, 9)?.line).toBe(1);
    expect(nextPlace([], 0)).toBeUndefined();
  });
});

describe('lines that resemble an edited one', () => {
  const lines = ['load(a, 1);', 'const x = 2;', 'load(b, 1);', 'load(c, 1, now);', 'if (x) {', 'load(d, 1);'];

  it('are ordered by likeness, then the nearest below first', () => {
    expect(linesLike('load(q, 1);', lines, 2, 4)).toEqual([5, 0, 3]);
  });

  it('share a name, not only brackets and words of the language', () => {
    expect(linesLike('return (1);', ['return (2);', 'return (1);', 'return (3);'], 1, 2)).toEqual([]);
  });

  it('exclude lines that already equal the edited one', () => {
    expect(linesLike('load(a, 1);', ['load(a, 2);', 'load(a, 2);', 'load(a, 1);'], 0, 2)).toEqual([2]);
  });
});
