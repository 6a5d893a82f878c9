/** Grouped-query attention in its kernels: heads prepared and cached, scores over pages, parts joined. To position 131071. */
import { describe, expect, it } from 'vitest';
import { groupedQueryAttention } from '../../engine/backend/reference/attention.ts';
import { roundBlocks, TokenRows } from '../../engine/backend/reference/cache.ts';
import { linear, type Matrix, rmsNorm } from '../../engine/backend/reference/linear.ts';
import { matrixLayout } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import {
  attentionKernel,
  attentionMergeKernel,
  attentionShape,
  attentionTile,
} from '../../engine/backend/webgpu/kernels/attention.ts';
import { matrixAttentionKernel, matrixAttentionTile } from '../../engine/backend/webgpu/kernels/attentionTiles.ts';
import { pageTokens } from '../../engine/backend/webgpu/kernels/cacheCode.ts';
import { jointNormKernel, prepareHeadsKernel } from '../../engine/backend/webgpu/kernels/prepareHeads.ts';
import { projectHeadsGroups, projectHeadsKernel } from '../../engine/backend/webgpu/kernels/projections.ts';
import { attentionFactor, inverseFrequencies } from '../../engine/model/spec/rope.ts';
import { cacheRowOf, type GroupedQueryAttentionSpec, type RopeSpec } from '../../engine/model/spec/spec.ts';
import type { CachePrecision } from '../../engine/protocol/models.ts';
import { describeUnless } from '../unit/shared.ts';
import { askedGoldens, lavapipe } from './adapters.ts';
import { packRows, unpackRows } from './cacheRows.ts';
import { normalisedError, randomValues, runKernel, runKernelOutputs, useGpu } from './kernel.ts';

const held = useGpu();
const epsilon = 1e-6;

/** openai/gpt-oss-20b. */
const gptOssRope: RopeSpec = {
  theta: 150_000,
  dimensions: 64,
  layout: 'half-split',
  yarn: {
    factor: 32,
    originalContextTokens: 4096,
    betaFast: 32,
    betaSlow: 1,
    truncate: false,
    attentionFactor: 1.346573590279973,
  },
};

function specOf(fields: Partial<GroupedQueryAttentionSpec> = {}): GroupedQueryAttentionSpec {
  return {
    kind: 'grouped-query',
    numAttentionHeads: 8,
    numKeyValueHeads: 1,
    headDim: 64,
    bias: { qkv: false, output: false },
    qkNorm: false,
    sinks: true,
    rope: gptOssRope,
    softmaxScale: 1 / 8,
    ...fields,
  };
}

interface Case {
  readonly spec: GroupedQueryAttentionSpec;
  /** Tokens cached before. */
  readonly start: number;
  readonly tokens: number;
  readonly splits: number;
  readonly precision: CachePrecision;
  /** Query, key and value by one kernel, as at decode, or by products and `prepareHeads`. */
  readonly fused: boolean;
}

/** What both sides get. */
function dataOf({ spec, start, tokens, precision }: Case) {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = spec;
  const hidden = heads * headDim;
  const matrix = (rows: number, seed: number): Matrix => ({
    rows,
    columns: hidden,
    values: randomValues(rows * hidden, seed, 2 / Math.sqrt(hidden)),
  });
  const row = cacheRowOf(spec);
  const rounded = (values: Float32Array<ArrayBuffer>) => unpackRows(packRows(values, precision, row), precision, row);
  return {
    hidden,
    width: kvHeads * headDim,
    x: randomValues(tokens * hidden, 1, 2),
    gain: randomValues(hidden, 2),
    query: matrix(hidden, 3),
    key: matrix(kvHeads * headDim, 4),
    value: matrix(kvHeads * headDim, 5),
    norms: spec.qkNorm ? randomValues(2 * headDim, 6, 2) : undefined,
    bias: spec.bias.qkv ? randomValues(hidden + 2 * kvHeads * headDim, 7) : undefined,
    sinks: spec.sinks ? randomValues(heads, 8, 2) : undefined,
    keys: rounded(randomValues(start * kvHeads * headDim, 9)),
    values: rounded(randomValues(start * kvHeads * headDim, 10)),
  };
}

