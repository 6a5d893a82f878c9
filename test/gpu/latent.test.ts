import { describe, expect, it } from 'vitest';
import { TokenRows } from '../../engine/backend/reference/cache.ts';
import { latentAttention } from '../../engine/backend/reference/latentAttention.ts';
import { linear } from '../../engine/backend/reference/linear.ts';
import { rmsNorm } from '../../engine/backend/reference/norm.ts';
import { rotate } from '../../engine/backend/reference/rope.ts';
import { attentionKernel, attentionShape, attentionTile } from '../../engine/backend/webgpu/kernels/attention.ts';
import { type CachePrecision, pageTokens } from '../../engine/backend/webgpu/kernels/cacheCode.ts';
import { matrixMatrixGroups, matrixMatrixKernel } from '../../engine/backend/webgpu/kernels/matrixMatrix.ts';
import { matrixVectorKernel, rowsPerGroup } from '../../engine/backend/webgpu/kernels/matrixVector.ts';
import { prepareLatentKernel } from '../../engine/backend/webgpu/kernels/prepareLatent.ts';
import { matrixLayout } from '../../engine/backend/webgpu/weightLayout.ts';
import { attentionFactor, inverseFrequencies } from '../../engine/model/rope.ts';
import type { LatentAttentionSpec, RopeSpec } from '../../engine/model/spec.ts';
import { normalisedError, randomValues, runKernel, runKernelOutputs, useGpu } from './kernel.ts';

const epsilon = 1e-6;

function latentSpec(heads: number, rank: number, nope: number, rope: RopeSpec): LatentAttentionSpec {
  const ropeHeadDim = rope.dimensions;
  const sizes = { keyValueRank: rank, nopeHeadDim: nope, ropeHeadDim, valueHeadDim: 24 };
  return { kind: 'latent', numAttentionHeads: heads, ...sizes, rope, softmaxScale: (nope + ropeHeadDim) ** -0.5 };
}

/** (cos, sin) of each token and pair. */
function anglesOf(rope: RopeSpec, positions: readonly number[]): Float32Array<ArrayBuffer> {
  const factor = attentionFactor(rope);
  return Float32Array.from(
    positions.flatMap((position) =>
      [...inverseFrequencies(rope)].flatMap((frequency) => [
        Math.cos(position * frequency) * factor,
        Math.sin(position * frequency) * factor,
      ]),
    ),
  );
}

/** Every run of `width` values, from `start` up to `end` of it. */
function parts(values: Float32Array, width: number, start: number, end: number): Float32Array {
  const runs = Array.from({ length: values.length / width }, (_, run) => [
    ...values.subarray(run * width + start, run * width + end),
  ]);
  return Float32Array.from(runs.flat());
}

/** One sequence whose page table starts at word 3 of `pages`. */
const rowsAt = (positions: readonly number[]) => Uint32Array.from(positions.flatMap((position) => [position, 3, 0, 0]));

const held = useGpu();

interface Prepared {
  readonly nope: Float32Array<ArrayBuffer>;
  readonly rope: Float32Array<ArrayBuffer>;
  readonly cache: Float32Array<ArrayBuffer>;
}

async function prepare(
  spec: LatentAttentionSpec,
  precision: CachePrecision,
  positions: readonly number[],
  pages: Uint32Array<ArrayBuffer>,
  inputs: { readonly query: Float32Array; readonly latent: Float32Array; readonly gain: Float32Array },
): Promise<Prepared> {
  const { numAttentionHeads: heads, keyValueRank, nopeHeadDim, ropeHeadDim } = spec;
  const tokens = positions.length;
  const source = prepareLatentKernel(spec, epsilon, precision, held.gpu.capabilities);
  const pageWords = (pageTokens * (keyValueRank + ropeHeadDim)) / (precision === 'f16' ? 2 : 1);
  const zeros = new Float32Array((Math.max(...pages) + 1) * pageWords);
  const [nope, rope, cache] = await runKernelOutputs(
    held.gpu,
    source,
    [
      rowsAt(positions),
      pages,
      anglesOf(spec.rope, positions),
      Float32Array.from(inputs.query),
      Float32Array.from(inputs.latent),
      Float32Array.from(inputs.gain),
    ],
    [tokens * heads * nopeHeadDim, tokens * heads * ropeHeadDim, zeros],
    [heads + 1, tokens],
  );
  if (!nope || !rope || !cache) throw new Error('three outputs');
  return { nope, rope, cache };
}

