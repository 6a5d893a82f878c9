/** Messages between the decoder and its graph thread. */

import type { RopeSpec } from '../../model/spec/spec.ts';
import type { SequenceSlice } from '../backend.ts';
import { elementBytes } from './graphBuilder.ts';

// Describes the graph's inputs. Plain data, sent to the graph thread once.

export interface GraphInputs {
  readonly numAttentionHeads: number;
  readonly rotations: readonly RotationInputs[];
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
}

/** Inputs `cos.<index>` and `sin.<index>`: RoPE tables for the positions of the pass's tokens. */
export interface RotationInputs {
  readonly rope: RopeSpec;
  /** Multiplies cos and sin. Folds the softmax scale into the queries' rotation at no cost. */
  readonly scale: number;
}

/** Layers with the same sliding window share the inputs `mask.<index>` and `sizes.<index>`. */
export interface WindowGroup {
  /** Query i attends to key j iff `0 <= i - j < slidingWindow`; absent: to every earlier key. */
  readonly slidingWindow?: number;
}

/** Element type of the KV cache. */
export type CacheType = 'float32' | 'float16';

/** The cache of one layer: inputs `keys.<layer>` `[kvHeads, 1, keyDim, columns]` and `values.<layer>` likewise. */
export interface LayerCacheSpec {
  readonly type: CacheType;
  readonly group: number;
  readonly keyValueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** The values are the first `valueDim` elements of the keys (latent attention). */
  readonly valuesInKeys: boolean;
}

/** Cached elements of one token. */
export function rowsOf({ keyValueHeads, keyDim, valueDim, valuesInKeys }: LayerCacheSpec): number {
  return keyValueHeads * (keyDim + (valuesInKeys ? 0 : valueDim));
}

/** Cached bytes of one token. */
export const bytesOf = (layer: LayerCacheSpec): number => rowsOf(layer) * elementBytes[layer.type];

/** Handled in order; `measure`, `load`, `run`, `save`, `restore` and `end` are answered. */
export type ToThread =
  /** Times a matmul with so many threads, in milliseconds. */
  | { readonly kind: 'measure'; readonly threads: number }
  | { readonly kind: 'load'; readonly graph: ThreadGraph }
  /** `from`: as a fork of this sequence. */
  | { readonly kind: 'create'; readonly sequence: number; readonly from: number | undefined }
  /** The sequence has lost tokens or ranges. */
  | { readonly kind: 'change'; readonly sequence: number; readonly layout: CacheLayout; readonly length: number }
  | { readonly kind: 'dispose'; readonly sequence: number }
  | { readonly kind: 'run'; readonly slices: readonly ThreadSlice[] }
  /** Exports the cache of one layer. */
  | { readonly kind: 'save'; readonly sequence: number; readonly layer: number; readonly layout: CacheLayout }
  /** Imports the cache of one layer. The sequence is usable once every layer is imported. */
  | {
      readonly kind: 'restore';
      readonly sequence: number;
      readonly layer: number;
      readonly layout: CacheLayout;
      readonly length: number;
      readonly bytes: Uint8Array;
    }
  | { readonly kind: 'end' };

export interface ThreadGraph {
  /** An ONNX ModelProto whose weights lie in `weightsDirectory`. */
  readonly model: Uint8Array;
  readonly weightsDirectory: string;
  readonly threads: number;
  readonly inputs: GraphInputs;
}

/** Consecutive cached tokens, and the columns allocated for them. */
export interface TokenRange {
  readonly first: number;
  readonly columns: number;
}

/** For each window group the ranges that are cached, ascending. */
export type CacheLayout = readonly (readonly TokenRange[])[];

export interface ThreadSlice {
  readonly sequence: number;
  /** With room for `tokens`. */
  readonly layout: CacheLayout;
  readonly tokens: readonly number[];
  readonly logits: SequenceSlice['logits'];
}

/** Answers, in the order of the messages. `values`: logits of each slice, or the measured milliseconds. */
export type FromThread =
  | { readonly kind: 'done'; readonly values: readonly Float32Array[]; readonly saved?: Uint8Array }
  | { readonly kind: 'failed'; readonly message: string };
