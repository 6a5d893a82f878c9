import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { maxCheckpoints } from '../../../engine/backend/backend.ts';
import { CacheBudget, CachedRanges, type SequenceBlocks } from '../../../engine/backend/onnx/cachedRanges.ts';
import { OnnxSequence } from '../../../engine/backend/onnx/decoder.ts';
import type { GraphInputs } from '../../../engine/backend/onnx/graphInputs.ts';
import { KeyValueCache } from '../../../engine/backend/onnx/keyValueCache.ts';
import type { ToThread } from '../../../engine/backend/onnx/messages.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const window = 40;
const layer = { type: 'float32', keyValueHeads: 1, keyDim: 1, valueDim: 1, valuesInKeys: false } as const;
/** One layer that sees all, one with a window. */
const plan: GraphInputs = {
  numAttentionHeads: 1,
  rotations: [],
  windowGroups: [{}, { slidingWindow: window }],
  layers: [
    { ...layer, group: 0 },
    { ...layer, group: 1 },
  ],
};
const rowsOfLayer = 2;
const mostTokensPerRun = 256;

/** The thread's caches, obeying at once what sequences say on the other side. */
class Caches {
  readonly budget = new CacheBudget(plan.windowGroups.length, plan.layers, Number.POSITIVE_INFINITY);
  readonly byId = new Map<number, KeyValueCache>();
  #ids = 0;

  create(
    ranges = new CachedRanges(plan.windowGroups),
    blocks: SequenceBlocks = this.budget.newSequence(),
  ): OnnxSequence {
    const id = this.#ids++;
    if (ranges.length === 0) this.byId.set(id, KeyValueCache.empty(plan));
    return new OnnxSequence(id, { tell: (message) => this.#tell(message) }, { ranges, blocks }, (copy, from) => {
      const fork = this.create(copy.ranges, copy.blocks);
      this.byId.set(fork.id, this.cache(from).fork());
      return fork;
    });
  }

  cache(id: number): KeyValueCache {
    const cache = this.byId.get(id);
    if (!cache) throw new Error(`no cache ${id}`);
    return cache;
  }

  /** Each token's keys and values are its number. */
  append(sequence: OnnxSequence, tokens: readonly number[]): void {
    const cache = this.cache(sequence.id);
    const rows = plan.layers.length * rowsOfLayer;
    const values = Float32Array.from(new Array(rows).fill(tokens).flat());
    cache.append(new Tensor('float32', values, [rows, tokens.length]), tokens.length);
    sequence.restore(cache.state());
  }

  /** Of all blocks that there are. */
  bytes(): number {
    const blocks = new Set([...this.byId.values()].flatMap((cache) => cache.owned()));
    return [...blocks].reduce((sum, { values }) => sum + values.byteLength, 0);
  }

  #tell(message: ToThread): void {
    if (message.kind === 'truncate') this.cache(message.sequence).truncate(message.length);
    else if (message.kind === 'checkpoints') this.cache(message.sequence).setCheckpoints(message.lengths);
    else if (message.kind === 'dispose') {
      this.cache(message.sequence).dispose();
      this.byId.delete(message.sequence);
    }
  }
}

describe('caches that grow, fork, go back and are marked at random', () => {
  it.each([1, 2, 3, 4])('hold what is seen, at every mark too, and take what the account says (%i)', (seed) => {
    const random = seededRandom(seed);
    const pick = (count: number): number => Math.floor(random() * count);
    const caches = new Caches();
    let live = [{ sequence: caches.create(), tokens: [] as number[], requested: [] as number[] }];
    let [next, longest] = [1, 0];

    const check = ({ sequence, tokens }: (typeof live)[number]): void => {
      const { ranges } = caches.cache(sequence.id);
      expect([sequence.length, ranges.length]).toEqual([tokens.length, tokens.length]);
      for (const group of plan.windowGroups.keys()) {
        const start = ranges.start(group);
        expect(sequence.starts[group]).toBe(start);
        if (group === 1) expect(start).toBeLessThanOrEqual(Math.max(0, tokens.length - window + 1));
        const saved = new Float32Array(caches.cache(sequence.id).saved(group).buffer);
        const columns = saved.length / rowsOfLayer;
        const held = Float32Array.from(tokens.slice(start));
        for (let row = 0; row < rowsOfLayer; row++) {
          const own = saved.slice(row * columns, row * columns + held.length);
          expect(Buffer.compare(new Uint8Array(own.buffer), new Uint8Array(held.buffer))).toBe(0);
        }
      }
    };

    for (let step = 0; step < 250; step++) {
      const one = live[pick(live.length)];
      if (!one) break;
      const { sequence, tokens } = one;
      const what = random();
      if (what < 0.6) {
        const count = 1 + pick(mostTokensPerRun);
        const most = caches.budget.usedBytes + sequence.bytesFor(count);
        const fresh = Array.from({ length: count }, () => next++);
        caches.append(sequence, fresh);
        tokens.push(...fresh);
        expect(caches.budget.usedBytes).toBeLessThanOrEqual(most);
        longest = Math.max(longest, tokens.length);
      } else if (what < 0.7) {
        one.requested = Array.from(
          { length: pick(maxCheckpoints + 1) },
          (_, i) => tokens.length + 60 * i + 1 + pick(50),
        );
        sequence.setCheckpoints(one.requested);
      } else if (what < 0.78) {
        const wanted = Math.max(0, tokens.length - pick(random() < 0.8 ? 600 : 3000));
        const reached = sequence.reachable(wanted);
        for (const passed of one.requested) if (passed <= wanted) expect(reached).toBeGreaterThanOrEqual(passed);
        expect(sequence.truncate(wanted)).toBe(reached);
        tokens.length = reached;
        one.requested = one.requested.filter((length) => length <= reached);
      } else if (what < 0.9 && live.length < 5) {
        live.push({ sequence: sequence.fork(), tokens: [...tokens], requested: [...one.requested] });
      } else if (live.length > 1) {
        sequence.dispose();
        live = live.filter((other) => other !== one);
      }
      for (const each of live) check(each);
      expect(caches.budget.usedBytes).toBe(caches.bytes());
    }
    expect(longest).toBeGreaterThan(1500);
    for (const { sequence } of live) sequence.dispose();
    expect([caches.budget.usedBytes, caches.bytes()]).toEqual([0, 0]);
  });
});
