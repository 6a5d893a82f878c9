import { describe, expect, it } from 'vitest';
import { passesOf } from '../../../engine/backend/backend.ts';
import {
  DispatchLimit,
  longestDispatchMs,
  operationsOf,
} from '../../../engine/backend/webgpu/decoder/dispatchLimit.ts';
import { models } from '../../../scripts/kernels/models.ts';

const named = (wanted: string) => {
  const model = models.find(({ name }) => name === wanted);
  if (!model) throw new Error(`no model ${wanted}`);
  return model.spec;
};

describe('the operations of a token', () => {
  it('are those of the published shapes', () => {
    // Qwen3-8B (config.json): 4096 wide, 12288 between, 36 layers, 32 heads of 128: the gate is the largest matmul, and the sum equals the parameters.
    const { largest, all } = operationsOf(named('Qwen3-8B Q4_K_M'), 1);
    expect(largest).toBe(2 * 4096 * 12_288);
    expect(all / (2 * 36 * (3 * 4096 * 12_288 + 4096 * 4096))).toBeCloseTo(1, 1);
  });

  it('are dominated by attention at long contexts, up to the sliding window where there is one', () => {
    const spec = named('gpt-oss-20b');
    const far = operationsOf(spec, 131_072).largest;
    // 64 heads of 64; attention counts eight times.
    expect(far).toBe(8 * 2 * 64 * 128 * 131_072);
    const windows = { ...spec, layers: spec.layers.filter((_, i) => i % 2 === 0) };
    expect(operationsOf(windows, 131_072).largest).toBe(operationsOf(windows, 4096).largest);
  });
});

describe('a pass', () => {
  it.each(models)('of $name has no dispatch that is estimated above 250 ms, however slow the device', ({ spec }) => {
    for (const operationsPerSecond of [1e11, 1e12, 3e13]) {
      const limit = new DispatchLimit(spec, operationsPerSecond);
      for (const end of [128, 8192, 131_072]) {
        const tokens = limit.tokensUntil(end);
        const ms = (1000 * tokens * operationsOf(spec, end).largest) / operationsPerSecond;
        // Up to sixteen tokens run as rows, with keys split over workgroups and loops, so there are no tiles.
        if (tokens > 16) expect(ms).toBeLessThanOrEqual(longestDispatchMs);
      }
    }
  });

  it('has more tokens the faster earlier passes were', () => {
    const spec = named('Qwen3-8B Q4_K_M');
    const limit = new DispatchLimit(spec, 1e11);
    const before = limit.tokensUntil(1024);
    // A prompt's part of 128 tokens in 60 ms: 36 layers' work.
    limit.measured(128, 1024, 60);
    expect(limit.tokensUntil(1024)).toBeGreaterThan(10 * before);
    const long = limit.tokensUntil(131_072);
    limit.measured(128, 1024, 600);
    expect(limit.tokensUntil(131_072)).toBeLessThan(long / 5);
    // Too few tokens to change the estimate.
    limit.measured(4, 1024, 1);
    expect(limit.tokensUntil(131_072)).toBeLessThan(long / 5);
  });
});

describe('a batch in parts', () => {
  const tokens = (count: number) => Array.from({ length: count }, (_, i) => i);
  it('keeps every token in order and its logits', () => {
    const sequence = { length: 0, tokensUntilCheckpoint: () => Number.POSITIVE_INFINITY };
    const slices = [
      { sequence, tokens: tokens(5), logits: 'last' },
      { sequence, tokens: tokens(0), logits: 'none' },
      { sequence, tokens: tokens(7), logits: 'all' },
    ] as const;
    const parts = passesOf(slices, 4);
    expect(parts.map((part) => part.map(({ index, slice }) => [index, slice.tokens, slice.logits]))).toEqual([
      [[0, [0, 1, 2, 3], 'none']],
      [
        [0, [4], 'last'],
        [2, [0, 1, 2], 'all'],
      ],
      [[2, [3, 4, 5, 6], 'all']],
    ]);
    expect(passesOf(slices, 100)).toHaveLength(1);
  });

  it('ends a pass where a sequence must keep its state, and contains each sequence at most once per pass', () => {
    const until = (checkpoint: number) => (length: number) =>
      length < checkpoint ? checkpoint - length : Number.POSITIVE_INFINITY;
    const slices = [
      { sequence: { length: 10, tokensUntilCheckpoint: until(12) }, tokens: tokens(5), logits: 'all' },
      { sequence: { length: 0, tokensUntilCheckpoint: until(90) }, tokens: tokens(4), logits: 'last' },
    ] as const;
    const passes = passesOf(slices, 100);
    expect(passes.map((pass) => pass.map(({ index, slice }) => [index, slice.tokens]))).toEqual([
      [[0, [0, 1]]],
      [
        [0, [2, 3, 4]],
        [1, [0, 1, 2, 3]],
      ],
    ]);
  });
});
