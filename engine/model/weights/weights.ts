/**
 * The weights of a decoder by role. A family's name table builds this from a `TensorFile`, hiding how a
 * publisher names, splits, stacks or interleaves tensors, so a backend sees one logical layout.
 */
import type { TensorType } from '../../formats/tensor.ts';

/** A logical weight: `shape` outermost first; all dimensions but the last are flattened to rows. */
export interface Weight {
  /** The stored tensor's name, for messages. */
  readonly name: string;
  /** `[n]`, `[out, in]` or `[experts, out, in]`. */
  readonly shape: readonly number[];
  readonly type: TensorType;
  /**
   * Rows `[start, start + count)` in `type`'s own layout (ggml blocks; MXFP4 always as ggml's 17-byte blocks, which
   * the safetensors form is permuted to bit for bit). Values are never re-quantised here.
   */
  readRows(start: number, count: number): Promise<Uint8Array>;
  /** Block scales that multiply an F8_E4M3 weight: value = fp8 · scale[row / blockRows][column / blockColumns]. */
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
  /** `[vocabulary, hidden]`; the embedding itself where tied. */
  readonly head: Weight;
}

export interface LayerWeights {
  readonly attentionNorm: Weight;
  readonly attention: AttentionWeights;
  readonly feedForwardNorm: Weight;
  readonly feedForward: FeedForwardWeights;
}

export type AttentionWeights = GroupedQueryWeights | LatentWeights;

export interface GroupedQueryWeights {
  readonly kind: 'grouped-query';
  /** `[heads · headDim, hidden]` */
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
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
  /** `[queryRank, hidden]` and `[queryRank]`; absent when the query is projected directly. */
  readonly queryDown?: Weight;
  readonly queryNorm?: Weight;
  /** `[heads · (nope + rope), queryRank or hidden]` */
  readonly queryUp: Weight;
  /** `[keyValueRank + rope, hidden]` */
  readonly keyValueDown: Weight;
  readonly keyValueNorm: Weight;
  /** `[heads, nope, keyValueRank]`, or transposed `[heads, keyValueRank, nope]` as GGUF stores it. */
  readonly keyUp: { readonly weight: Weight; readonly transposed: boolean };
  /** `[heads, value, keyValueRank]` */
  readonly valueUp: Weight;
  /** `[hidden, heads · value]` */
  readonly output: Weight;
}

export type FeedForwardWeights = DenseWeights | ExpertsWeights;

export interface DenseWeights {
  readonly kind: 'dense';
  /** `[intermediate, hidden]` */
  readonly gate: Weight;
  readonly up: Weight;
  /** `[hidden, intermediate]` */
  readonly down: Weight;
}

export interface ExpertsWeights {
  readonly kind: 'experts';
  /** `[experts, hidden]` */
  readonly router: Linear;
  /** Added to the scores for the choice alone (DeepSeek `e_score_correction_bias`). `[experts]` */
  readonly selectionBias?: Weight;
  /** Weight `[experts, intermediate, hidden]`, bias `[experts, intermediate]` */
  readonly gate: Linear;
  readonly up: Linear;
  /** Weight `[experts, hidden, intermediate]`, bias `[experts, hidden]` */
  readonly down: Linear;
  readonly shared?: DenseWeights;
}
