import { describe, expect, it } from 'vitest';
import { type Choice, expertNetworks, route } from '../../engine/backend/reference/feedForward.ts';
import { linear } from '../../engine/backend/reference/linear.ts';
import type { DenseLinear, GatedNetwork } from '../../engine/backend/reference/weights.ts';
import { activationGroups, activationKernel } from '../../engine/backend/webgpu/kernels/gatedNetwork.ts';
import {
  combineExpertsGroups,
  combineExpertsKernel,
  type ExpertTilesShape,
  expertTilesGroups,
  expertTilesKernel,
  type Grouping,
  groupExpertsKernel,
  groupingBytes,
  mostTiles,
} from '../../engine/backend/webgpu/kernels/promptExperts.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import type { ExpertsSpec } from '../../engine/model/spec/spec.ts';
import {
  normalisedError,
  randomGenerator,
  randomValues,
  runKernel,
  runKernelOutputs,
  tileOperand,
  useGpu,
} from './kernel.ts';
import { type Matrix, matrixOf } from './matrices.ts';

const held = useGpu();

const params = (tokens: number) => new Uint32Array([tokens, 0, 0, 0]);

async function grouped(grouping: Grouping, chosen: Uint32Array<ArrayBuffer>): Promise<Uint32Array<ArrayBuffer>> {
  const tokens = chosen.length / grouping.topK;
  const words = groupingBytes(grouping) / 4;
  const inputs = [chosen, params(tokens)];
  const [result] = await runKernelOutputs(held.gpu, groupExpertsKernel(grouping), inputs, [words], [1]);
  return new Uint32Array(result?.buffer ?? new ArrayBuffer(0), 0, words);
}

/** `topK` different experts a token, the lower ones more often. */
function unevenChoice(tokens: number, topK: number, numExperts: number): Uint32Array<ArrayBuffer> {
  const next = randomGenerator(41);
  return Uint32Array.from(
    Array.from({ length: tokens }, () => {
      const left = Array.from({ length: numExperts }, (_, expert) => expert);
      return Array.from({ length: topK }, () => left.splice(Math.floor(next() ** 2 * left.length), 1)[0] ?? 0);
    }).flat(),
  );
}

describe('grouping by expert', () => {
  async function check(grouping: Grouping, chosen: Uint32Array<ArrayBuffer>): Promise<void> {
    const words = await grouped(grouping, chosen);
    const tokens = chosen.length / grouping.topK;
    const [tiles = 0] = words;
    const order = [...words.subarray(4 + 4 * mostTiles(grouping, grouping.maxTokens))].slice(0, chosen.length);
    expect([...order].sort((a, b) => a - b)).toEqual([...chosen.keys()]);
    expect(tiles).toBeLessThanOrEqual(mostTiles(grouping, tokens));
    const counts = new Map<number, number>();
    let visited = 0;
    for (let tile = 0; tile < tiles; tile++) {
      const [expert = 0, first = 0, count = 0] = words.subarray(4 + 4 * tile);
      expect(first).toBe(visited);
      expect(count).toBeGreaterThan(0);
      expect(count).toBeLessThanOrEqual(grouping.tileTokens);
      for (const visit of order.slice(first, first + count)) expect(chosen[visit]).toBe(expert);
      visited += count;
      counts.set(expert, (counts.get(expert) ?? 0) + 1);
    }
    expect(visited).toBe(chosen.length);
    for (const [expert, made] of counts) {
      const visits = chosen.filter((each) => each === expert).length;
      expect(made).toBe(Math.ceil(visits / grouping.tileTokens));
    }
  }

  it('one visit of one expert', () =>
    check({ numExperts: 1, topK: 1, tileTokens: 16, maxTokens: 1 }, Uint32Array.of(0)));
  it('fewer tokens than the buffer holds', () =>
    check({ numExperts: 32, topK: 4, tileTokens: 16, maxTokens: 512 }, unevenChoice(67, 4, 32)));
  it('8 of 256 for 512 tokens', () =>
    check({ numExperts: 256, topK: 8, tileTokens: 64, maxTokens: 512 }, unevenChoice(512, 8, 256)));
  it('more experts than threads, all tokens to the last', () =>
    check({ numExperts: 300, topK: 1, tileTokens: 32, maxTokens: 65 }, new Uint32Array(65).fill(299)));
});

it('matmuls of grouped visits, in pieces, equal those of single visits', async () => {
  const [numExperts, topK, tokens, rows, columns] = [5, 2, 37, 36, 256];
  const grouping: Grouping = { numExperts, topK, tileTokens: 16, maxTokens: 40 };
  const chosen = unevenChoice(tokens, topK, numExperts);
  const words = await grouped(grouping, chosen);
  const x = randomValues(tokens * columns, 1);
  const bias = randomValues(numExperts * rows, 2);
  const whole = await matrixOf('Q4_K', rows, columns, { matrices: numExperts, first: 0, end: numExperts });
  const operand = await tileOperand(held.gpu, x, columns);
  let y = new Float32Array(tokens * topK * rows).fill(Number.NaN);
  for (const [first, end] of [
    [0, 2],
    [2, 5],
  ] as const) {
    const { layout, words: weight } = await matrixOf('Q4_K', rows, columns, { matrices: numExperts, first, end });
    const shape: ExpertTilesShape = { layout, firstRow: first * rows, rows, bias: true, input: 'tokens', grouping };
    const inputs = [weight, ...operand, bias, words];
    const groups = expertTilesGroups(shape, tokens);
    const source = expertTilesKernel(shape, held.gpu.capabilities);
    const [result = y] = await runKernelOutputs(held.gpu, source, inputs, [y], groups);
    y = result;
  }
  const expected = Array.from({ length: y.length }, (_, i) => {
    const visit = Math.floor(i / rows);
    const row = (chosen[visit] ?? 0) * rows + (i % rows);
    let sum = bias[row] ?? 0;
    for (let c = 0; c < columns; c++) {
      sum += (x[Math.floor(visit / topK) * columns + c] ?? 0) * (whole.values[row * columns + c] ?? 0);
    }
    return sum;
  });
  expect(normalisedError(y, expected)).toBeLessThan(1e-10);
});

