import { describe, expect, it } from 'vitest';
import { BlockPool, BlockTable, maxBlocks, maxCheckpoints } from '../../../engine/kv/blocks.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const blockTokens = 32;

const newPool = (blocks: number, slidingWindow?: number): BlockPool =>
  new BlockPool({ blockTokens, blockBytes: 1, blocks, slidingWindow });

/** Adds `tokens` tokens as a decoder does, `step` at a time. @returns the new length */
function grow(table: BlockTable, length: number, tokens: number, step: number): number {
  const end = length + tokens;
  for (let at = length; at < end; ) {
    const next = Math.min(at + step, end);
    table.prepare(at, next);
    table.slide(next);
    at = next;
  }
  return end;
}

describe('blocks of full attention', () => {
  it('are taken as tokens are appended and released as they are truncated', () => {
    const pool = newPool(8);
    const table = new BlockTable(pool);
    grow(table, 0, 65, 7);
    expect(pool.freeBlocks).toBe(5);
    table.truncate(33);
    expect(pool.freeBlocks).toBe(6);
    table.truncate(0);
    expect(pool.freeBlocks).toBe(8);
  });

  it('are shared by a fork, except the partly filled one that it writes to', () => {
    const pool = newPool(8);
    const table = new BlockTable(pool);
    grow(table, 0, 40, 40);
    const fork = table.fork();
    expect(pool.freeBlocks).toBe(6);
    expect(fork.blocksNeeded(40, 41)).toBe(1);
    const copies = fork.prepare(40, 41);
    expect(copies).toEqual([{ from: table.blocks[1], to: fork.blocks[1] }]);
    expect(fork.blocks[0]).toBe(table.blocks[0]);
    expect(table.prepare(40, 41)).toEqual([]);
    table.truncate(0);
    fork.truncate(0);
    expect(pool.freeBlocks).toBe(8);
  });

  it('are refused when all are in use', () => {
    const table = new BlockTable(newPool(1));
    expect(() => table.prepare(0, 33)).toThrow('no room');
  });
});

describe('blocks of a sliding window', () => {
  const window = 128;

  it('never exceed the planned number', () => {
    for (const [tokens, step] of [
      [10_000, 1],
      [10_000, 512],
      [1300, 33],
    ] as const) {
      const pool = newPool(1000, window);
      const table = new BlockTable(pool);
      // Just before checkpoints and block ends, where windows share the fewest blocks.
      table.setCheckpoints(Array.from({ length: tokens / 300 }, (_, i) => 300 * i + 5));
      grow(table, 0, tokens, step);
      expect(1000 - pool.freeBlocks).toBeLessThanOrEqual(
        maxBlocks(tokens, step, { slidingWindow: window, blockTokens }),
      );
    }
    expect(maxBlocks(131_072, 512, { slidingWindow: window, blockTokens })).toBeLessThan(131_072 / blockTokens / 3);
  });

  it('hold everything that the next token attends to, at any length', () => {
    const table = new BlockTable(newPool(1000, window));
    let length = 0;
    for (const step of [1, 500, 33, 700, 2, 512, 512, 3]) {
      length = grow(table, length, step, step);
      const seen = table.blocks.slice(Math.floor(Math.max(0, length - window + 1) / blockTokens));
      expect(seen.every((block) => block >= 0)).toBe(true);
      expect(table.reachable(length)).toBe(length);
    }
  });

  it('allow a short truncation, or a longer one to a checkpoint', () => {
    const table = new BlockTable(newPool(1000, window));
    const length = grow(table, 0, 3000, 100);
    expect(table.reachable(length - 200)).toBe(length - 200);
    // Snapshots stand at multiples of 512.
    expect(table.reachable(2000)).toBeGreaterThanOrEqual(1536);
    expect(table.reachable(2000)).toBeLessThanOrEqual(2000);
    expect(table.reachable(512)).toBe(512);
    table.truncate(512);
    expect(table.blocks.slice((512 - window) / blockTokens).every((block) => block >= 0)).toBe(true);
    grow(table, 512, 1000, 10);
    expect(table.reachable(1512)).toBe(1512);
  });

  it('allow a sequence and its forks to truncate to a requested checkpoint', () => {
    const table = new BlockTable(newPool(1000, window));
    table.setCheckpoints([301, 777]);
    grow(table, 0, 400, 100);
    const fork = table.fork();
    grow(table, 400, 1600, 100);
    grow(fork, 400, 1600, 100);
    for (const each of [table, fork]) {
      expect(each.reachable(777)).toBe(777);
      expect(each.reachable(700)).toBe(512);
      // Tokens of the checkpoint's last page are reachable too.
      expect(each.reachable(500)).toBe(320);
      expect(each.reachable(301)).toBe(301);
    }
  });

  it('release what replaced checkpoints kept', () => {
    const pool = newPool(1000, window);
    const table = new BlockTable(pool);
    table.setCheckpoints([100, 300]);
    grow(table, 0, 2000, 100);
    const unmarked = newPool(1000, window);
    grow(new BlockTable(unmarked), 0, 2100, 100);
    expect(pool.freeBlocks).toBeLessThan(unmarked.freeBlocks);
    table.setCheckpoints([]);
    grow(table, 2000, 100, 100);
    expect(pool.freeBlocks).toBe(unmarked.freeBlocks);
  });

  it('are each released once, forked or not', () => {
    const pool = newPool(1000, window);
    const table = new BlockTable(pool);
    const length = grow(table, 0, 900, 60);
    const fork = table.fork();
    grow(table, length, 700, 60);
    fork.truncate(fork.reachable(600));
    table.truncate(0);
    fork.truncate(0);
    expect(pool.freeBlocks).toBe(1000);
  });
});

