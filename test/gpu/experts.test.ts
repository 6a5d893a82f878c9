import { describe, expect, it } from 'vitest';
import { gatedNetwork, route } from '../../engine/backend/reference/feedForward.ts';
import {
  type ExpertsDownShape,
  expertsDownGroups,
  expertsDownKernel,
} from '../../engine/backend/webgpu/kernels/expertsDown.ts';
import {
  canRoute,
  type GatedShape,
  gatedVectorGroups,
  gatedVectorKernel,
  jointPieces,
} from '../../engine/backend/webgpu/kernels/gatedNetwork.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import type { Activation, ExpertsSpec, RouterSpec } from '../../engine/model/spec/spec.ts';
import { normalisedError, randomGenerator, randomValues, runKernelOutputs, useGpu } from './kernel.ts';
import { type Matrix, matrixOf } from './matrices.ts';

const silu: Activation = { kind: 'silu-gate' };
const clamped: Activation = { kind: 'swiglu-clamped', alpha: 1.702, limit: 7 };
const epsilon = 1e-5;

/** `x · gain / rms(x)` */
function normalised(x: Float32Array, gain: Float32Array): Float64Array {
  const rms = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + epsilon);
  return Float64Array.from(x, (value, i) => (value * (gain[i] ?? 0)) / rms);
}

/** `W[row] · x` in float64 */
function dot({ layout, values }: Matrix, row: number, x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < layout.columns; i++) sum += (values[row * layout.columns + i] ?? 0) * (x[i] ?? 0);
  return sum;
}

/** The reference's own activation, of one gate and one up, through networks of one weight. */
function activated(activation: Activation, gate: number, up: number): number {
  const one = (value: number) => ({ weight: { rows: 1, columns: 1, values: Float32Array.of(value) } });
  const network = { kind: 'dense', gate: one(gate), up: one(up), down: one(1) } as const;
  return gatedNetwork(network, activation, Float32Array.of(1))[0] ?? Number.NaN;
}

/** Distinct experts for each token. */
function chosenExperts(tokens: number, topK: number, numExperts: number): Uint32Array<ArrayBuffer> {
  const next = randomGenerator(21);
  const chosen = new Uint32Array(tokens * topK);
  for (let token = 0; token < tokens; token++) {
    const left = Array.from({ length: numExperts }, (_, expert) => expert);
    for (let slot = 0; slot < topK; slot++) {
      chosen[token * topK + slot] = left.splice(Math.floor(next() * left.length), 1)[0] ?? 0;
    }
  }
  return chosen;
}

interface GatedCase {
  readonly types: readonly [TensorType, TensorType];
  readonly rows: number;
  readonly columns: number;
  readonly tokens: number;
  readonly activation: Activation;
  readonly norm?: boolean;
}

interface ExpertsCase extends GatedCase {
  readonly numExperts: number;
  readonly topK: number;
  readonly bias?: boolean;
  /** Experts after which the stack of gates, of ups is cut in two. */
  readonly cuts?: readonly [number, number];
}

function shapeOf(test: GatedCase): Pick<GatedShape, 'rows' | 'activation' | 'tokens' | 'norm'> {
  const { rows, activation, tokens, norm } = test;
  return { rows, activation, tokens, ...(norm ? { norm: { epsilon } } : {}) };
}

const held = useGpu();

