/**
 * Multi-head latent attention (DeepSeek-V2, section 2.1) in its absorbed form: instead of expanding every cached latent
 * to keys and values, the query goes through the key's expansion and the mixed latent through the value's.
 */
import type { LatentAttentionSpec } from '../../model/spec/spec.ts';
import { positionsOf, rowsOf, type Span, weightedSum } from './attention.ts';
import { dot, linear, rmsNorm, rotate, softmax } from './linear.ts';
import type { LatentLayer } from './weights.ts';

/** `input`: normalised hidden states `[tokens, hidden]`. Adds the tokens to their caches. `[tokens, hidden]` */
export function latentAttention(
  spec: LatentAttentionSpec,
  weights: LatentLayer,
  input: Float32Array,
  spans: readonly Span[],
  normEpsilon: number,
): Float32Array {
  const { numAttentionHeads, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim, rope } = spec;
  const positions = positionsOf(spans);

  const compressed = weights.queryDown ? linear(input, weights.queryDown) : input;
  const query = linear(
    weights.queryNorm ? rmsNorm(compressed, weights.queryNorm, normEpsilon) : compressed,
    weights.queryUp,
  );
  const [nope, roped] = splitEach(query, [nopeHeadDim, ropeHeadDim]);
  rotate(roped, { heads: numAttentionHeads, headDim: ropeHeadDim }, rope, positions);

  const [down, key] = splitEach(linear(input, weights.keyValueDown), [keyValueRank, ropeHeadDim]);
  const latent = rmsNorm(down, weights.keyValueNorm, normEpsilon);
  // One key for all heads, and not normalised.
  rotate(key, { heads: 1, headDim: ropeHeadDim }, rope, positions);

  const absorbed = absorbQuery(spec, weights.keyUp, nope);
  const mixed = new Float32Array(positions.length * numAttentionHeads * keyValueRank);
  for (const span of spans) {
    span.cache.keys.write(span.firstPosition, rowsOf(key, span, ropeHeadDim));
    span.cache.values.write(span.firstPosition, rowsOf(latent, span, keyValueRank));
    attendSpan(spec, span, { absorbed, roped }, mixed);
  }
  return linear(
    expandValues(mixed, weights.valueUp, { numAttentionHeads, keyValueRank, valueHeadDim }),
    weights.output,
  );
}

/** `query'_h = K_hᵀ · query_h`. `nope`: `[tokens, heads, nope]`, `keyUp`: `[heads, nope, rank]` to `[tokens, heads, rank]` */
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
function attendSpan(
  { numAttentionHeads, keyValueRank, ropeHeadDim, softmaxScale }: LatentAttentionSpec,
  { firstRow, count, firstPosition, cache }: Span,
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

/** Every run of `a + b` elements as its first `a` and its last `b`. */
function splitEach(values: Float32Array, [a, b]: readonly [number, number]): [Float32Array, Float32Array] {
  const runs = values.length / (a + b);
  const first = new Float32Array(runs * a);
  const second = new Float32Array(runs * b);
  for (let run = 0; run < runs; run++) {
    const start = run * (a + b);
    first.set(values.subarray(start, start + a), run * a);
    second.set(values.subarray(start + a, start + a + b), run * b);
  }
  return [first, second];
}
