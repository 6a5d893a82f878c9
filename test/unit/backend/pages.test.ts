import { describe, expect, it } from 'vitest';
import { mostPages, PagePool, PageTable } from '../../../engine/backend/webgpu/pages.ts';

const pageTokens = 32;

/** Adds `tokens` tokens as a decoder does, `step` at a time. @returns the new length */
function grow(table: PageTable, length: number, tokens: number, step: number): number {
  const end = length + tokens;
  for (let at = length; at < end; ) {
    const next = Math.min(at + step, end);
    table.prepare(at, next);
    table.slide(next);
    at = next;
  }
  return end;
}

describe('pages of full attention', () => {
  it('are taken as tokens come and given back with them', () => {
    const pool = new PagePool(8);
    const table = new PageTable(pool, undefined);
    grow(table, 0, 65, 7);
    expect(pool.freePages).toBe(5);
    table.truncate(33);
    expect(pool.freePages).toBe(6);
    table.truncate(0);
    expect(pool.freePages).toBe(8);
  });

  it('are shared by a fork, but for the partly filled one that is written next', () => {
    const pool = new PagePool(8);
    const table = new PageTable(pool, undefined);
    grow(table, 0, 40, 40);
    const fork = table.fork();
    expect(pool.freePages).toBe(6);
    expect(fork.pagesNeeded(40, 41)).toBe(1);
    const copy = fork.prepare(40, 41);
    expect(copy).toEqual({ from: table.pages[1], to: fork.pages[1] });
    expect(fork.pages[0]).toBe(table.pages[0]);
    expect(table.prepare(40, 41)).toBeUndefined();
    table.truncate(0);
    fork.truncate(0);
    expect(pool.freePages).toBe(8);
  });

  it('say so when all are in use', () => {
    const table = new PageTable(new PagePool(1), undefined);
    expect(() => table.prepare(0, 33)).toThrow('in use');
  });
});

describe('pages of a sliding window', () => {
  const window = 128;

  it('never exceed what is planned for a sequence', () => {
    for (const [tokens, step] of [
      [10_000, 1],
      [10_000, 512],
      [1300, 33],
    ] as const) {
      const pool = new PagePool(1000);
      grow(new PageTable(pool, window), 0, tokens, step);
      expect(1000 - pool.freePages).toBeLessThanOrEqual(mostPages(tokens, step, window));
    }
    expect(mostPages(131_072, 512, window)).toBeLessThan(131_072 / pageTokens / 3);
  });

  it('hold all that the next token sees, after any length', () => {
    const table = new PageTable(new PagePool(1000), window);
    let length = 0;
    for (const step of [1, 500, 33, 700, 2, 512, 512, 3]) {
      length = grow(table, length, step, step);
      const seen = table.pages.slice(Math.floor(Math.max(0, length - window + 1) / pageTokens));
      expect(seen.every((page) => page >= 0)).toBe(true);
      expect(table.reachable(length)).toBe(length);
    }
  });

  it('let a sequence go back a little, or to a snapshot', () => {
    const table = new PageTable(new PagePool(1000), window);
    const length = grow(table, 0, 3000, 100);
    expect(table.reachable(length - 200)).toBe(length - 200);
    // Snapshots stand at multiples of 512.
    expect(table.reachable(2000)).toBeGreaterThanOrEqual(1536);
    expect(table.reachable(2000)).toBeLessThanOrEqual(2000);
    expect(table.reachable(512)).toBe(512);
    table.truncate(512);
    expect(table.pages.slice((512 - window) / pageTokens).every((page) => page >= 0)).toBe(true);
    grow(table, 512, 1000, 10);
    expect(table.reachable(1512)).toBe(1512);
  });

  it('give every page back once, forked or not', () => {
    const pool = new PagePool(1000);
    const table = new PageTable(pool, window);
    const length = grow(table, 0, 900, 60);
    const fork = table.fork();
    grow(table, length, 700, 60);
    fork.truncate(fork.reachable(600));
    table.truncate(0);
    fork.truncate(0);
    expect(pool.freePages).toBe(1000);
  });
});