async function checkDense(test: GatedCase, gpu = held.gpu): Promise<void> {
  const { types, rows, columns, tokens, norm, activation } = test;
  const gate = await matrixOf(types[0], rows, columns);
  const up = await matrixOf(types[1], rows, columns, undefined, 1);
  const x = randomValues(tokens * columns, 11);
  const gain = randomValues(columns, 12);
  const shape = {
    ...shapeOf(test),
    gate: { ...gate, firstRow: 0 },
    up: { ...up, firstRow: 0 },
    firstRow: 0,
    endRow: rows,
  };
  const inputs = [gate.words, up.words, x, ...(norm ? [gain] : [])];
  const source = gatedVectorKernel(shape, gpu.capabilities);
  const [act = []] = await runKernelOutputs(gpu, source, inputs, [tokens * rows], gatedVectorGroups(shape));
  const expected = Array.from({ length: tokens * rows }, (_, i) => {
    const token = Math.floor(i / rows);
    const own = x.subarray(token * columns, (token + 1) * columns);
    const input = norm ? normalised(own, gain) : own;
    return activated(activation, dot(gate, i % rows, input), dot(up, i % rows, input));
  });
  expect(normalisedError(act, expected)).toBeLessThan(1e-10);
}

/** The stack's pieces, of which `[first, cut)` is one. */
async function piecesOf(test: ExpertsCase, type: TensorType, cut: number | undefined, shift: number) {
  const { numExperts, rows, columns } = test;
  const ends = cut === undefined ? [numExperts] : [cut, numExperts];
  return Promise.all(
    ends.map(async (end, i) => {
      const first = i === 0 ? 0 : (ends[i - 1] ?? 0);
      const matrix = await matrixOf(type, rows, columns, { matrices: numExperts, first, end }, shift);
      return { ...matrix, firstRow: first * rows };
    }),
  );
}

async function checkGateUp(test: ExpertsCase): Promise<void> {
  const { types, rows, columns, tokens, topK, numExperts, norm, bias = false, cuts } = test;
  const pieces = jointPieces(
    await piecesOf(test, types[0], cuts?.[0], 0),
    await piecesOf(test, types[1], cuts?.[1], 1),
  );
  const stack = { matrices: numExperts, first: 0, end: numExperts };
  const gate = await matrixOf(types[0], rows, columns, stack);
  const up = await matrixOf(types[1], rows, columns, stack, 1);
  const x = randomValues(tokens * columns, 11);
  const gain = randomValues(columns, 12);
  const gateBias = randomValues(numExperts * rows, 13);
  const upBias = randomValues(numExperts * rows, 14);
  const chosen = chosenExperts(tokens, topK, numExperts);
  let act = new Float32Array(tokens * topK * rows).fill(Number.NaN);
  for (const piece of pieces) {
    const shape = { ...shapeOf(test), ...piece, experts: { topK, bias } };
    const inputs = [
      piece.gate.words,
      piece.up.words,
      x,
      ...(norm ? [gain] : []),
      ...(bias ? [gateBias, upBias] : []),
      chosen,
    ];
    const source = gatedVectorKernel(shape, held.gpu.capabilities);
    const [result = act] = await runKernelOutputs(held.gpu, source, inputs, [act], gatedVectorGroups(shape));
    act = result;
  }
  const expected = Array.from({ length: act.length }, (_, i) => {
    const visit = Math.floor(i / rows);
    const token = Math.floor(visit / topK);
    const row = (chosen[visit] ?? 0) * rows + (i % rows);
    const own = x.subarray(token * columns, (token + 1) * columns);
    const input = norm ? normalised(own, gain) : own;
    const [g, u] = bias ? [gateBias[row] ?? 0, upBias[row] ?? 0] : [0, 0];
    return activated(test.activation, dot(gate, row, input) + g, dot(up, row, input) + u);
  });
  expect(normalisedError(act, expected)).toBeLessThan(1e-10);
}

