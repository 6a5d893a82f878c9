import { describe, expect, it } from 'vitest';
import { maxCheckpoints } from '../../../engine/backend/backend.ts';
import { mostPages, PagePool, PageTable } from '../../../engine/backend/webgpu/decoder/pages.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

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
      const table = new PageTable(pool, window);
      // Just before snapshots and page ends, where windows share the fewest pages.
      table.setCheckpoints(Array.from({ length: tokens / 300 }, (_, i) => 300 * i + 5));
      grow(table, 0, tokens, step);
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

  it('let a sequence and its forks go back to a mark', () => {
    const table = new PageTable(new PagePool(1000), window);
    table.setCheckpoints([301, 777]);
    grow(table, 0, 400, 100);
    const fork = table.fork();
    grow(table, 400, 1600, 100);
    grow(fork, 400, 1600, 100);
    for (const each of [table, fork]) {
      expect(each.reachable(777)).toBe(777);
      expect(each.reachable(700)).toBe(512);
      // What lies in the mark's last page is there too.
      expect(each.reachable(500)).toBe(320);
      expect(each.reachable(301)).toBe(301);
    }
  });

  it('keep nothing more for marks that others took the place of', () => {
    const pool = new PagePool(1000);
    const table = new PageTable(pool, window);
    table.setCheckpoints([100, 300]);
    grow(table, 0, 2000, 100);
    const unmarked = new PagePool(1000);
    grow(new PageTable(unmarked, window), 0, 2100, 100);
    expect(pool.freePages).toBeLessThan(unmarked.freePages);
    table.setCheckpoints([]);
    grow(table, 2000, 100, 100);
    expect(pool.freePages).toBe(unmarked.freePages);
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

describe('sequences that grow, fork, go back and are marked at random', () => {
  const window = 40;

  /** A sequence, and what its tokens are: each has a value of its own. */
  interface Modelled {
    readonly table: PageTable;
    readonly values: number[];
    /** Those that it had before its tokens came there. */
    marks: number[];
  }

  it.each([1, 2, 3, 4, 5, 6])('find all that they see, at every mark too, and give every page back (%i)', (seed) => {
    const random = seededRandom(seed);
    const pick = (count: number): number => Math.floor(random() * count);
    const pool = new PagePool(3000);
    const memory = new Int32Array(3000 * pageTokens);
    const live: Modelled[] = [{ table: new PageTable(pool, window), values: [], marks: [] }];
    let next = 1;
    let longest = 0;

    const append = ({ table, values }: Modelled, count: number): void => {
      const copy = table.prepare(values.length, values.length + count);
      if (copy) memory.copyWithin(copy.to * pageTokens, copy.from * pageTokens, (copy.from + 1) * pageTokens);
      for (let i = 0; i < count; i++, next++) {
        memory[(table.pages[Math.floor(values.length / pageTokens)] ?? 0) * pageTokens + (values.length % pageTokens)] =
          next;
        values.push(next);
      }
      table.slide(values.length);
      longest = Math.max(longest, values.length);
    };
    const setCheckpoints = (sequence: Modelled): void => {
      const { values, table } = sequence;
      const ahead = Array.from({ length: pick(maxCheckpoints + 1) }, (_, i) => values.length + 50 * i + pick(30));
      table.setCheckpoints(ahead);
      sequence.marks = ahead.filter((length) => length > 0);
    };
    const back = (sequence: Modelled): void => {
      const { table, values } = sequence;
      const wanted = Math.max(0, values.length - pick(random() < 0.8 ? 500 : 3000));
      const reached = table.reachable(wanted);
      for (const passed of sequence.marks) if (passed <= wanted) expect(reached).toBeGreaterThanOrEqual(passed);
      table.truncate(reached);
      values.length = reached;
      sequence.marks = sequence.marks.filter((length) => length <= reached);
    };
    const check = ({ table, values }: Modelled): void => {
      const first = Math.max(0, values.length - window + 1);
      const seen = values.slice(first).map((_, i) => {
        const page = table.pages[Math.floor((first + i) / pageTokens)] ?? -1;
        return memory[page * pageTokens + ((first + i) % pageTokens)];
      });
      expect(seen).toEqual(values.slice(first));
      const held = table.pages.filter((page) => page >= 0).length;
      expect(held).toBeLessThanOrEqual(mostPages(values.length, 100, window));
    };

    for (let step = 0; step < 800; step++) {
      const at = pick(live.length);
      const sequence = live[at];
      if (!sequence) continue;
      const what = random();
      if (what < 0.6) append(sequence, 1 + pick(100));
      else if (what < 0.7) setCheckpoints(sequence);
      else if (what < 0.78) back(sequence);
      else if (what < 0.93 && live.length < 6) {
        live.push({ table: sequence.table.fork(), values: [...sequence.values], marks: [...sequence.marks] });
      } else if (live.length > 1) {
        sequence.table.truncate(0);
        live.splice(at, 1);
      }
      for (const each of live) check(each);
    }
    expect(longest).toBeGreaterThan(1500);
    for (const { table } of live) table.truncate(0);
    expect(pool.freePages).toBe(3000);
  });
});
