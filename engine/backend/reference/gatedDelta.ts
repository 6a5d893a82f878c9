/** Gated delta net (Yang et al. 2024): token after token, as the paper's recurrence. See `GatedDeltaSpec`. */
import { type GatedDeltaSpec, keyHeadOf } from '../../model/spec/spec.ts';
import { rowsOf, type SequenceRows } from './attention.ts';
import type { LayerCache } from './cache.ts';
import { sigmoid } from './feedForward.ts';
import { linear, type Matrix, rmsNorm } from './linear.ts';
import type { GatedDeltaLayer } from './weights.ts';

/** Added to a vector's squared length under the square root: transformers' `l2norm`. */
const unitEpsilon = 1e-6;

/** Caches the inputs of the state. `input`: normalised hidden states `[tokens, hidden]`. Returns `[tokens, hidden]`. */
export function gatedDeltaNet(
  spec: GatedDeltaSpec,
  weights: GatedDeltaLayer,
  input: Float32Array,
  slices: readonly SequenceRows[],
  normEpsilon: number,
): Float32Array {
  const mixed = sideBySide([weights.query, weights.key, weights.value].map((part) => [linear(input, part), part.rows]));
  const steps = stepsOf(weights, input);
  const width = spec.numValueHeads * spec.valueHeadDim;
  const output = new Float32Array((mixed.length / weights.convolution.rows) * width);
  for (const slice of slices) {
    slice.cache.keys.write(slice.firstPosition, rowsOf(mixed, slice, weights.convolution.rows));
    slice.cache.values.write(slice.firstPosition, rowsOf(steps, slice, 2 * spec.numValueHeads));
    runSlice(spec, weights.convolution, slice, output);
  }
  const gate = linear(input, weights.gate);
  const normed = rmsNorm(output, weights.norm, normEpsilon);
  return linear(
    normed.map((value, i) => value * silu(gate[i] as number)),
    weights.output,
  );
}

const silu = (x: number): number => x * sigmoid(x);

/** For each token beta of all heads, then exp(g) of all heads. */
function stepsOf({ beta, decay, decayBias, decayRate }: GatedDeltaLayer, input: Float32Array): Float32Array {
  const betas = linear(input, beta).map(sigmoid);
  const decays = linear(input, decay).map((value, i) => {
    const head = i % decayBias.length;
    return Math.exp((decayRate[head] as number) * softplus(value + (decayBias[head] as number)));
  });
  return sideBySide([
    [betas, beta.rows],
    [decays, decay.rows],
  ]);
}

const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** Concatenates the rows of matrices with these numbers of columns. */
function sideBySide(parts: readonly (readonly [values: Float32Array, columns: number])[]): Float32Array {
  const width = parts.reduce((sum, [, columns]) => sum + columns, 0);
  const joined = new Float32Array(parts.reduce((sum, [{ length }]) => sum + length, 0));
  let first = 0;
  for (const [values, columns] of parts) {
    for (let row = 0; row < values.length / columns; row++) {
      joined.set(values.subarray(row * columns, (row + 1) * columns), row * width + first);
    }
    first += columns;
  }
  return joined;
}

/** Writes the heads' results of the slice's tokens to `output`, and stores the state after the last token. */
export function runSlice(spec: GatedDeltaSpec, convolution: Matrix, slice: SequenceRows, output: Float32Array): void {
  const { numValueHeads, keyHeadDim, valueHeadDim } = spec;
  const { cache, firstPosition, firstRow, count } = slice;
  const size = numValueHeads * keyHeadDim * valueHeadDim;
  const known = cache.state?.length === firstPosition ? cache.state : undefined;
  const state = known ? known.values.slice() : new Float64Array(size);
  const out = new Float64Array(valueHeadDim);
  for (let position = known ? firstPosition : 0; position < firstPosition + count; position++) {
    const token = tokenOf(spec, convolution, cache, position);
    for (let head = 0; head < numValueHeads; head++) {
      updateHead(spec, head, token, state, out);
      const row = firstRow + position - firstPosition;
      if (position >= firstPosition) output.set(out, (row * numValueHeads + head) * valueHeadDim);
    }
  }
  cache.state = { length: firstPosition + count, values: state };
}

/** Queries and keys of the key heads as unit vectors, values of the value heads, and the steps. */
interface Token {
  readonly query: Float64Array;
  readonly key: Float64Array;
  readonly value: Float64Array;
  readonly steps: Float32Array;
}

function tokenOf(spec: GatedDeltaSpec, convolution: Matrix, { keys, values }: LayerCache, position: number): Token {
  const mixed = convolved(convolution, keys.values, position);
  const keyWidth = spec.numKeyHeads * spec.keyHeadDim;
  return {
    query: unitVectors(mixed.subarray(0, keyWidth), spec.keyHeadDim, spec.keyHeadDim ** -0.5),
    key: unitVectors(mixed.subarray(keyWidth, 2 * keyWidth), spec.keyHeadDim, 1),
    value: mixed.subarray(2 * keyWidth),
    steps: values.values.subarray(position * values.width, (position + 1) * values.width),
  };
}

/** SiLU of each channel's weighted sum over the last tokens; inputs before the first token are zero. */
function convolved({ rows, columns, values }: Matrix, inputs: Float32Array, position: number): Float64Array {
  const output = new Float64Array(rows);
  for (let channel = 0; channel < rows; channel++) {
    let sum = 0;
    for (let back = 0; back < Math.min(columns, position + 1); back++) {
      const weight = values[channel * columns + columns - 1 - back] as number;
      sum += weight * (inputs[(position - back) * rows + channel] as number);
    }
    output[channel] = silu(sum);
  }
  return output;
}

function unitVectors(vectors: Float64Array, width: number, scale: number): Float64Array {
  const output = new Float64Array(vectors.length);
  for (let start = 0; start < vectors.length; start += width) {
    let squares = unitEpsilon;
    for (let i = start; i < start + width; i++) squares += (vectors[i] as number) ** 2;
    for (let i = start; i < start + width; i++) output[i] = ((vectors[i] as number) * scale) / Math.sqrt(squares);
  }
  return output;
}

/** `S = exp(g) S + k (beta (v - exp(g) Sᵀ k))ᵀ` in place, and `out = Sᵀ q`. */
function updateHead(spec: GatedDeltaSpec, head: number, token: Token, state: Float64Array, out: Float64Array): void {
  const { keyHeadDim, valueHeadDim, numValueHeads } = spec;
  const keyAt = keyHeadOf(spec, head) * keyHeadDim;
  const at = head * keyHeadDim * valueHeadDim;
  const beta = token.steps[head] as number;
  const decay = token.steps[numValueHeads + head] as number;
  for (let column = 0; column < valueHeadDim; column++) {
    let known = 0;
    for (let row = 0; row < keyHeadDim; row++) {
      known += decay * (state[at + row * valueHeadDim + column] as number) * (token.key[keyAt + row] as number);
    }
    const correction = beta * ((token.value[head * valueHeadDim + column] as number) - known);
    let sum = 0;
    for (let row = 0; row < keyHeadDim; row++) {
      const index = at + row * valueHeadDim + column;
      const next = decay * (state[index] as number) + (token.key[keyAt + row] as number) * correction;
      state[index] = next;
      sum += next * (token.query[keyAt + row] as number);
    }
    out[column] = sum;
  }
}