async function checkDown(test: Omit<ExpertsCase, 'activation' | 'norm'>, accumulate: boolean): Promise<void> {
  const { types, rows, columns, tokens, topK, numExperts, bias = false, cuts } = test;
  const pieces = await piecesOf({ ...test, activation: silu }, types[0], cuts?.[0], 0);
  const matrix = await matrixOf(types[0], rows, columns, { matrices: numExperts, first: 0, end: numExperts });
  const act = randomValues(tokens * topK * columns, 31);
  const biases = randomValues(numExperts * rows, 32);
  const chosen = chosenExperts(tokens, topK, numExperts);
  const weights = randomValues(tokens * topK, 33);
  const before = randomValues(tokens * rows, 34);
  let y: Float32Array<ArrayBuffer> = accumulate ? before : new Float32Array(tokens * rows).fill(Number.NaN);
  for (const [i, { layout, words, firstRow, blockScale }] of pieces.entries()) {
    const scale = blockScale ? { blockScale } : {};
    const shape: ExpertsDownShape = { layout, ...scale, firstRow, rows, topK, bias, accumulate: accumulate || i > 0 };
    const inputs = [words, act, ...(bias ? [biases] : []), chosen, weights];
    const source = expertsDownKernel(shape, held.gpu.capabilities);
    const [result = y] = await runKernelOutputs(held.gpu, source, inputs, [y], expertsDownGroups(shape, tokens));
    y = result;
  }
  const expected = Array.from({ length: tokens * rows }, (_, i) => {
    const token = Math.floor(i / rows);
    let sum = accumulate ? (before[i] ?? 0) : 0;
    for (let visit = token * topK; visit < (token + 1) * topK; visit++) {
      const row = (chosen[visit] ?? 0) * rows + (i % rows);
      const own = act.subarray(visit * columns, (visit + 1) * columns);
      sum += (weights[visit] ?? 0) * (dot(matrix, row, own) + (bias ? (biases[row] ?? 0) : 0));
    }
    return sum;
  });
  expect(normalisedError(y, expected)).toBeLessThan(1e-10);
}

describe('gate, up and activation of a dense network in one dispatch', () => {
  it('BF16: one token, normalised', () =>
    checkDense({ types: ['BF16', 'BF16'], rows: 4, columns: 96, tokens: 1, activation: silu, norm: true }));
  it('Q4_K gate with Q6_K up: seven tokens, normalised', () =>
    checkDense({ types: ['Q4_K', 'Q6_K'], rows: 12, columns: 768, tokens: 7, activation: silu, norm: true }));
  it('F8_E4M3 across scale blocks: sixteen tokens', () =>
    checkDense({ types: ['F8_E4M3', 'F8_E4M3'], rows: 140, columns: 160, tokens: 16, activation: silu }));
});

describe('gate, up and activation of the chosen experts', () => {
  it('MXFP4 with biases, clamped: 4 of 32, one token, normalised', () =>
    checkGateUp({
      types: ['MXFP4', 'MXFP4'],
      rows: 60,
      columns: 96,
      tokens: 1,
      numExperts: 32,
      topK: 4,
      activation: clamped,
      norm: true,
      bias: true,
    }));
  it('F8_E4M3 with partial scale blocks: 3 of 5, three tokens', () =>
    checkGateUp({
      types: ['F8_E4M3', 'F8_E4M3'],
      rows: 140,
      columns: 160,
      tokens: 3,
      numExperts: 5,
      topK: 3,
      activation: silu,
      norm: true,
    }));
  it('in pieces of different types, split at different experts', () =>
    checkGateUp({
      types: ['Q4_K', 'Q6_K'],
      rows: 8,
      columns: 256,
      tokens: 5,
      numExperts: 7,
      topK: 3,
      activation: silu,
      cuts: [3, 5],
    }));
});

