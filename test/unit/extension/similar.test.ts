import { describe, expect, it } from 'vitest';
import { farParts, fitting, keepOrder, namesNear, similarStretches } from '../../../extension/completion/moment.ts';
import { limits } from '../../../extension/limits.ts';

const snippet = (path: string, text = path) => ({ path, text });

describe('chunks of other files', () => {
  const filler = Array.from({ length: 40 }, (_, i) => `unrelated${i} = ${i}`).join('\n');

  it('are those most similar to the lines at the cursor', () => {
    const around = 'const user = await loadUser(request.id);';
    const near = `${filler}\nconst user = await loadUser(session.id);\n`;
    const [found] = similarStretches(around, [snippet('far.ts', filler), snippet('near.ts', near)], 2);
    expect(found?.path).toBe('near.ts');
    expect(found?.text).toContain('loadUser(session.id)');
  });

  it('are empty if nothing is similar', () => {
    expect(similarStretches('alpha beta gamma', [snippet('a.ts', filler)], 2)).toEqual([]);
  });
});

describe('the list of snippets', () => {
  const [a, b, c] = [snippet('aaa'), snippet('bbb'), snippet('ccc')];

  it('keeps known snippets in place and appends new ones', () => {
    expect(keepOrder([a, b], [c, b, a])).toEqual([a, b, c]);
    expect(keepOrder([a, b], [c, b])).toEqual([b, c]);
  });

  it('stays within its limit, best first', () => {
    expect(fitting([b, c, a], '', 6)).toEqual([b, c]);
  });

  it('has the best twenty lines of a chunk that is too long, rather than nothing', () => {
    const lines = Array.from({ length: 60 }, (_, i) => (i === 45 ? 'voucher = basket.redeem()' : `other${i} = ${i}`));
    const [found] = fitting([snippet('long.py', lines.join('\n'))], 'basket.redeem(voucher)', 500);
    expect(found?.text.split('\n')).toEqual(lines.slice(30, 50));
  });

  it('cuts a snippet that is too long to fewer lines, and drops it if five do not fit', () => {
    const lines = Array.from({ length: 18 }, (_, i) => (i === 12 ? 'voucher = basket.redeem()' : `other${i} = ${i}`));
    const [found] = fitting([snippet('long.py', lines.join('\n'))], 'basket.redeem(voucher)', 90);
    expect(found?.text.split('\n')).toEqual(lines.slice(8, 13));
    expect(fitting([snippet('long.py', lines.join('\n'))], 'basket.redeem(voucher)', 40)).toEqual([]);
  });
});

const documentOf = (lines: readonly string[]) => ({
  lineCount: lines.length,
  lineAt: (line: number) => ({ text: lines[line] ?? '' }),
});

describe('what the prompt lacks of the open file', () => {
  const lines = Array.from({ length: 300 }, (_, i) => `line ${i}`);

  it('is the text far above the cursor and below it', () => {
    const [below, above] = farParts(documentOf(lines), 150);
    expect(below?.split('\n')).toEqual(lines.slice(170));
    expect(above?.split('\n')).toEqual(lines.slice(0, 40));
  });

  it('is limited for a long file', () => {
    const long = Array.from({ length: 100_000 }, (_, i) => `line ${i}`);
    const [below] = farParts(documentOf(long), 150);
    expect(below?.split('\n')).toEqual(long.slice(170, 170 + limits.completion.visitedLines));
  });

  it('is empty for a short file', () => {
    expect(farParts(documentOf(lines.slice(0, 20)), 10)).toEqual([]);
  });

  it('stays the same below while lines are typed', () => {
    const typed = [...lines.slice(0, 150), 'new', ...lines.slice(150)];
    expect(farParts(documentOf(typed), 151)[0]).toBe(farParts(documentOf(lines), 150)[0]);
  });
});

it('names at the cursor are each looked up once, the nearest first', () => {
  const lines = ['const shop = open(shop);', 'return shop.place(order, order);'];
  expect(namesNear(documentOf(lines), 1).map(({ line, name }) => `${line} ${name}`)).toEqual([
    '1 order',
    '1 place',
    '1 shop',
    '1 return',
    '0 open',
    '0 const',
  ]);
});