describe('sequences that grow, fork, truncate and set checkpoints at random', () => {
  const window = 40;

  /** A sequence, and what its tokens are: each has a value of its own. */
  interface Modelled {
    readonly table: BlockTable;
    readonly values: number[];
    /** Those that it had before its tokens came there. */
    marks: number[];
  }

  it.each([1, 2, 3, 4, 5, 6])(
    'find everything that they attend to, also at checkpoints, and release every block (%i)',
    (seed) => {
      const random = seededRandom(seed);
      const pick = (count: number): number => Math.floor(random() * count);
      const pool = newPool(3000, window);
      const memory = new Int32Array(3000 * blockTokens);
      const live: Modelled[] = [{ table: new BlockTable(pool), values: [], marks: [] }];
      let next = 1;
      let longest = 0;

      const append = ({ table, values }: Modelled, count: number): void => {
        const [copy] = table.prepare(values.length, values.length + count);
        if (copy) memory.copyWithin(copy.to * blockTokens, copy.from * blockTokens, (copy.from + 1) * blockTokens);
        for (let i = 0; i < count; i++, next++) {
          memory[
            (table.blocks[Math.floor(values.length / blockTokens)] ?? 0) * blockTokens + (values.length % blockTokens)
          ] = next;
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
          const block = table.blocks[Math.floor((first + i) / blockTokens)] ?? -1;
          return memory[block * blockTokens + ((first + i) % blockTokens)];
        });
        expect(seen).toEqual(values.slice(first));
        const held = table.blocks.filter((block) => block >= 0).length;
        expect(held).toBeLessThanOrEqual(maxBlocks(values.length, 100, { slidingWindow: window, blockTokens }));
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
      expect(pool.freeBlocks).toBe(3000);
    },
  );
});

describe('blocks of a backend that needs consecutive tokens in one piece', () => {
  const newTable = (slidingWindow?: number) => {
    const pool = new BlockPool({ blockTokens: 64, blockBytes: 1, contiguous: true, slidingWindow });
    return { pool, table: new BlockTable(pool) };
  };

  it('are taken with an eighth to spare, and never given back by truncation alone', () => {
    const { pool, table } = newTable();
    grow(table, 0, 1024, 1024);
    expect(pool.usedBlocks).toBe(18);
    grow(table, 1024, 128, 1);
    expect(pool.usedBlocks).toBe(18);
    table.truncate(10);
    expect(pool.usedBlocks).toBe(18);
    table.truncate(0);
    expect(pool.usedBlocks).toBe(0);
  });

  it('are replaced as a whole when a fork writes', () => {
    const { pool, table } = newTable();
    grow(table, 0, 640, 640);
    const fork = table.fork();
    expect(pool.usedBlocks).toBe(12);
    expect(fork.blocksNeeded(640, 641)).toBe(12);
    fork.prepare(640, 641);
    expect(pool.usedBlocks).toBe(24);
    expect(table.blocksNeeded(640, 641)).toBe(0);
  });

  it('hold at least what the next token attends to through a window, and never much more', () => {
    const { table } = newTable(128);
    for (let length = 1; length <= 3000; length++) {
      table.prepare(length - 1, length);
      table.slide(length);
      const [start = 0] = table.held(length).slice(-2);
      expect(length - start).toBeGreaterThanOrEqual(Math.min(length, 127));
      // Window, tokens for a short truncation, as many until the next move, and a checkpoint that is next to them.
      expect(length - start).toBeLessThanOrEqual(128 + 256 + 256 + 128 + 64);
    }
  });

  it('allow a short truncation, and a longer one to a checkpoint, to a multiple of 512, or to nothing', () => {
    const { table } = newTable(128);
    table.setCheckpoints([1700]);
    grow(table, 0, 3000, 250);
    expect(table.reachable(2800)).toBe(2800);
    // Tokens of the checkpoint's last block are cached too.
    expect(table.reachable(2000)).toBe(27 * 64);
    expect(table.reachable(1700)).toBe(1700);
    table.truncate(1700);
    // The blocks of the checkpoint at 1536 are next to it.
    expect(table.held(1700).slice(-2)).toEqual([22 * 64, 1700]);
    expect(table.reachable(1400)).toBe(1024);
    expect(table.reachable(300)).toBe(0);
  });
});