describe('routing fused with gate, up and activation', () => {
  async function check(router: RouterSpec, numExperts: number, topK: number, tokens: number): Promise<void> {
    const [rows, columns] = [8, 64];
    const spec: ExpertsSpec = {
      kind: 'experts',
      numExperts,
      expertsPerToken: topK,
      intermediateSize: rows,
      router,
      bias: false,
      activation: silu,
      routedScale: 1,
    };
    expect(canRoute(spec, held.gpu.capabilities)).toBe(true);
    const stack = { matrices: numExperts, first: 0, end: numExperts };
    const [gate, up] = [await matrixOf('BF16', rows, columns, stack), await matrixOf('BF16', rows, columns, stack, 1)];
    const x = randomValues(tokens * columns, 11);
    const logits = randomValues(tokens * numExperts, 12, 4);
    const shape: GatedShape = {
      ...shapeOf({ types: ['BF16', 'BF16'], rows, columns, tokens, activation: silu }),
      gate: { ...gate, firstRow: 0 },
      up: { ...up, firstRow: 0 },
      firstRow: 0,
      endRow: numExperts * rows,
      experts: { topK, bias: false, routing: spec },
    };
    const source = gatedVectorKernel(shape, held.gpu.capabilities);
    const sizes = [tokens * topK, tokens * topK, tokens * topK * rows];
    const inputs = [gate.words, up.words, x, logits];
    const outputs = await runKernelOutputs(held.gpu, source, inputs, sizes, gatedVectorGroups(shape));
    const [chosen, weights, act] = outputs;
    const choices = Array.from({ length: tokens }, (_, token) =>
      route(spec, logits.subarray(token * numExperts, (token + 1) * numExperts)),
    ).flat();
    const experts = choices.map(({ expert }) => expert);
    expect([...new Uint32Array(chosen?.buffer ?? new ArrayBuffer(), 0, experts.length)]).toEqual(experts);
    const shares = choices.map(({ weight }) => weight);
    expect(normalisedError(weights ?? [], shares)).toBeLessThan(1e-11);
    const expected = experts.flatMap((expert, visit) => {
      const own = x.subarray(Math.floor(visit / topK) * columns, (Math.floor(visit / topK) + 1) * columns);
      return Array.from({ length: rows }, (_, row) =>
        activated(silu, dot(gate, expert * rows + row, own), dot(up, expert * rows + row, own)),
      );
    });
    expect(normalisedError(act ?? [], expected)).toBeLessThan(1e-10);
  }

  it('4 of 32 by GPT-OSS', () => check({ kind: 'topk-then-softmax' }, 32, 4, 3));
  it('8 of 128 by Qwen3', () => check({ kind: 'softmax-then-topk', renormalise: true }, 128, 8, 2));
});

describe("at published models' widths", () => {
  const gptOss = { types: ['MXFP4', 'MXFP4'], rows: 8, columns: 2880, tokens: 2, numExperts: 32, topK: 4 } as const;
  it('gate and up of GPT-OSS', () => checkGateUp({ ...gptOss, activation: clamped, norm: true, bias: true }));
  it('down of GPT-OSS', () => checkDown({ ...gptOss, bias: true }, true));
  it('gate and up of DeepSeek-V3', () =>
    checkGateUp({
      types: ['F8_E4M3', 'F8_E4M3'],
      rows: 4,
      columns: 7168,
      tokens: 1,
      numExperts: 16,
      topK: 8,
      activation: silu,
      norm: true,
    }));
});

describe('down and the weighted sum of the chosen experts', () => {
  it('MXFP4 with biases, added to the residual stream: 4 of 32, one token', () =>
    checkDown(
      { types: ['MXFP4', 'MXFP4'], rows: 60, columns: 96, tokens: 1, numExperts: 32, topK: 4, bias: true },
      true,
    ));
  it('F8_E4M3 with partial scale blocks: 3 of 5, sixteen tokens', () =>
    checkDown({ types: ['F8_E4M3', 'F8_E4M3'], rows: 140, columns: 160, tokens: 16, numExperts: 5, topK: 3 }, false));
  it('Q6_K in two pieces with biases', () =>
    checkDown(
      { types: ['Q6_K', 'Q6_K'], rows: 8, columns: 512, tokens: 3, numExperts: 7, topK: 3, bias: true, cuts: [4, 4] },
      false,
    ));
});

describe('without subgroups', () => {
  const poorest = useGpu(true);
  it('reduces through workgroup memory', () =>
    checkDense(
      { types: ['BF16', 'BF16'], rows: 8, columns: 256, tokens: 3, activation: clamped, norm: true },
      poorest.gpu,
    ));
});
