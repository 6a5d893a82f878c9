import { describe, expect, it } from 'vitest';
import { TokenRows } from '../../engine/backend/reference/cache.ts';
import { sigmoid } from '../../engine/backend/reference/feedForward.ts';
import { runSlice } from '../../engine/backend/reference/gatedDelta.ts';
import { rmsNorm } from '../../engine/backend/reference/linear.ts';
import {
  convolutionGroups,
  convolutionKernel,
  deltaGroups,
  deltaKernel,
  deltaStepsKernel,
  gatedNormKernel,
  sigmoidGateGroups,
  sigmoidGateKernel,
} from '../../engine/backend/webgpu/kernels/gatedDelta.ts';
import { convolutionChannels, type GatedDeltaSpec, stateValues } from '../../engine/model/spec/spec.ts';
import { normalisedError, randomValues, runKernelOutputs, useGpu } from './kernel.ts';

const held = useGpu();
const base = { kind: 'gated-delta', numKeyHeads: 2, numValueHeads: 4, convolutionTokens: 4 } as const;
const specs: readonly (readonly [string, GatedDeltaSpec])[] = [
  ["Qwen3-Next's heads", { ...base, keyHeadDim: 128, valueHeadDim: 128, sharing: 'grouped' }],
  ["Qwen3.5's in GGUF", { ...base, keyHeadDim: 128, valueHeadDim: 128, sharing: 'tiled' }],
  ['uneven heads', { ...base, keyHeadDim: 24, valueHeadDim: 20, convolutionTokens: 3, sharing: 'grouped' }],
  ['long keys', { ...base, keyHeadDim: 1024, valueHeadDim: 28, sharing: 'grouped' }],
];

/** What is known of a sequence's tokens: inputs of the convolution, and beta and decay. */
interface Tokens {
  readonly mixed: Float32Array<ArrayBuffer>;
  readonly steps: Float32Array<ArrayBuffer>;
  readonly count: number;
}

function tokensOf(spec: GatedDeltaSpec, count: number, seed: number): Tokens {
  const { numValueHeads: heads } = spec;
  return {
    mixed: randomValues(count * convolutionChannels(spec), seed),
    // Betas and decays of between 0 and 1.
    steps: randomValues(count * 2 * heads, seed + 1).map((value) => sigmoid(4 * value)),
    count,
  };
}

function expected(spec: GatedDeltaSpec, { mixed, steps, count }: Tokens, kernel: Float32Array): Float32Array {
  const cache = { keys: new TokenRows(convolutionChannels(spec)), values: new TokenRows(2 * spec.numValueHeads) };
  cache.keys.write(0, mixed);
  cache.values.write(0, steps);
  const output = new Float32Array(count * spec.numValueHeads * spec.valueHeadDim);
  const convolution = { rows: convolutionChannels(spec), columns: spec.convolutionTokens, values: kernel };
  runSlice(spec, convolution, { firstRow: 0, count, firstPosition: 0, cache }, output);
  return output;
}

/** Columns `[first, first + count)` of rows of `width` values. */
const columns = (rows: Float32Array, width: number, first: number, count: number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: (rows.length / width) * count }, (_, i) => {
    return rows[Math.floor(i / count) * width + first + (i % count)] ?? Number.NaN;
  });

/** Of each sequence the tokens of one pass. */
interface Part {
  readonly tokens: Tokens;
  readonly from: number;
  readonly to: number;
}

/** One pass over parts of sequences, whose states lie in blocks 2 and 0. @returns the heads' results, and the states */
async function pass(
  spec: GatedDeltaSpec,
  parts: readonly Part[],
  kernel: Float32Array<ArrayBuffer>,
  before: Float32Array<ArrayBuffer>,
) {
  const { numKeyHeads, numValueHeads: heads, keyHeadDim, valueHeadDim } = spec;
  const [keys, values] = [numKeyHeads * keyHeadDim, heads * valueHeadDim];
  const width = convolutionChannels(spec);
  const rows = Uint32Array.from(
    parts.flatMap(({ from, to }, table) => Array.from({ length: to - from }, (_, i) => [from + i, table, 0, 0]).flat()),
  );
  const joined = (of: (tokens: Tokens) => Float32Array, each: number): Float32Array<ArrayBuffer> =>
    Float32Array.from(parts.flatMap(({ tokens, from, to }) => [...of(tokens).subarray(from * each, to * each)]));
  const mixed = joined((tokens) => tokens.mixed, width);
  const steps = joined((tokens) => tokens.steps, 2 * heads);
  const count = rows.length / 4;
  const shared = [rows, Uint32Array.of(2, 0), Uint32Array.of(count, 0, 0, 0)];
  let states = before;
  const convolved: Float32Array<ArrayBuffer>[] = [];
  let first = 0;
  for (const part of [keys, keys, values]) {
    const channels = { first, count: part };
    const inputs = columns(mixed, width, first, part);
    const [x = inputs, after = states] = await runKernelOutputs(
      held.gpu,
      convolutionKernel(spec, channels),
      [...shared, kernel],
      [inputs, states],
      convolutionGroups(channels, count),
    );
    convolved.push(x);
    states = after;
    first += part;
  }
  const [query = mixed, key = mixed, value = mixed] = convolved;
  const [output = value, after = states] = await runKernelOutputs(
    held.gpu,
    deltaKernel(spec),
    [
      ...shared,
      query,
      key,
      columns(steps, 2 * heads, 0, heads),
      columns(steps, 2 * heads, heads, heads),
    ] as Float32Array<ArrayBuffer>[],
    [value, states],
    deltaGroups(spec, count),
  );
  return { output, states: after };
}

