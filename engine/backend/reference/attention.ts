/** Grouped-query attention (Ainslie et al. 2023): causal, with every option of `GroupedQueryAttentionSpec`. */
import { queryFactor } from '../../model/spec/rope.ts';
import type { GroupedQueryAttentionSpec, LatentAttentionSpec, QueryTemperature } from '../../model/spec/spec.ts';
import type { LayerCache } from './cache.ts';
import { sigmoid } from './feedForward.ts';
import { dot, linear, rmsNorm, rotate, softmax } from './linear.ts';
import type { GroupedQueryLayer, LatentLayer } from './weights.ts';

/** A sequence's new tokens: rows `[firstRow, firstRow + count)` of the batch, at positions from `firstPosition` on. */
export interface SequenceRows {
  readonly firstRow: number;
  readonly count: number;
  readonly firstPosition: number;
  readonly cache: LayerCache;
}

/** Caches the new tokens. `input`: normalised hidden states `[tokens, hidden]`. Returns `[tokens, hidden]`. */
export function groupedQueryAttention(
  spec: GroupedQueryAttentionSpec,
  weights: GroupedQueryLayer,
  input: Float32Array,
  slices: readonly SequenceRows[],
  normEpsilon: number,
): Float32Array {
  const { numAttentionHeads, numKeyValueHeads, headDim, rope } = spec;
  let query = linear(input, weights.query.weight, weights.query.bias);
  let key = linear(input, weights.key.weight, weights.key.bias);
  const value = linear(input, weights.value.weight, weights.value.bias);
  if (weights.queryNorm) query = rmsNorm(query, weights.queryNorm, normEpsilon);
  if (weights.keyNorm) key = rmsNorm(key, weights.keyNorm, normEpsilon);
  const positions = positionsOf(slices);
  rotate(query, { heads: numAttentionHeads, headDim }, rope, positions);
  sharpen(query, numAttentionHeads * headDim, spec.queryTemperature, positions);
  rotate(key, { heads: numKeyValueHeads, headDim }, rope, positions);

  const mixed = new Float32Array(query.length);
  for (const slice of slices) {
    slice.cache.keys.write(slice.firstPosition, rowsOf(key, slice, numKeyValueHeads * headDim));
    slice.cache.values.write(slice.firstPosition, rowsOf(value, slice, numKeyValueHeads * headDim));
    attendSlice(spec, slice, query, weights.sinks, mixed);
  }
  if (weights.gate) {
    const gate = linear(input, weights.gate.weight);
    for (let i = 0; i < mixed.length; i++) mixed[i] = (mixed[i] as number) * sigmoid(gate[i] as number);
  }
  return linear(mixed, weights.output.weight, weights.output.bias);
}

/** Multiplies each token's queries by its position's factor, in place. `query`: `[tokens, width]` */
function sharpen(
  query: Float32Array,
  width: number,
  temperature: QueryTemperature | undefined,
  positions: readonly number[],
): void {
  if (!temperature) return;
  for (let i = 0; i < query.length; i++) {
    const factor = queryFactor(temperature, positions[Math.floor(i / width)] as number);
    query[i] = (query[i] as number) * factor;
  }
}

/** Writes to `mixed`. `query` and `mixed`: `[tokens, heads, headDim]` f32 */
function attendSlice(
  spec: GroupedQueryAttentionSpec,
  { firstRow, count, firstPosition, cache }: SequenceRows,
  query: Float32Array,
  sinks: Float32Array | undefined,
  mixed: Float32Array,
): void {
  const { numAttentionHeads, numKeyValueHeads, headDim, softmaxScale, slidingWindow } = spec;
  const keyWidth = numKeyValueHeads * headDim;
  const headsPerKey = numAttentionHeads / numKeyValueHeads;
  const scores = new Float64Array(firstPosition + count);
  for (let token = 0; token < count; token++) {
    const position = firstPosition + token;
    const oldest = slidingWindow === undefined ? 0 : Math.max(0, position - slidingWindow + 1);
    const visible = position + 1 - oldest;
    for (let head = 0; head < numAttentionHeads; head++) {
      const at = ((firstRow + token) * numAttentionHeads + head) * headDim;
      const keyAt = Math.floor(head / headsPerKey) * headDim + oldest * keyWidth;
      for (let i = 0; i < visible; i++) {
        scores[i] = softmaxScale * dot(query, at, cache.keys.values, keyAt + i * keyWidth, headDim);
      }
      softmax(scores, visible, sinks?.[head]);
      weightedSum(scores, visible, cache.values.values, { start: keyAt, stride: keyWidth, width: headDim }, mixed, at);
    }
  }
}

/** `out[at…] = Σ weights[i] · rows[start + i · stride…]` */
export function weightedSum(
  weights: Float64Array,
  count: number,
  rows: Float32Array,
  { start, stride, width }: { readonly start: number; readonly stride: number; readonly width: number },
  out: Float32Array,
  at: number,
): void {
  const sum = new Float64Array(width);
  for (let i = 0; i < count; i++) {
    const weight = weights[i] as number;
    const from = start + i * stride;
    for (let j = 0; j < width; j++) sum[j] = (sum[j] as number) + weight * (rows[from + j] as number);
  }
  out.set(sum, at);
}

export function positionsOf(slices: readonly SequenceRows[]): number[] {
  return slices.flatMap(({ firstPosition, count }) => Array.from({ length: count }, (_, i) => firstPosition + i));
}

/** The rows of one slice. */
export function rowsOf(values: Float32Array, { firstRow, count }: SequenceRows, width: number): Float32Array {
  return values.subarray(firstRow * width, (firstRow + count) * width);
}

// Multi-head latent attention (DeepSeek-V2, section 2.1) in absorbed form: instead of expanding each cached latent to
// keys and values, it applies the key up-projection to the query and the value up-projection to the attention output.

