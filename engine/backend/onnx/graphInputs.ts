/** Describes the graph's inputs. Plain data, sent to the graph thread once. */
import type { RopeSpec } from '../../model/spec/spec.ts';
import { elementBytes } from './onnxFile.ts';

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
