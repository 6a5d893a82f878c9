import { describe, expect, it } from 'vitest';
import { fitting, keepOrder, similarStretches } from '../../../extension/completion/moment.ts';

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
    expect(fitting([snippet('long.py', lines.join('\n'))], 'basket', 100)).toEqual([]);
  });
});
