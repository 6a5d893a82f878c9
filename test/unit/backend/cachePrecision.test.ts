import { expect, it } from 'vitest';
import { roundBlocks } from '../../../engine/backend/reference/cache.ts';
import { type CachedAttentionSpec, cacheRowBytes, cacheRowOf } from '../../../engine/model/spec/spec.ts';

it('an 8-bit value is rounded to the nearest multiple of its block’s largest / 127, ties to even', () => {
  expect([...roundBlocks(Float32Array.of(127, -126.6, 0.4, 0.6, 254, 3, -5, 0), 4)]).toEqual([
    ...[127, -127, 0, 1],
    ...[254, 4, -4, 0],
  ]);
  expect([...roundBlocks(new Float32Array(4), 4)]).toEqual([0, 0, 0, 0]);
});

const rope = { theta: 10_000, dimensions: 8, layout: 'half-split' } as const;

it('a head has a scale for each 32 values, or for a divisor of its width; a latent and its key share none', () => {
  const head = (headDim: number): CachedAttentionSpec => ({
    kind: 'grouped-query',
    numAttentionHeads: 1,
    numKeyValueHeads: 1,
    headDim,
    bias: { qkv: false, output: false },
    qkNorm: false,
    sinks: false,
    rope,
    softmaxScale: 1,
  });
  expect([128, 80, 24, 12].map((headDim) => cacheRowOf(head(headDim)).block)).toEqual([32, 16, 8, 4]);
  expect(cacheRowBytes(cacheRowOf(head(128)), 'q8')).toBe(128 + 4 * 4);
  const latent: CachedAttentionSpec = {
    kind: 'latent',
    numAttentionHeads: 1,
    keyValueRank: 512,
    nopeHeadDim: 8,
    ropeHeadDim: 64,
    valueHeadDim: 8,
    normEpsilon: 1e-6,
    rope,
    softmaxScale: 1,
  };
  expect(cacheRowOf(latent)).toEqual({ width: 576, block: 32 });
  expect(cacheRowOf({ ...latent, ropeHeadDim: 8 })).toEqual({ width: 520, block: 8 });
});
