import { describe, expect, it } from 'vitest';
import { BlockPool } from '../../../engine/kv/blocks.ts';
import { maxStates, StateTable } from '../../../engine/kv/states.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

/** Each block holds the length after which it is the state. Passes and copies change it as in a backend. */
class Memory {
  readonly pool = new BlockPool({ isState: true, blockTokens: 1, blockBytes: 1 });
  readonly held = new Map<number, number>();

  pass(table: StateTable, length: number, end: number): void {
    for (const { from, to } of table.prepare(length, end)) this.held.set(to, this.held.get(from) ?? Number.NaN);
    const [block = Number.NaN] = table.blocks;
    if (length > 0) expect(this.held.get(block)).toBe(length);
    this.held.set(block, end);
  }
}

describe('the states of a sequence', () => {
  it('are kept only at checkpoints', () => {
    const memory = new Memory();
    const states = new StateTable(memory.pool);
    states.setCheckpoints([30, 70]);
    for (const [from, to] of [
      [0, 30],
      [30, 50],
      [50, 70],
      [70, 71],
      [71, 72],
    ] as const) {
      memory.pass(states, from, to);
    }
    expect([72, 71, 70, 69, 30, 29].map((length) => states.reachable(length))).toEqual([72, 70, 70, 30, 30, 0]);
    states.truncate(states.reachable(71));
    memory.pass(states, 70, 80);
    states.truncate(0);
    expect(memory.pool.usedBlocks).toBe(0);
  });

  it('are also kept every thousand tokens, but never instead of a checkpoint', () => {
    const memory = new Memory();
    const states = new StateTable(memory.pool);
    states.setCheckpoints([100, 900]);
    memory.pass(states, 0, 100);
    memory.pass(states, 100, 900);
    for (let length = 900; length < 20_000; length += 50) memory.pass(states, length, length + 50);
    expect(states.reachable(999)).toBe(900);
    expect(states.reachable(899)).toBe(100);
    expect(states.reachable(19_900)).toBeGreaterThan(18_000);
    expect(memory.pool.usedBlocks).toBeLessThanOrEqual(maxStates);
  });

  it('are stored as ranges that do not touch, and restored from them', () => {
    const memory = new Memory();
    const states = new StateTable(memory.pool);
    states.setCheckpoints([30, 70]);
    memory.pass(states, 0, 30);
    memory.pass(states, 30, 70);
    memory.pass(states, 70, 71);
    expect(states.ranges.map(([, end]) => end)).toEqual([30, 70, 71]);
    expect(states.held()).toEqual([29, 30, 70, 71]);
    expect(states.blocksApart.map((block) => memory.held.get(block))).toEqual([30, 71]);
    const restored = new StateTable(memory.pool);
    restored.hold(states.held());
    expect([71, 70, 30].map((length) => restored.reachable(length))).toEqual([71, 30, 30]);
  });

  it.each([1, 2, 3, 4])('are the right ones after random passes, forks, truncations and checkpoints (%i)', (seed) => {
    const random = seededRandom(seed);
    const pick = (count: number): number => Math.floor(random() * count);
    const memory = new Memory();
    const all = [{ table: new StateTable(memory.pool), length: 0 }];
    for (let step = 0; step < 3000; step++) {
      const own = all[pick(all.length)];
      if (!own) break;
      const choice = pick(10);
      if (choice < 6) {
        const end = own.length + 1 + pick(choice === 0 ? 700 : 40);
        const room = own.table.tokensUntilCheckpoint(own.length);
        const free = memory.pool.usedBlocks;
        const needed = own.table.blocksNeeded(own.length);
        const cut = Math.min(end, own.length + room);
        memory.pass(own.table, own.length, cut);
        expect(memory.pool.usedBlocks - free).toBeLessThanOrEqual(needed);
        own.length = cut;
      } else if (choice < 8) {
        own.length = own.table.reachable(pick(own.length + 1));
        own.table.truncate(own.length);
        if (own.length > 0) expect(memory.held.get(own.table.blocks[0] ?? Number.NaN)).toBe(own.length);
      } else if (choice === 8 && all.length < 5) {
        all.push({ table: own.table.fork(), length: own.length });
      } else {
        own.table.setCheckpoints(Array.from({ length: pick(9) }, () => own.length + pick(200)));
      }
      expect(own.table.reachable(own.length)).toBe(own.length);
    }
    for (const { table } of all) table.truncate(0);
    expect(memory.pool.usedBlocks).toBe(0);
  });
});
