/**
 * The weights of a decoder by role. A family's name table builds this from a `TensorFile` and hides how the publisher
 * names, splits, stacks or interleaves tensors, so that backends see one logical layout.
 */
import type { TensorType } from '../../formats/tensor.ts';

/** A logical weight. Dimensions are outermost first; all but the last are flattened to rows. */
export interface Weight {
  /** Name of the stored tensor, for messages. */
  readonly name: string;
  /** `[n]`, `[out, in]` or `[experts, out, in]`. */
  readonly shape: readonly number[];
  readonly type: TensorType;
  /**
   * Rows `[start, start + count)` in `type`'s own layout (ggml blocks). MXFP4 is always in ggml's 17-byte blocks; the
   * safetensors form is reordered bit for bit. Values are never requantised.
   */
  readRows(start: number, count: number): Promise<Uint8Array>;
  /** Block scales of an F8_E4M3 weight: value = fp8 · scale[row / blockRows][column / blockColumns]. */
  readonly blockScale?: {
    readonly blockRows: number;
    readonly blockColumns: number;
    /** `[experts?, ceil(out / blockRows), ceil(in / blockColumns)]` f32. */
    read(): Promise<Float32Array>;
  };
}

export interface Linear {
  readonly weight: Weight;
  readonly bias?: Weight;
}

export interface DecoderWeights {
  /** `[vocabulary, hidden]` */
  readonly embedding: Weight;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: Weight;
  /** `[vocabulary, hidden]`; the embedding itself if tied. */
  readonly head: Weight;
}

export interface LayerWeights extends LayerNorms<Weight> {
  readonly attention: AttentionWeights;
  readonly feedForward: FeedForwardWeights;
}

/**
 * A layer's norms over the residual stream, as names, stored weights or loaded values: `[hidden]` each, LayerNorms `[2,
 * hidden]`.
 */
export interface LayerNorms<Norm> {
  readonly attentionNorm: Norm;
  readonly feedForwardNorm: Norm;
  /** Present with `postNorms`. */
  readonly attentionPostNorm?: Norm;
  readonly feedForwardPostNorm?: Norm;
}

export function mapNorms<From, To>(norms: LayerNorms<From>, to: (norm: From) => To): LayerNorms<To> {
  const { attentionNorm, feedForwardNorm, attentionPostNorm: attention, feedForwardPostNorm: feedForward } = norms;
  return {
    attentionNorm: to(attentionNorm),
    feedForwardNorm: to(feedForwardNorm),
    ...(attention !== undefined && { attentionPostNorm: to(attention) }),
    ...(feedForward !== undefined && { feedForwardPostNorm: to(feedForward) }),
  };
}

/** Applies `load` to each norm, one after the other. */
export async function loadNorms<From, To>(
  norms: LayerNorms<From>,
  load: (norm: From) => Promise<To>,
): Promise<LayerNorms<To>> {
  const { attentionNorm, feedForwardNorm, attentionPostNorm: attention, feedForwardPostNorm: feedForward } = norms;
  return {
    attentionNorm: await load(attentionNorm),
    feedForwardNorm: await load(feedForwardNorm),
    ...(attention !== undefined && { attentionPostNorm: await load(attention) }),
    ...(feedForward !== undefined && { feedForwardPostNorm: await load(feedForward) }),
  };
}

export type AttentionWeights = GroupedQueryWeights | LatentWeights | GatedDeltaWeights;

export interface GroupedQueryWeights {
  readonly kind: 'grouped-query';
  /** `[heads · headDim, hidden]` */
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  /** Present with `outputGate`. `[heads · headDim, hidden]` */
  readonly gate?: Linear;
  /** `[hidden, heads · headDim]` */
  readonly output: Linear;
  /** `[headDim]` */
  readonly queryNorm?: Weight;
  readonly keyNorm?: Weight;
  /** `[heads]` */
  readonly sinks?: Weight;
}

export interface LatentWeights {
  readonly kind: 'latent';
  /** `[queryRank, hidden]` and `[queryRank]`; absent if the query is projected directly. */
  readonly queryDown?: Weight;
  readonly queryNorm?: Weight;
  /** `[heads · (nope + rope), queryRank or hidden]` */
  readonly queryUp: Weight;
  /** `[keyValueRank + rope, hidden]` */
  readonly keyValueDown: Weight;
  readonly keyValueNorm: Weight;
  /** `[heads, nope, keyValueRank]`, or transposed `[heads, keyValueRank, nope]` as in GGUF. */
  readonly keyUp: { readonly weight: Weight; readonly transposed: boolean };
  /** `[heads, value, keyValueRank]` */
  readonly valueUp: Weight;
  /** `[hidden, heads · value]` */
  readonly output: Weight;
}

export interface GatedDeltaWeights {
  readonly kind: 'gated-delta';
  /** `[keyHeads · keyHeadDim, hidden]` */
  readonly query: Weight;
  readonly key: Weight;
  /** `[valueHeads · valueHeadDim, hidden]` */
  readonly value: Weight;
  /** The result is normed, then multiplied by the SiLU of this. `[valueHeads · valueHeadDim, hidden]` */
  readonly gate: Weight;
  /** Their sigmoid is the delta rule's step. `[valueHeads, hidden]` */
  readonly beta: Weight;
  /** `g = decayRate · softplus(decay · x + decayBias)`. `[valueHeads, hidden]`, `[valueHeads]` each */
  readonly decay: Weight;
  readonly decayBias: Weight;
  /** Negative values. `[valueHeads]` */
  readonly decayRate: Weight;
  /** The oldest token first. `[channels, convolutionTokens]` */
  readonly convolution: Weight;
  /** `[valueHeadDim]` */
  readonly norm: Weight;
  /** `[hidden, valueHeads · valueHeadDim]` */
  readonly output: Weight;
}

export type FeedForwardWeights = DenseWeights | PlainWeights | ExpertsWeights;

export interface DenseWeights {
  readonly kind: 'dense';
  /** `[intermediate, hidden]` */
  readonly gate: Weight;
  readonly up: Weight;
  /** `[hidden, intermediate]` */
  readonly down: Weight;
}

export interface PlainWeights {
  readonly kind: 'plain';
  /** `[intermediate, hidden]` */
  readonly up: Linear;
  /** `[hidden, intermediate]` */
  readonly down: Linear;
}

export interface ExpertsWeights {
  readonly kind: 'experts';
  /** `[experts, hidden]` */
  readonly router: Linear;
  /** Added to the scores when choosing experts only (DeepSeek `e_score_correction_bias`). `[experts]` */
  readonly selectionBias?: Weight;
  /** Weight `[experts, intermediate, hidden]`, bias `[experts, intermediate]` */
  readonly gate: Linear;
  readonly up: Linear;
  /** Weight `[experts, hidden, intermediate]`, bias `[experts, hidden]` */
  readonly down: Linear;
  readonly shared?: DenseWeights;
  /** Present with `sharedGate`. `[1, hidden]` */
  readonly sharedGate?: Weight;
}
