/** Matmul, softmax, norms and RoPE: f32 in and out, float64 sums. */
import { attentionFactor, inverseFrequencies } from '../../model/spec/rope.ts';
import type { RopeSpec } from '../../model/spec/spec.ts';

/** A row-major matrix. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** `[rows, columns]` */
  readonly values: Float32Array;
}

/** `y = W·x + b` for every token. `[tokens, columns]` to `[tokens, rows]` */
export function linear(input: Float32Array, weight: Matrix, bias?: Float32Array): Float32Array {
  const { rows, columns, values } = weight;
  const tokens = input.length / columns;
  const output = new Float32Array(tokens * rows);
  const input64 = Float64Array.from(input);
  const four = { values: new Float64Array(4 * columns), columns, stride: rows };
  const [whole, pairs] = [rows - (rows % 4), tokens - (tokens % 2)];
  for (let row = 0; row < whole; row += 4) {
    four.values.set(values.subarray(row * columns, (row + 4) * columns));
    for (let token = 0; token < pairs; token += 2)
      ofTwoTokens(four, input64, token, output.subarray(token * rows + row));
    if (pairs < tokens) ofOneToken(four, input64, pairs, output.subarray(pairs * rows + row));
  }
  for (let row = whole; row < rows; row++) {
    for (let token = 0; token < tokens; token++) {
      output[token * rows + row] = dot(values, row * columns, input, token * columns, columns);
    }
  }
  if (bias)
    for (let at = 0; at < output.length; at++) output[at] = (output[at] as number) + (bias[at % rows] as number);
  return output;
}

/** Four rows of a matrix, which share the loads of the input; their sums are independent. */
interface FourRows {
  readonly values: Float64Array;
  readonly columns: number;
  /** Outputs from one token to the next. */
  readonly stride: number;
}

/** Two tokens share the loads of the rows: 1.5 times as fast as one after the other. */
function ofTwoTokens({ values, columns, stride }: FourRows, input: Float64Array, token: number, output: Float32Array) {
  const [at1, at2, at3] = [columns, 2 * columns, 3 * columns];
  const start = token * columns;
  const next = start + columns;
  let [a0, a1, a2, a3] = [0, 0, 0, 0];
  let [b0, b1, b2, b3] = [0, 0, 0, 0];
  // `as number`: the indices are in range by construction, and a fallback would cost a branch an element.
  for (let i = 0; i < columns; i++) {
    const a = input[start + i] as number;
    const b = input[next + i] as number;
    const w0 = values[i] as number;
    const w1 = values[at1 + i] as number;
    const w2 = values[at2 + i] as number;
    const w3 = values[at3 + i] as number;
    a0 += w0 * a;
    a1 += w1 * a;
    a2 += w2 * a;
    a3 += w3 * a;
    b0 += w0 * b;
    b1 += w1 * b;
    b2 += w2 * b;
    b3 += w3 * b;
  }
  output[0] = a0;
  output[1] = a1;
  output[2] = a2;
  output[3] = a3;
  output[stride] = b0;
  output[stride + 1] = b1;
  output[stride + 2] = b2;
  output[stride + 3] = b3;
}

function ofOneToken({ values, columns }: FourRows, input: Float64Array, token: number, output: Float32Array) {
  const [at1, at2, at3] = [columns, 2 * columns, 3 * columns];
  const start = token * columns;
  let [a0, a1, a2, a3] = [0, 0, 0, 0];
  for (let i = 0; i < columns; i++) {
    const a = input[start + i] as number;
    a0 += (values[i] as number) * a;
    a1 += (values[at1 + i] as number) * a;
    a2 += (values[at2 + i] as number) * a;
    a3 += (values[at3 + i] as number) * a;
  }
  output[0] = a0;
  output[1] = a1;
  output[2] = a2;
  output[3] = a3;
}

