import { describe, expect, it } from 'vitest';
import { MergeTable, mergePairs } from '../../../engine/tokenizer/bytePairTokenizer.ts';
import { runWhole } from '../../../engine/tokenizer/tokenizer.ts';

/** The definition, a merge at a time: the lowest rank, the leftmost of equals. */
function mergeOneByOne(symbols: number[], merges: ReadonlyMap<string, { rank: number; merged: number }>): number[] {
  const out = [...symbols];
  for (;;) {
    let best: { at: number; rank: number; merged: number } | undefined;
    for (let at = 0; at + 1 < out.length; at++) {
      const merge = merges.get(`${out[at]},${out[at + 1]}`);
      if (merge !== undefined && (best === undefined || merge.rank < best.rank)) best = { at, ...merge };
    }
    if (best === undefined) return out;
    out.splice(best.at, 2, best.merged);
  }
}

/** Numerical Recipes' generator: the same numbers on every run. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
}

describe('mergePairs', () => {
  it('merges as the definition does, also where ranks are equal and merges overlap', () => {
    const random = randomNumbers(1);
    for (let round = 0; round < 500; round++) {
      const merges = new Map<string, { rank: number; merged: number }>();
      const table = new MergeTable(64);
      for (let index = 0; index < 40; index++) {
        const [left, right] = [random(8), random(8)];
        if (merges.has(`${left},${right}`)) continue;
        const merge = { rank: random(12), merged: random(8) };
        merges.set(`${left},${right}`, merge);
        table.add(left, right, merge.rank, merge.merged);
      }
      const symbols = Array.from({ length: random(40) }, () => random(8));
      const merged = Int32Array.from(symbols);
      const count = runWhole(mergePairs(merged, table));
      expect([...merged.slice(0, count)]).toEqual(mergeOneByOne(symbols, merges));
    }
  });

  it('takes time in proportion to the text: a million equal symbols in seconds', () => {
    const table = new MergeTable(4);
    table.add(0, 0, 0, 1);
    table.add(1, 1, 1, 2);
    const symbols = new Int32Array(1_000_000);
    expect(runWhole(mergePairs(symbols, table))).toBe(250_000);
  }, 20_000);
});

describe('MergeTable', () => {
  it('finds what was added and nothing else, and keeps the first of two entries for a pair', () => {
    const table = new MergeTable(3000);
    for (let index = 0; index < 3000; index++) table.add(index, index * 7, index, index + 1);
    table.add(5, 35, 999, 999);
    for (let index = 0; index < 3000; index++) {
      const entry = table.find(index, index * 7);
      expect([table.rank(entry), table.merged(entry)]).toEqual([index, index + 1]);
    }
    expect(table.find(5, 36)).toBe(-1);
    expect(table.find(0, 1)).toBe(-1);
  });
});
