import { describe, expect, it } from 'vitest';
import { latentAttention } from '../../engine/backend/reference/attention.ts';
import { roundBlocks, TokenRows } from '../../engine/backend/reference/cache.ts';
import { linear, rmsNorm, rotate } from '../../engine/backend/reference/linear.ts';
import { matrixLayout } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import { attentionKernel, attentionShape, attentionTile } from '../../engine/backend/webgpu/kernels/attention.ts';
import { pageTokens } from '../../engine/backend/webgpu/kernels/cacheCode.ts';
import {
  matrixMatrixGroups,
  matrixMatrixKernel,
  matrixVectorKernel,
} from '../../engine/backend/webgpu/kernels/linear.ts';
import { prepareLatentKernel } from '../../engine/backend/webgpu/kernels/prepareHeads.ts';
import { rowsPerGroup } from '../../engine/backend/webgpu/kernels/vectorProduct.ts';
import { attentionFactor, inverseFrequencies } from '../../engine/model/spec/rope.ts';
import { cacheRowBytes, cacheRowOf, type LatentAttentionSpec, type RopeSpec } from '../../engine/model/spec/spec.ts';
import type { CachePrecision } from '../../engine/protocol/models.ts';
import { unpackRows } from './cacheRows.ts';
import { normalisedError, randomValues, runKernel, runKernelOutputs, tileOperand, useGpu } from './kernel.ts';

const epsilon = 1e-6;

function latentSpec(heads: number, rank: number, nope: number, rope: RopeSpec): LatentAttentionSpec {
  const ropeHeadDim = rope.dimensions;
  const sizes = { keyValueRank: rank, nopeHeadDim: nope, ropeHeadDim, valueHeadDim: 24, normEpsilon: epsilon };
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
const rowsAt = (positions: readonly number[]) =>
  Uint32Array.from(positions.flatMap((position, row) => [position, 3, 0, row]));

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
  const { numAttentionHeads: heads, nopeHeadDim, ropeHeadDim } = spec;
  const tokens = positions.length;
  const source = prepareLatentKernel(spec, precision, held.gpu.capabilities);
  const pageWords = (pageTokens * cacheRowBytes(cacheRowOf(spec), precision)) / 4;
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

describe('prepared queries and latents equal the reference', () => {
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
    const row = cacheRowOf(spec);
    const cache = unpackRows(result.cache, precision, row);
    const bound = precision === 'f32' ? 1e-12 : precision === 'f16' ? 1e-6 : 1e-10;
    const kept = (rows: Float32Array) => (precision === 'q8' ? roundBlocks(rows, row.block) : rows);
    for (const [token, position] of positions.entries()) {
      const page = pages[3 + Math.floor(position / pageTokens)] ?? 0;
      const start = (page * pageTokens + (position % pageTokens)) * (rank + rope);
      const expected = [
        ...kept(normed.subarray(token * rank, (token + 1) * rank)),
        ...kept(key.subarray(token * rope, (token + 1) * rope)),
      ];
      expect(normalisedError(cache.subarray(start, start + rank + rope), expected)).toBeLessThan(bound);
    }
    const written = cache.filter((value) => value !== 0).length;
    expect(written).toBeLessThanOrEqual(tokens * (rank + rope));
  }

  it('at the dimensions of DeepSeek-V3, near position 131071, f32', () =>
    check(latentSpec(8, 512, 128, { theta: 10000, dimensions: 64, layout: 'interleaved' }), 'f32', [131070, 131071]));

  it('at the dimensions of DeepSeek-V3, near position 131071, in 8 bits', () =>
    check(latentSpec(8, 512, 128, { theta: 10000, dimensions: 64, layout: 'interleaved' }), 'q8', [131070, 131071]));

  it('small, in 8 bits, over a page border', () =>
    check(latentSpec(3, 36, 12, { theta: 10000, dimensions: 8, layout: 'half-split' }), 'q8', [30, 31, 32]));

  it('small, halves paired, over a page border, f16', () =>
    check(latentSpec(3, 36, 12, { theta: 10000, dimensions: 8, layout: 'half-split' }), 'f16', [30, 31, 32]));
});