type Data = ReturnType<typeof dataOf>;

function expectedOf({ spec, start, tokens, precision }: Case, data: Data): Float32Array {
  const { hidden, width, bias, norms, sinks } = data;
  const { headDim } = spec;
  const biasOf = (first: number, rows: number) => (bias ? { bias: bias.subarray(first, first + rows) } : {});
  const identity = new Float32Array(hidden * hidden).map((_, i) => (i % (hidden + 1) === 0 ? 1 : 0));
  const layer = {
    kind: 'grouped-query',
    query: { weight: data.query, ...biasOf(0, hidden) },
    key: { weight: data.key, ...biasOf(hidden, width) },
    value: { weight: data.value, ...biasOf(hidden + width, width) },
    output: { weight: { rows: hidden, columns: hidden, values: identity } },
    ...(norms && { queryNorm: norms.subarray(0, headDim), keyNorm: norms.subarray(headDim) }),
    ...(sinks && { sinks }),
  } as const;
  const { block } = cacheRowOf(spec);
  const round = precision === 'q8' ? (values: Float32Array) => roundBlocks(values, block) : undefined;
  const rows = () => new TokenRows(width, undefined, round);
  const cache = { keys: rows(), values: rows() };
  cache.keys.write(0, data.keys);
  cache.values.write(0, data.values);
  const span = { firstRow: 0, count: tokens, firstPosition: start, cache };
  return groupedQueryAttention(spec, layer, rmsNorm(data.x, data.gain, epsilon), [span], epsilon);
}

/** Pages in reverse, behind three words of another sequence. */
function pageTable({ start, tokens }: Case): Uint32Array<ArrayBuffer> {
  const pages = Math.ceil((start + tokens) / pageTokens);
  return Uint32Array.from([9, 9, 9, ...Array.from({ length: pages }, (_, page) => pages - 1 - page)]);
}

/** `[tokens, kvHeads, headDim]` as `[page, kvHead, 32, headDim]`. */
function paged({ spec, precision }: Case, rows: Float32Array, table: Uint32Array): Uint32Array<ArrayBuffer> {
  const { numKeyValueHeads: kvHeads, headDim } = spec;
  const values = new Float32Array((table.length - 3) * pageTokens * kvHeads * headDim);
  for (let token = 0; token < rows.length / (kvHeads * headDim); token++) {
    const page = table[3 + Math.floor(token / pageTokens)] ?? 0;
    for (let head = 0; head < kvHeads; head++) {
      const from = (token * kvHeads + head) * headDim;
      const to = ((page * kvHeads + head) * pageTokens + (token % pageTokens)) * headDim;
      values.set(rows.subarray(from, from + headDim), to);
    }
  }
  return packRows(values, precision, cacheRowOf(spec));
}

function anglesOf(rope: RopeSpec, positions: readonly number[]): Float32Array<ArrayBuffer> {
  const factor = attentionFactor(rope);
  const frequencies = [...inverseFrequencies(rope)];
  return Float32Array.from(
    positions.flatMap((position) =>
      frequencies.flatMap((frequency) => [
        Math.cos(position * frequency) * factor,
        Math.sin(position * frequency) * factor,
      ]),
    ),
  );
}

interface Prepared {
  readonly query: Float32Array<ArrayBuffer>;
  readonly keys: Float32Array<ArrayBuffer>;
  readonly values: Float32Array<ArrayBuffer>;
}