describe('queries and latents are prepared as the reference does', () => {
  async function check(spec: LatentAttentionSpec, precision: CachePrecision, positions: readonly number[]) {
    const { numAttentionHeads: heads, keyValueRank: rank, nopeHeadDim: nope, ropeHeadDim: rope } = spec;
    const tokens = positions.length;
    const query = randomValues(tokens * heads * (nope + rope), 1);
    const latent = randomValues(tokens * (rank + rope), 2);
    const gain = randomValues(rank, 3);
    // Three words of another sequence, then every page the first but the one that holds the last position.
    const pages = new Uint32Array(4 + Math.floor(Math.max(...positions) / pageTokens));
    pages[pages.length - 1] = 1;
    const result = await prepare(spec, precision, positions, pages, { query, latent, gain });

    expect(result.nope).toEqual(parts(query, nope + rope, 0, nope));
    const roped = parts(query, nope + rope, nope, nope + rope);
    rotate(roped, { heads, headDim: rope }, spec.rope, positions);
    expect(normalisedError(result.rope, roped)).toBeLessThan(1e-12);

    const normed = rmsNorm(parts(latent, rank + rope, 0, rank), gain, epsilon);
    const key = parts(latent, rank + rope, rank, rank + rope);
    rotate(key, { heads: 1, headDim: rope }, spec.rope, positions);
    const cache =
      precision === 'f16'
        ? Float32Array.from(new Float16Array(result.cache.buffer, 0, 2 * result.cache.length))
        : result.cache;
    const bound = precision === 'f16' ? 1e-6 : 1e-12;
    for (const [token, position] of positions.entries()) {
      const page = pages[3 + Math.floor(position / pageTokens)] ?? 0;
      const start = (page * pageTokens + (position % pageTokens)) * (rank + rope);
      const expected = [
        ...normed.subarray(token * rank, (token + 1) * rank),
        ...key.subarray(token * rope, (token + 1) * rope),
      ];
      expect(normalisedError(cache.subarray(start, start + rank + rope), expected)).toBeLessThan(bound);
    }
    const written = cache.filter((value) => value !== 0).length;
    expect(written).toBeLessThanOrEqual(tokens * (rank + rope));
  }

  it('at the dimensions of DeepSeek-V3, near position 131071, f32', () =>
    check(latentSpec(8, 512, 128, { theta: 10000, dimensions: 64, layout: 'interleaved' }), 'f32', [131070, 131071]));

  it('small, halves paired, over a page border, f16', () =>
    check(latentSpec(3, 36, 12, { theta: 10000, dimensions: 8, layout: 'half-split' }), 'f16', [30, 31, 32]));
});

describe('latent attention', () => {
  /** Row-major `[rows, columns]` as F32 words. */
  const stored = (values: Float32Array, rows: number) => ({
    layout: matrixLayout('F32', rows, values.length / rows),
    words: new Uint32Array(Float32Array.from(values).buffer),
  });

  it('through absorbed products head by head equals the reference', async () => {
    const yarn = {
      factor: 4,
      originalContextTokens: 16,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
      attentionFactor: 1,
    };
    const rope: RopeSpec = { theta: 10000, dimensions: 16, layout: 'interleaved', yarn };
    const [heads, rank, nope, hidden] = [4, 64, 32, 40];
    const spec = latentSpec(heads, rank, nope, rope);
    const value = spec.valueHeadDim;
    const positions = Array.from({ length: 35 }, (_, position) => position);
    const tokens = positions.length;
    const matrix = (rows: number, columns: number, seed: number) => ({
      rows,
      columns,
      values: randomValues(rows * columns, seed, 0.5),
    });
    const queryUp = matrix(heads * (nope + 16), hidden, 1);
    const keyValueDown = matrix(rank + 16, hidden, 2);
    const gain = randomValues(rank, 3, 2);
    const keyUp = randomValues(heads * nope * rank, 4, 0.5);
    const valueUp = randomValues(heads * value * rank, 5, 0.5);
    const identity = new Float32Array((heads * value) ** 2).map((_, i) => (i % (heads * value + 1) === 0 ? 1 : 0));
    const input = randomValues(tokens * hidden, 6);
    const expected = latentAttention(
      spec,
      {
        kind: 'latent',
        queryUp,
        keyValueDown,
        keyValueNorm: gain,
        keyUp,
        valueUp,
        output: { rows: heads * value, columns: heads * value, values: identity },
      },
      input,
      [
        {
          firstRow: 0,
          count: tokens,
          firstPosition: 0,
          cache: { keys: new TokenRows(16), values: new TokenRows(rank) },
        },
      ],
      epsilon,
    );

    const { gpu } = held;
    const pages = Uint32Array.of(9, 9, 9, 2, 0);
    const query = linear(input, queryUp);
    const prepared = await prepare(spec, 'f32', positions, pages, { query, latent: linear(input, keyValueDown), gain });
    const transposed = new Float32Array(keyUp.length).map((_, i) => {
      const [head, row, column] = [Math.floor(i / (rank * nope)), Math.floor(i / nope) % rank, i % nope];
      return keyUp[(head * nope + column) * rank + row] ?? 0;
    });
    const up = stored(transposed, heads * rank);
    const perHead = { layout: up.layout, rowsPerHead: rank };
    const params = new Uint32Array([tokens, 0, 0, 0]);
    const absorbed = await runKernel(
      gpu,
      matrixMatrixKernel(perHead),
      [up.words, prepared.nope, params],
      tokens * heads * rank,
      matrixMatrixGroups(perHead, tokens),
    );
    const shape = attentionShape(spec);
    const tile = attentionTile(shape, tokens);
    const tiles = positions
      .filter((position) => position % tile.queries === 0)
      .flatMap((first) => [first, Math.min(tile.queries, tokens - first)]);
    const attended = await runKernel(
      gpu,
      attentionKernel(shape, tile, 1, 'f32'),
      [rowsAt(positions), pages, Uint32Array.from(tiles), Float32Array.from(absorbed), prepared.rope, prepared.cache],
      tokens * heads * rank,
      [heads / tile.headsPerTile, tiles.length / 2, 1],
    );
    const down = stored(valueUp, heads * value);
    const last = 5;
    const mixed = Float32Array.from(attended.subarray((tokens - last) * heads * rank));
    const values = await runKernel(
      gpu,
      matrixVectorKernel({ layout: down.layout, rowsPerHead: value, tokens: last }, gpu.capabilities),
      [down.words, mixed],
      last * heads * value,
      [(heads * value) / rowsPerGroup],
    );
    expect(normalisedError(values, expected.subarray((tokens - last) * heads * value))).toBeLessThan(1e-10);
  });
});