describe('latent attention', () => {
  const yarn = { factor: 4, originalContextTokens: 16, betaFast: 32, betaSlow: 1, truncate: true, attentionFactor: 1 };
  const rope: RopeSpec = { theta: 10000, dimensions: 16, layout: 'interleaved', yarn };
  const [heads, rank, nope, hidden] = [4, 64, 32, 40];
  const spec = latentSpec(heads, rank, nope, rope);
  const value = spec.valueHeadDim;
  const tokens = 35;
  const positions = Array.from({ length: tokens }, (_, position) => position);
  // The sequence's table starts at word 3; its second page lies before its first.
  const pages = Uint32Array.of(9, 9, 9, 2, 0);

  const matrix = (rows: number, columns: number, seed: number) => ({
    rows,
    columns,
    values: randomValues(rows * columns, seed, 0.5),
  });
  const weights = {
    kind: 'latent',
    queryUp: matrix(heads * (nope + 16), hidden, 1),
    keyValueDown: matrix(rank + 16, hidden, 2),
    keyValueNorm: randomValues(rank, 3, 2),
    /** `[heads, nope, rank]` */
    keyUp: randomValues(heads * nope * rank, 4, 0.5),
    /** `[heads, value, rank]` */
    valueUp: randomValues(heads * value * rank, 5, 0.5),
    // The identity, so that what comes out is what the heads give.
    output: {
      rows: heads * value,
      columns: heads * value,
      values: new Float32Array((heads * value) ** 2).map((_, i) => (i % (heads * value + 1) === 0 ? 1 : 0)),
    },
  } as const;

  /** Row-major `[rows, columns]` as F32 words. */
  const stored = (values: Float32Array, rows: number) => ({
    layout: matrixLayout('F32', rows, values.length / rows),
    words: new Uint32Array(Float32Array.from(values).buffer),
  });

  /** The key's expansion as it is multiplied: `[heads, rank, nope]`. */
  const transposedKeyUp = () =>
    new Float32Array(weights.keyUp.length).map((_, i) => {
      const [head, row, column] = [Math.floor(i / (rank * nope)), Math.floor(i / nope) % rank, i % nope];
      return weights.keyUp[(head * nope + column) * rank + row] ?? 0;
    });

  /** `[tokens, heads · rank]`, as a prompt's product. */
  async function absorbed(nopeQuery: Float32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>> {
    const { layout, words } = stored(transposedKeyUp(), heads * rank);
    const shape = { layout, rowsPerHead: rank };
    const operand = await tileOperand(held.gpu, nopeQuery, heads * nope);
    const inputs = [words, ...operand, new Uint32Array([tokens, 0, 0, 0])];
    const source = matrixMatrixKernel(shape, held.gpu.capabilities);
    const groups = matrixMatrixGroups(shape, tokens, held.gpu.capabilities);
    return Float32Array.from(await runKernel(held.gpu, source, inputs, tokens * heads * rank, groups));
  }

  /** `[tokens, heads · rank]` */
  function attended(query: Float32Array<ArrayBuffer>, { rope: ropeQuery, cache }: Prepared): Promise<Float32Array> {
    const shape = attentionShape(spec);
    const tile = attentionTile(shape, tokens);
    const tiles = positions
      .filter((position) => position % tile.queries === 0)
      .flatMap((first) => [first, Math.min(tile.queries, tokens - first)]);
    const source = attentionKernel(shape, tile, 1, 'f32');
    const inputs = [rowsAt(positions), pages, Uint32Array.from(tiles), query, ropeQuery, cache];
    const groups = [heads / tile.headsPerTile, tiles.length / 2, 1] as const;
    return runKernel(held.gpu, source, inputs, tokens * heads * rank, groups);
  }

  /** `[count, heads · value]`, as rows of a decode step. */
  function expanded(mixed: Float32Array<ArrayBuffer>, count: number): Promise<Float32Array> {
    const { layout, words } = stored(weights.valueUp, heads * value);
    const source = matrixVectorKernel({ layout, rowsPerHead: value, tokens: count }, held.gpu.capabilities);
    const groups = [(heads * value) / rowsPerGroup] as const;
    return runKernel(held.gpu, source, [words, mixed], count * heads * value, groups);
  }

  it('in absorbed form, head by head, equals the reference', async () => {
    const input = randomValues(tokens * hidden, 6);
    const cache = { keys: new TokenRows(16), values: new TokenRows(rank) };
    const span = { firstRow: 0, count: tokens, firstPosition: 0, cache };
    const expected = latentAttention(spec, weights, input, [span]);

    const query = linear(input, weights.queryUp);
    const latent = linear(input, weights.keyValueDown);
    const prepared = await prepare(spec, 'f32', positions, pages, { query, latent, gain: weights.keyValueNorm });
    const mixed = await attended(await absorbed(prepared.nope), prepared);
    const last = 5;
    const values = await expanded(Float32Array.from(mixed.subarray((tokens - last) * heads * rank)), last);
    expect(normalisedError(values, expected.subarray((tokens - last) * heads * value))).toBeLessThan(1e-10);
  });
});
