import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import type { GraphInputs } from '../../../engine/backend/onnx/graphRun.ts';
import { KeyValueCache } from '../../../engine/backend/onnx/keyValueCache.ts';
import { layoutOf, storageOf } from '../../../engine/backend/processor/decoder.ts';
import type { CacheMessage } from '../../../engine/backend/processor/messages.ts';
import { BlockCache, type CachedSequence } from '../../../engine/kv/blockCache.ts';
import { maxCheckpoints } from '../../../engine/kv/blocks.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const window = 40;
const layer = { type: 'float32', keyValueHeads: 1, keyDim: 1, valueDim: 1, valuesInKeys: false } as const;
/** One layer with full attention, one with a window. */
const plan: GraphInputs = {
  numAttentionHeads: 1,
  rotations: [],
  windowGroups: [{}, { slidingWindow: window }],
  layers: [
    { ...layer, group: 0 },
    { ...layer, group: 1 },
  ],
  states: [],
};
const rowsOfLayer = 2;
const mostTokensPerRun = 256;

/** The decoder's side, and the thread's caches, which apply messages at once. */
class Caches {
  readonly byId = new Map<number, KeyValueCache>();
  readonly blocks = new BlockCache(
    storageOf({
      ...plan,
      contextTokens: 1_000_000,
      cacheBudgetBytes: Number.POSITIVE_INFINITY,
      cacheOrder: 'ranges of 64',
      thread: {
        tell: (message) => this.#tell(message),
        ask: async () => {
          throw new Error('Nothing is computed here.');
        },
      },
    }),
    1_000_000,
  );

  cache(id: number): KeyValueCache {
    const cache = this.byId.get(id);
    if (!cache) throw new Error(`no cache ${id}`);
    return cache;
  }

  /** Each token's keys and values are its number. */
  append(sequence: CachedSequence, tokens: readonly number[]): void {
    this.blocks.prepare([{ sequence, tokens: tokens.length }]);
    const cache = this.cache(sequence.id);
    cache.arrange(layoutOf(sequence), cache.length);
    const rows = plan.layers.length * rowsOfLayer;
    const values = Float32Array.from(new Array(rows).fill(tokens).flat());
    cache.append({ cached: new Tensor('float32', values, [rows, tokens.length]) }, tokens.length);
    sequence.advance(tokens.length);
  }

  /** Bytes of all allocated memory. */
  bytes(): number {
    const ranges = new Set([...this.byId.values()].flatMap((cache) => cache.owned()));
    return [...ranges].reduce((sum, { values }) => sum + values.byteLength, 0);
  }

  #tell(message: CacheMessage): void {
    if (message.kind === 'create') {
      const { sequence, from } = message;
      this.byId.set(sequence, from === undefined ? new KeyValueCache(plan) : this.cache(from).fork());
    } else if (message.kind === 'change') this.cache(message.sequence).arrange(message.layout, message.length);
    else if (message.kind === 'dispose') {
      this.cache(message.sequence).dispose();
      this.byId.delete(message.sequence);
    }
  }
}

const neededBytes = ({ tables, length }: CachedSequence, tokens: number): number =>
  tables.reduce((sum, table) => sum + table.blocksNeeded(length, length + tokens) * 64 * 4 * rowsOfLayer, 0);

describe('CPU caches that grow, fork, truncate and set checkpoints at random', () => {
  it.each([1, 2, 3, 4])(
    'hold everything that is attended to, also at checkpoints, in exactly the accounted memory (%i)',
    (seed) => {
      const random = seededRandom(seed);
      const pick = (count: number): number => Math.floor(random() * count);
      const caches = new Caches();
      let live = [{ sequence: caches.blocks.create(), tokens: [] as number[], requested: [] as number[] }];
      let [next, longest] = [1, 0];

      const check = ({ sequence, tokens, requested }: (typeof live)[number]): void => {
        const cache = caches.cache(sequence.id);
        expect([sequence.length, cache.length]).toEqual([tokens.length, tokens.length]);
        const layout = layoutOf(sequence, Math.ceil(tokens.length / 64));
        for (const group of plan.windowGroups.keys()) {
          const ranges = layout[group] ?? [];
          const { first: start } = tokens.length > 0 ? cache.tail(group) : { first: 0 };
          expect(ranges.at(-1)?.first ?? 0).toBe(start);
          const firstSeen = group === 0 ? 0 : Math.max(0, tokens.length - window + 1);
          expect(start).toBeLessThanOrEqual(firstSeen);
          const saved = new Float32Array(cache.saved(group, layout).buffer);
          let at = 0;
          for (const { first, columns } of ranges) {
            const held = tokens.slice(first, first + columns);
            for (let row = 0; row < rowsOfLayer; row++, at += columns) {
              expect(Array.from(saved.subarray(at, at + held.length))).toEqual(held);
            }
          }
          expect(at).toBe(saved.length);
          for (const passed of requested)
            if (passed < tokens.length) {
              const [from, to] = [group === 0 ? 0 : Math.max(0, passed - window + 1), passed];
              expect(ranges.some(({ first, columns }) => first <= from && to <= first + columns)).toBe(true);
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
          const most = caches.blocks.usedBytes + neededBytes(sequence, count);
          const fresh = Array.from({ length: count }, () => next++);
          caches.append(sequence, fresh);
          tokens.push(...fresh);
          expect(caches.blocks.usedBytes).toBeLessThanOrEqual(most);
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
        expect(caches.blocks.usedBytes).toBe(caches.bytes());
      }
      expect(longest).toBeGreaterThan(1500);
      for (const { sequence } of live) sequence.dispose();
      expect([caches.blocks.usedBytes, caches.bytes()]).toEqual([0, 0]);
    },
  );
});