/** `a[aStart…] · b[bStart…]` over `length` elements, with four independent sums to hide the latency of additions. */
export function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, length: number): number {
  let sum0 = 0;
  let sum1 = 0;
  let sum2 = 0;
  let sum3 = 0;
  const whole = length - (length % 4);
  let i = 0;
  for (; i < whole; i += 4) {
    sum0 += (a[aStart + i] as number) * (b[bStart + i] as number);
    sum1 += (a[aStart + i + 1] as number) * (b[bStart + i + 1] as number);
    sum2 += (a[aStart + i + 2] as number) * (b[bStart + i + 2] as number);
    sum3 += (a[aStart + i + 3] as number) * (b[bStart + i + 3] as number);
  }
  for (; i < length; i++) sum0 += (a[aStart + i] as number) * (b[bStart + i] as number);
  return sum0 + sum1 + (sum2 + sum3);
}

/** `target += source` */
export function addTo(target: Float32Array, source: Float32Array): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) + (source[i] as number);
}

/**
 * Softmax of the first `count` scores, in place. `sink` is an extra logit without a value (GPT-OSS): it takes a share
 * of the probability, so that the rest sums to less than one.
 */
export function softmax(scores: Float64Array, count: number, sink = Number.NEGATIVE_INFINITY): void {
  let max = sink;
  for (let i = 0; i < count; i++) max = Math.max(max, scores[i] as number);
  let sum = Math.exp(sink - max);
  for (let i = 0; i < count; i++) {
    const exponential = Math.exp((scores[i] as number) - max);
    scores[i] = exponential;
    sum += exponential;
  }
  for (let i = 0; i < count; i++) scores[i] = (scores[i] as number) / sum;
}

// RMSNorm (Zhang and Sennrich 2019): `x · w / sqrt(mean(x²) + epsilon)`.

/** Normalises every `weight.length` elements: a token's hidden state, or one head of it. Returns a new array. */
export function rmsNorm(input: Float32Array, weight: Float32Array, epsilon: number): Float32Array {
  const width = weight.length;
  const output = new Float32Array(input.length);
  for (let start = 0; start < input.length; start += width) {
    let squares = 0;
    for (let i = start; i < start + width; i++) squares += (input[i] as number) ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) output[start + i] = (input[start + i] as number) * scale * (weight[i] as number);
  }
  return output;
}

// LayerNorm (Ba et al. 2016): `(x − mean) · gain / sqrt(variance + epsilon) + bias`.

/** Normalises every token's hidden state. `weight`: gain, then bias, `[2, hidden]`. Returns a new array. */
export function layerNorm(input: Float32Array, weight: Float32Array, epsilon: number): Float32Array {
  const width = weight.length / 2;
  const output = new Float32Array(input.length);
  for (let start = 0; start < input.length; start += width) {
    let [sum, squares] = [0, 0];
    for (let i = start; i < start + width; i++) sum += input[i] as number;
    const mean = sum / width;
    for (let i = start; i < start + width; i++) squares += ((input[i] as number) - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) {
      output[start + i] =
        ((input[start + i] as number) - mean) * scale * (weight[i] as number) + (weight[width + i] as number);
    }
  }
  return output;
}

// Rotary position embedding: rotates pairs of a head's elements by an angle proportional to the position.

/** Rotates every head of every token, in place. `vectors`: `[tokens, heads, headDim]`, `positions`: `[tokens]` */
export function rotate(
  vectors: Float32Array,
  { heads, headDim }: { readonly heads: number; readonly headDim: number },
  rope: RopeSpec,
  positions: readonly number[],
): void {
  const frequencies = inverseFrequencies(rope);
  const pairs = frequencies.length;
  // half-split pairs (i, i + pairs); interleaved pairs (2i, 2i + 1)
  const step = rope.layout === 'half-split' ? 1 : 2;
  const partner = rope.layout === 'half-split' ? pairs : 1;
  for (const [token, position] of positions.entries()) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * (frequencies[pair] as number);
      const cos = Math.cos(angle) * attentionFactor(rope);
      const sin = Math.sin(angle) * attentionFactor(rope);
      for (let head = 0; head < heads; head++) {
        const first = (token * heads + head) * headDim + pair * step;
        const x = vectors[first] as number;
        const y = vectors[first + partner] as number;
        vectors[first] = x * cos - y * sin;
        vectors[first + partner] = y * cos + x * sin;
      }
    }
  }
}