async function prepare(one: Case, data: Data, table: Uint32Array<ArrayBuffer>): Promise<Prepared> {
  const { spec, start, tokens, precision, fused } = one;
  const { hidden, width, bias, norms } = data;
  const positions = Array.from({ length: tokens }, (_, i) => start + i);
  const rows = Uint32Array.from(positions.flatMap((position, row) => [position, 3, 0, row]));
  const caches = [paged(one, data.keys, table), paged(one, data.values, table)];
  const run = [rows, table, anglesOf(spec.rope, positions)];
  let results: Float32Array<ArrayBuffer>[];
  if (fused && precision !== 'q8') {
    const projection = ({ rows, columns }: Matrix) => ({ layout: matrixLayout('F32', rows, columns) });
    const shape = {
      spec,
      query: projection(data.query),
      key: projection(data.key),
      value: projection(data.value),
      tokens,
      normEpsilon: epsilon,
      precision,
    };
    const words = [data.query, data.key, data.value].map(({ values }) => Float32Array.from(values));
    const params = new Uint32Array([tokens, 0, 0, 0]);
    const inputs = [...words, data.x, data.gain, ...(bias ? [bias] : []), ...run, params];
    const kernel = projectHeadsKernel(shape, held.gpu.capabilities);
    results = await runKernelOutputs(held.gpu, kernel, inputs, [tokens * hidden, ...caches], projectHeadsGroups(spec));
  } else {
    const x = rmsNorm(data.x, data.gain, epsilon);
    const product = (weight: Matrix, first: number) =>
      Float32Array.from(linear(x, weight, bias?.subarray(first, first + weight.rows)));
    const [query, key, value] = [
      product(data.query, 0),
      product(data.key, hidden),
      product(data.value, hidden + width),
    ];
    const inputs = [...run, key, value, ...(norms ? [norms] : [])];
    const kernel = prepareHeadsKernel(spec, epsilon, precision);
    const groups = [spec.numAttentionHeads + 2 * spec.numKeyValueHeads, tokens] as const;
    results = await runKernelOutputs(held.gpu, kernel, inputs, [query, ...caches], groups);
  }
  const [query, keys, values] = results;
  if (!query || !keys || !values) throw new Error('three outputs');
  return { query, keys, values };
}

async function attend(
  one: Case,
  data: Data,
  table: Uint32Array<ArrayBuffer>,
  prepared: Prepared,
  withMatrices = false,
): Promise<Float32Array> {
  const { spec, start, tokens, splits, precision } = one;
  const shape = attentionShape(spec);
  const { capabilities } = held.gpu;
  const tile = withMatrices ? matrixAttentionTile(shape, precision, capabilities) : attentionTile(shape, tokens);
  if (!tile) throw new Error('this adapter has no matrices for it');
  const rows = Uint32Array.from(Array.from({ length: tokens }, (_, i) => [start + i, 3, 0, 0]).flat());
  const tiles: number[] = [];
  for (let at = 0; at < tokens; at += tile.queries) tiles.push(at, Math.min(tile.queries, tokens - at));
  const sinks = data.sinks ? [data.sinks] : [];
  const inputs = [rows, table, Uint32Array.from(tiles), prepared.query, prepared.keys, prepared.values];
  const groups = [shape.heads / tile.headsPerTile, tiles.length / 2, splits] as const;
  const size = tokens * shape.heads * shape.valueDim;
  const kernel = withMatrices
    ? matrixAttentionKernel(shape, tile, capabilities)
    : attentionKernel(shape, tile, splits, precision);
  if (splits === 1) return runKernel(held.gpu, kernel, [...inputs, ...sinks], size, groups);
  // The kernel divides its output by the splits, so what is written must be all there is: no guard words fit.
  const partWords = splits * tokens * shape.heads * (shape.valueDim + 4);
  const parts = await runUnguarded(kernel, inputs, partWords, groups);
  const merge = attentionMergeKernel(shape, splits);
  return runKernel(held.gpu, merge, [parts, ...sinks], size, [shape.heads, tokens]);
}

type Words = Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

async function runUnguarded(
  source: Parameters<typeof runKernel>[1],
  inputs: readonly Words[],
  outputWords: number,
  groups: readonly [number, number, number],
): Promise<Float32Array<ArrayBuffer>> {
  const { gpu } = held;
  const kernel = await gpu.kernel(source);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffers: GPUBuffer[] = [];
  for (const words of [...inputs, new Float32Array(outputWords).fill(Number.NaN)]) {
    const buffer = await gpu.allocate('binding', words.byteLength, usage);
    gpu.device.queue.writeBuffer(buffer, 0, words);
    buffers.push(buffer);
  }
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, gpu.bind(kernel, buffers));
  pass.dispatchWorkgroups(...groups);
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  const output = buffers.at(-1);
  if (!output) throw new Error('an output');
  const result = new Float32Array(await gpu.readBack(output, 4 * outputWords));
  for (const buffer of buffers) gpu.free(buffer);
  return result;
}

