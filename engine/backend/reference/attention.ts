/** Grouped-query attention (Ainslie et al. 2023): causal, with every option of `GroupedQueryAttentionSpec`. */
import type { GroupedQueryAttentionSpec } from '../../model/spec/spec.ts';
import type { LayerCache } from './cache.ts';
import { dot, linear, rmsNorm, rotate, softmax } from './linear.ts';
import type { GroupedQueryLayer } from './weights.ts';

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
  rotate(key, { heads: numKeyValueHeads, headDim }, rope, positions);

  const mixed = new Float32Array(query.length);
  for (const slice of slices) {
    slice.cache.keys.write(slice.firstPosition, rowsOf(key, slice, numKeyValueHeads * headDim));
    slice.cache.values.write(slice.firstPosition, rowsOf(value, slice, numKeyValueHeads * headDim));
    attendSlice(spec, slice, query, weights.sinks, mixed);
  }
  return linear(mixed, weights.output.weight, weights.output.bias);
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
