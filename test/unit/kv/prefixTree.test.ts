import { describe, expect, it } from 'vitest';
import { PrefixTree } from '../../../engine/kv/prefixCache.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const ids = (text: string): number[] => [...text].map((char) => char.charCodeAt(0));

function treeOf(...texts: readonly string[]): PrefixTree<string> {
  const tree = new PrefixTree<string>();
  for (const text of texts) tree.insert(ids(text), text);
  return tree;
}

function longest(tree: PrefixTree<string>, text: string): { shared: number; values: string[] } {
  const { shared, values } = tree.longest(ids(text));
  return { shared, values: [...values].sort() };
}

describe('a prefix tree', () => {
  it('finds nothing if no list shares a prefix', () => {
    expect(longest(treeOf('abc'), 'xbc')).toEqual({ shared: 0, values: [] });
    expect(longest(treeOf(), 'abc')).toEqual({ shared: 0, values: [] });
  });

  it('finds a longer list, a shorter one, and the position where two diverge', () => {
    expect(longest(treeOf('abcdef'), 'abc')).toEqual({ shared: 3, values: ['abcdef'] });
    expect(longest(treeOf('abc'), 'abcdef')).toEqual({ shared: 3, values: ['abc'] });
    expect(longest(treeOf('abxx', 'abyy', 'acz'), 'abzz')).toEqual({ shared: 2, values: ['abxx', 'abyy'] });
    expect(longest(treeOf('ab', 'abcd'), 'abce')).toEqual({ shared: 3, values: ['abcd'] });
  });

  it('forgets deleted lists only', () => {
    const tree = treeOf('abcd', 'abxy', 'ab');
    expect(tree.delete(ids('abcd'), 'abcd')).toBe(true);
    expect(longest(tree, 'abcd')).toEqual({ shared: 2, values: ['ab', 'abxy'] });
    expect(tree.delete(ids('abcd'), 'abcd')).toBe(false);
    expect(tree.delete(ids('abx'), 'abx')).toBe(false);
  });

  it('agrees with a linear search after any insertions and deletions', () => {
    const random = seededRandom(11);
    const text = (): string =>
      Array.from({ length: 1 + Math.floor(random() * 8) }, () => (random() < 0.6 ? 'a' : 'b')).join('');
    const tree = new PrefixTree<string>();
    const stored = new Set<string>();
    for (let round = 0; round < 4000; round++) {
      const word = text();
      if (random() < 0.45) {
        expect(tree.delete(ids(word), word)).toBe(stored.delete(word));
      } else {
        tree.insert(ids(word), word);
        stored.add(word);
      }
      const asked = text();
      const shares = [...stored].map((other) => ({ other, shared: sharedChars(other, asked) }));
      const most = Math.max(0, ...shares.map(({ shared }) => shared));
      const values = most === 0 ? [] : shares.filter(({ shared }) => shared === most).map(({ other }) => other);
      expect(longest(tree, asked)).toEqual({ shared: most, values: values.sort() });
    }
  });
});

function sharedChars(a: string, b: string): number {
  let shared = 0;
  while (shared < Math.min(a.length, b.length) && a[shared] === b[shared]) shared++;
  return shared;
}