const caseOf = (fields: Partial<Case>): Case => ({
  ...{ spec: specOf(), start: 0, tokens: 1, splits: 1, precision: 'f32', fused: false },
  ...fields,
});

async function check(fields: Partial<Case>): Promise<void> {
  const one = caseOf(fields);
  const data = dataOf(one);
  const table = pageTable(one);
  const actual = await attend(one, data, table, await prepare(one, data, table));
  // Halves keep eleven bits of the new keys and values; the old ones are halves on both sides.
  const bound = one.precision === 'f16' ? 1e-6 : 1e-9;
  expect(normalisedError(actual, expectedOf(one, data))).toBeLessThan(bound);
}

/** From the same cache in f16, matrices give what f32 does. */
async function checkMatrices(fields: Partial<Case>): Promise<void> {
  const one = caseOf({ ...fields, precision: 'f16' });
  const data = dataOf(one);
  const table = pageTable(one);
  const prepared = await prepare(one, data, table);
  const actual = await attend(one, data, table, prepared, true);
  expect(normalisedError(actual, await attend(one, data, table, prepared))).toBeLessThan(1e-11);
  expect(normalisedError(actual, expectedOf(one, data))).toBeLessThan(1e-6);
}

const qwen3 = specOf({
  numAttentionHeads: 8,
  numKeyValueHeads: 2,
  headDim: 128,
  qkNorm: true,
  sinks: false,
  softmaxScale: 128 ** -0.5,
  rope: { theta: 1e6, dimensions: 128, layout: 'half-split' },
});

/** A software GPU takes half a minute for 131,072 keys. */
const far = askedGoldens === 'all';
const tooFar = 'takes half a minute on a software GPU: npm run proof:gpu';

it('queries and keys are normalised over all heads as by the reference (MiniMax-M2)', async () => {
  const spec = specOf({ numAttentionHeads: 6, numKeyValueHeads: 2, headDim: 36, qkNorm: true, jointNorm: true });
  const [queryWidth, keyWidth, tokens] = [216, 72, 3];
  const norms = randomValues(queryWidth + keyWidth, 1, 2);
  const query = randomValues(tokens * queryWidth, 2, 3);
  const key = randomValues(tokens * keyWidth, 3, 0.1);
  const kernel = jointNormKernel(spec, epsilon, held.gpu.capabilities);
  const [queries, keys] = await runKernelOutputs(held.gpu, kernel, [norms], [query, key], [2, tokens]);
  if (!queries || !keys) throw new Error('two outputs');
  const expected = (values: Float32Array, gain: Float32Array) => rmsNorm(values, gain, epsilon);
  expect(normalisedError(queries, expected(query, norms.subarray(0, queryWidth)))).toBeLessThan(1e-12);
  expect(normalisedError(keys, expected(key, norms.subarray(queryWidth)))).toBeLessThan(1e-12);
});