/** A layer whose prompt is computed on both sides. */
const [numExperts, topK, tokens, hidden, intermediate] = [6, 3, 190, 160, 136];
const spec: ExpertsSpec = {
  kind: 'experts',
  numExperts,
  expertsPerToken: topK,
  intermediateSize: intermediate,
  router: { kind: 'softmax-then-topk', renormalise: true },
  bias: true,
  activation: { kind: 'swiglu-clamped', alpha: 1.702, limit: 7 },
  routedScale: 1,
};

interface Half {
  readonly matrix: Matrix;
  readonly rows: number;
  readonly bias: Float32Array<ArrayBuffer>;
}

async function layerOf(): Promise<{ readonly gate: Half; readonly up: Half; readonly down: Half }> {
  const stack = { matrices: numExperts, first: 0, end: numExperts };
  const half = async (type: TensorType, rows: number, columns: number, seed: number): Promise<Half> => ({
    matrix: await matrixOf(type, rows, columns, stack, seed),
    rows,
    bias: randomValues(numExperts * rows, seed),
  });
  return {
    gate: await half('F8_E4M3', intermediate, hidden, 1),
    up: await half('F8_E4M3', intermediate, hidden, 2),
    // Its columns are whole units, not whole tiles.
    down: await half('BF16', hidden, intermediate, 3),
  };
}

/** One expert, as the reference takes it. */
function expertOf({ matrix, rows, bias }: Half, index: number): DenseLinear {
  const { columns } = matrix.layout;
  const values = matrix.values.slice(index * rows * columns, (index + 1) * rows * columns);
  return { weight: { rows, columns, values }, bias: bias.slice(index * rows, (index + 1) * rows) };
}

/** `[tokens, topK, rows]` */
async function productOf(
  { matrix, rows, bias }: Half,
  x: Float32Array<ArrayBuffer>,
  input: ExpertTilesShape['input'],
  grouping: Grouping,
  words: Uint32Array<ArrayBuffer>,
): Promise<Float32Array<ArrayBuffer>> {
  const { layout, blockScale } = matrix;
  const shape = { layout, ...(blockScale && { blockScale }), firstRow: 0, rows, bias: true, input, grouping };
  const inputs = [matrix.words, ...(await tileOperand(held.gpu, x, layout.columns)), bias, words];
  const source = expertTilesKernel(shape, held.gpu.capabilities);
  const groups = expertTilesGroups(shape, tokens);
  return Float32Array.from(await runKernel(held.gpu, source, inputs, tokens * topK * rows, groups));
}

/** `[tokens, hidden]`: `before`, and on it what the chosen experts give. */
async function promptOnGpu(
  { gate, up, down }: Awaited<ReturnType<typeof layerOf>>,
  input: Float32Array<ArrayBuffer>,
  choices: readonly Choice[],
  before: Float32Array<ArrayBuffer>,
  tileTokens: number,
): Promise<Float32Array> {
  const { gpu } = held;
  const grouping: Grouping = { numExperts, topK, tileTokens, maxTokens: tokens };
  const words = await grouped(
    grouping,
    Uint32Array.from(choices, ({ expert }) => expert),
  );
  const gated = await productOf(gate, input, 'tokens', grouping, words);
  const upped = await productOf(up, input, 'tokens', grouping, words);
  const activation = activationKernel(spec.activation, intermediate);
  const activationSize = activationGroups(intermediate, tokens * topK);
  const [act = upped] = await runKernelOutputs(gpu, activation, [gated], [upped], activationSize);
  const given = await productOf(down, act, 'visits', grouping, words);
  const weights = Float32Array.from(choices, ({ weight }) => weight);
  const combine = combineExpertsKernel(hidden, topK, true);
  const groups = combineExpertsGroups(hidden, tokens);
  const [y = before] = await runKernelOutputs(gpu, combine, [given, weights], [before], groups);
  return y;
}

async function checkPrompt(tileTokens: number): Promise<void> {
  const layer = await layerOf();
  const router = { rows: numExperts, columns: hidden, values: randomValues(numExperts * hidden, 4) };
  const input = randomValues(tokens * hidden, 5, 0.1);
  const expert = async (index: number): Promise<GatedNetwork> => ({
    kind: 'dense',
    gate: expertOf(layer.gate, index),
    up: expertOf(layer.up, index),
    down: expertOf(layer.down, index),
  });
  const expected = await expertNetworks(spec, { kind: 'experts', router: { weight: router }, expert }, input);

  const logits = linear(input, router);
  const choices = Array.from({ length: tokens }, (_, token) =>
    route(spec, logits.subarray(token * numExperts, (token + 1) * numExperts)),
  ).flat();
  const before = randomValues(tokens * hidden, 6);
  const y = await promptOnGpu(layer, input, choices, before, tileTokens);
  const total = expected.map((value, i) => value + (before[i] ?? 0));
  expect(normalisedError(y, total)).toBeLessThan(1e-10);
}

describe('a prompt through grouped experts and their sum equal the reference', () => {
  it('in tiles of 64 visits', () => checkPrompt(64));
  it('in large tiles of 128, which leave in rounds where workgroup memory is short', async (context) => {
    if (!held.gpu.capabilities.subgroupMatrix) context.skip('this adapter has no subgroup matrices');
    await checkPrompt(128);
  });
});