/** Caches the new tokens. `input`: normalised hidden states `[tokens, hidden]`. Returns `[tokens, hidden]`. */
export function latentAttention(
  spec: LatentAttentionSpec,
  weights: LatentLayer,
  input: Float32Array,
  slices: readonly SequenceRows[],
): Float32Array {
  const { numAttentionHeads, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim, normEpsilon, rope } = spec;
  const positions = positionsOf(slices);

  const compressed = weights.queryDown ? linear(input, weights.queryDown) : input;
  const query = linear(
    weights.queryNorm ? rmsNorm(compressed, weights.queryNorm, normEpsilon) : compressed,
    weights.queryUp,
  );
  const [nope, roped] = splitEach(query, [nopeHeadDim, ropeHeadDim]);
  rotate(roped, { heads: numAttentionHeads, headDim: ropeHeadDim }, rope, positions);

  const [down, key] = splitEach(linear(input, weights.keyValueDown), [keyValueRank, ropeHeadDim]);
  const latent = rmsNorm(down, weights.keyValueNorm, normEpsilon);
  // The rotated part of the key is shared by all heads and isn't normalised.
  rotate(key, { heads: 1, headDim: ropeHeadDim }, rope, positions);

  const absorbed = absorbQuery(spec, weights.keyUp, nope);
  const mixed = new Float32Array(positions.length * numAttentionHeads * keyValueRank);
  for (const slice of slices) {
    slice.cache.keys.write(slice.firstPosition, rowsOf(key, slice, ropeHeadDim));
    slice.cache.values.write(slice.firstPosition, rowsOf(latent, slice, keyValueRank));
    attendLatents(spec, slice, { absorbed, roped }, mixed);
  }
  return linear(
    expandValues(mixed, weights.valueUp, { numAttentionHeads, keyValueRank, valueHeadDim }),
    weights.output,
  );
}

/**
 * `query'_h = K_hᵀ · query_h`. `nope`: `[tokens, heads, nope]`, `keyUp`: `[heads, nope, rank]` to `[tokens, heads,
 * rank]`
 */
function absorbQuery(
  { numAttentionHeads, nopeHeadDim, keyValueRank }: LatentAttentionSpec,
  keyUp: Float32Array,
  nope: Float32Array,
): Float32Array {
  const vectors = nope.length / nopeHeadDim;
  const absorbed = new Float32Array(vectors * keyValueRank);
  for (let vector = 0; vector < vectors; vector++) {
    const head = vector % numAttentionHeads;
    const query = Float64Array.from(nope.subarray(vector * nopeHeadDim, (vector + 1) * nopeHeadDim));
    const rows = { start: head * nopeHeadDim * keyValueRank, stride: keyValueRank, width: keyValueRank };
    weightedSum(query, nopeHeadDim, keyUp, rows, absorbed, vector * keyValueRank);
  }
  return absorbed;
}

/** `absorbed`, `mixed`: `[tokens, heads, rank]`; `roped`: `[tokens, heads, rope]` */
function attendLatents(
  { numAttentionHeads, keyValueRank, ropeHeadDim, softmaxScale }: LatentAttentionSpec,
  { firstRow, count, firstPosition, cache }: SequenceRows,
  { absorbed, roped }: { readonly absorbed: Float32Array; readonly roped: Float32Array },
  mixed: Float32Array,
): void {
  const latents = cache.values.values;
  const keys = cache.keys.values;
  const scores = new Float64Array(firstPosition + count);
  for (let token = 0; token < count; token++) {
    const visible = firstPosition + token + 1;
    for (let head = 0; head < numAttentionHeads; head++) {
      const vector = (firstRow + token) * numAttentionHeads + head;
      for (let i = 0; i < visible; i++) {
        const content = dot(absorbed, vector * keyValueRank, latents, i * keyValueRank, keyValueRank);
        const place = dot(roped, vector * ropeHeadDim, keys, i * ropeHeadDim, ropeHeadDim);
        scores[i] = softmaxScale * (content + place);
      }
      softmax(scores, visible);
      const rows = { start: 0, stride: keyValueRank, width: keyValueRank };
      weightedSum(scores, visible, latents, rows, mixed, vector * keyValueRank);
    }
  }
}

/** `V_h · mixed_h`. `mixed`: `[tokens, heads, rank]`, `valueUp`: `[heads, value, rank]` to `[tokens, heads · value]` */
function expandValues(
  mixed: Float32Array,
  valueUp: Float32Array,
  {
    numAttentionHeads,
    keyValueRank,
    valueHeadDim,
  }: Pick<LatentAttentionSpec, 'numAttentionHeads' | 'keyValueRank' | 'valueHeadDim'>,
): Float32Array {
  const vectors = mixed.length / keyValueRank;
  const values = new Float32Array(vectors * valueHeadDim);
  for (let vector = 0; vector < vectors; vector++) {
    const head = vector % numAttentionHeads;
    for (let i = 0; i < valueHeadDim; i++) {
      const row = (head * valueHeadDim + i) * keyValueRank;
      values[vector * valueHeadDim + i] = dot(valueUp, row, mixed, vector * keyValueRank, keyValueRank);
    }
  }
  return values;
}

/** Splits every group of `a + b` elements into its first `a` and its last `b`. */
function splitEach(values: Float32Array, [a, b]: readonly [number, number]): [Float32Array, Float32Array] {
  const groups = values.length / (a + b);
  const first = new Float32Array(groups * a);
  const second = new Float32Array(groups * b);
  for (let group = 0; group < groups; group++) {
    const start = group * (a + b);
    first.set(values.subarray(start, start + a), group * a);
    second.set(values.subarray(start + a, start + a + b), group * b);
  }
  return [first, second];
}