describe('grouped-query attention equals the reference', () => {
  it('for the first token', () => check({}));
  it('for a prompt shorter than a tile, across a page boundary', () => check({ start: 27, tokens: 21 }));
  it('with biases, by the fused projection, in parts', () =>
    check({ spec: specOf({ bias: { qkv: true, output: false } }), start: 40, tokens: 3, splits: 4, fused: true }));
  it('with normalised heads of 128 (Qwen3)', () => check({ spec: qwen3, start: 33, tokens: 5 }));
  it('with pairs interleaved and half of the head rotated', () =>
    check({
      spec: specOf({ sinks: false, rope: { theta: 10_000, dimensions: 32, layout: 'interleaved' } }),
      start: 5,
      tokens: 2,
      fused: true,
    }));
  it.each([true, false])('with queries sharpened by position (fused: %s)', (fused) =>
    check({
      spec: specOf({ sinks: false, queryTemperature: { beta: 0.7, originalContextTokens: 19 } }),
      start: 55,
      tokens: 4,
      fused,
    }),
  );
  it('in a sliding window that starts within a page', () =>
    check({ spec: specOf({ slidingWindow: 50 }), start: 100, tokens: 6, splits: 2 }));
  it('in as many splits as the context fills', () => check({ start: 300, tokens: 1, splits: 8, fused: true }));
  it('in parts of a cache in f16 (Qwen3)', () => check({ spec: qwen3, start: 500, splits: 4, precision: 'f16' }));
  it('with more splits than blocks of keys', () => check({ start: 3, tokens: 1, splits: 16, fused: true }));
  it('with the cache in f16', () => check({ start: 64, tokens: 2, precision: 'f16', splits: 4, fused: true }));
  it.each([true, false])('clamps values beyond the range of f16 (fused: %s)', async (fused) => {
    const one = caseOf({ tokens: 2, precision: 'f16', fused });
    const data = dataOf(one);
    const value = { ...data.value, values: data.value.values.map((one) => 1e5 * one) };
    const { values } = await prepare(one, { ...data, value }, pageTable(one));
    const kept = unpackRows(values, 'f16', cacheRowOf(one.spec)).map(Math.abs);
    expect(Math.max(...kept)).toBe(65_504);
    expect(kept.filter((one) => one > 0 && one < 65_504).length).toBeGreaterThan(0);
  });
  it('with the cache in 8 bits', () => check({ start: 64, tokens: 2, precision: 'q8', splits: 4 }));
  it('with an 8-bit cache, heads of 12 values, from the first token', () =>
    check({
      spec: specOf({ headDim: 12, rope: { theta: 10_000, dimensions: 12, layout: 'half-split' } }),
      tokens: 35,
      precision: 'q8',
    }));
  it('at position 131071 of GPT-OSS, over all keys', ({ skip }) =>
    far ? check({ start: 131_070, tokens: 2, splits: 16, fused: true }) : skip(tooFar));
  it('at position 131071 of GPT-OSS, in its window of 128', ({ skip }) =>
    far ? check({ spec: specOf({ slidingWindow: 128 }), start: 131_070, tokens: 2, splits: 16 }) : skip(tooFar));
  it('at position 131071 of Qwen3, with YaRN, in f16', ({ skip }) => {
    if (!far) skip(tooFar);
    const yarn = { factor: 4, originalContextTokens: 32_768, betaFast: 32, betaSlow: 1, truncate: true };
    const rope: RopeSpec = { ...qwen3.rope, yarn: { ...yarn, attentionFactor: 0.1 * Math.log(4) + 1 } };
    return check({ spec: { ...qwen3, rope }, start: 131_071, splits: 16, precision: 'f16' });
  });
});

const noMatrices = lavapipe ? undefined : 'this adapter has no subgroup matrices';
describeUnless(noMatrices, 'a prompt by subgroup matrices', () => {
  it('from its first token, with sinks, in several tiles', () => checkMatrices({ tokens: 45 }));
  it('behind cached tokens, across page boundaries', () => checkMatrices({ start: 75, tokens: 21 }));
  it('in a window that starts within a page, with rows of a tile that no query fills (seven heads a key)', () =>
    checkMatrices({
      spec: specOf({ numAttentionHeads: 14, numKeyValueHeads: 2, slidingWindow: 50 }),
      start: 100,
      tokens: 30,
    }));
  it('with heads of 128 and several key heads (Qwen3), where maxima keep growing, so that sums are rescaled', () =>
    checkMatrices({ spec: { ...qwen3, softmaxScale: qwen3.softmaxScale * 8 }, start: 200, tokens: 20 }));
  it('with a key head for each query head, of 80 values, whose columns do not divide among subgroups', () =>
    checkMatrices({
      spec: specOf({
        ...{ numAttentionHeads: 2, numKeyValueHeads: 2, headDim: 80, sinks: false },
        rope: { theta: 10_000, dimensions: 80, layout: 'half-split' },
      }),
      start: 10,
      tokens: 90,
    }));
});