describe.each(specs)('the delta rule with %s', (_name, spec) => {
  it('goes through two sequences, and on from their states', async () => {
    const kernel = randomValues(convolutionChannels(spec) * spec.convolutionTokens, 5);
    const [one, other] = [tokensOf(spec, 9, 11), tokensOf(spec, 7, 23)];
    // A new sequence must not read a block's old content.
    const empty = randomValues(3 * stateValues(spec), 3, 100);
    const parts = [
      [
        { tokens: one, from: 0, to: 5 },
        { tokens: other, from: 0, to: 1 },
      ],
      [
        { tokens: one, from: 5, to: 6 },
        { tokens: other, from: 1, to: 7 },
      ],
      [{ tokens: one, from: 6, to: 9 }],
    ] as const;
    let states = empty;
    const width = spec.numValueHeads * spec.valueHeadDim;
    const wanted = [one, other].map((tokens) => expected(spec, tokens, kernel));
    for (const each of parts) {
      const { output, states: after } = await pass(spec, each, kernel, states);
      states = after;
      const rows = each.flatMap(({ tokens, from, to }) => [
        ...(wanted[tokens === one ? 0 : 1]?.subarray(from * width, to * width) ?? []),
      ]);
      expect(normalisedError(output, Float32Array.from(rows))).toBeLessThan(1e-10);
    }
    // No sequence owns block 1.
    const own = stateValues(spec);
    expect(states.slice(own, 2 * own)).toEqual(empty.slice(own, 2 * own));
  });
});

it('beta and decay are what the reference makes of their projections', async () => {
  const [heads, count] = [5, 3];
  const spec: GatedDeltaSpec = {
    ...base,
    numKeyHeads: 1,
    numValueHeads: heads,
    keyHeadDim: 8,
    valueHeadDim: 8,
    sharing: 'grouped',
  };
  const [rate, bias] = [randomValues(heads, 1).map((value) => -1 - value / 2), randomValues(heads, 2)];
  const [betas, decays] = [randomValues(heads * count, 3, 90), randomValues(heads * count, 4, 90)];
  const [beta, decay] = await runKernelOutputs(
    held.gpu,
    deltaStepsKernel(spec),
    [Float32Array.of(...rate, ...bias)],
    [betas, decays],
    [1, count],
  );
  const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const wanted = decays.map((x, i) => Math.exp((rate[i % heads] ?? 0) * softplus(x + (bias[i % heads] ?? 0))));
  expect(normalisedError(beta ?? betas, betas.map(sigmoid))).toBeLessThan(1e-10);
  expect(normalisedError(decay ?? decays, wanted)).toBeLessThan(1e-10);
});

it('heads are normalised and gated', async () => {
  const [heads, width, count] = [3, 72, 4];
  const [gate, x] = [randomValues(heads * width * count, 1, 9), randomValues(heads * width * count, 2)];
  const gain = randomValues(width, 3);
  const source = gatedNormKernel(heads, width, 1e-6);
  const [output] = await runKernelOutputs(held.gpu, source, [gate, gain], [x], [heads, count]);
  const wanted = rmsNorm(x, gain, 1e-6).map((value, i) => value * (gate[i] ?? 0) * sigmoid(gate[i] ?? 0));
  expect(normalisedError(output ?? x, wanted)).toBeLessThan(1e-10);
});

it.each(['one a value', 'one a row'] as const)('values are multiplied by sigmoids, %s', async (gates) => {
  const [width, count] = [100, 3];
  const gate = randomValues(gates === 'one a row' ? count : width * count, 1, 90);
  const x = randomValues(width * count, 2);
  const source = sigmoidGateKernel(width, gates);
  const [output] = await runKernelOutputs(held.gpu, source, [gate], [x], sigmoidGateGroups(width, count));
  const wanted = x.map((value, i) => value * sigmoid(gate[gates === 'one a row' ? Math.floor(i / width) : i] ?? 0));
  expect(normalisedError(output ?? x, wanted)).toBeLessThan(1e-10);
});
