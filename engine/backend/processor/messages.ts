/** Messages between the decoder of a CPU backend and its thread, and the shape of the cache that the thread holds. */

import type { ErrorCode } from '../../errors.ts';
import type { SequenceSlice } from '../backend.ts';
import type { DrawMessage } from './drawing.ts';

/** The f32 tensors of one layer's state: inputs `state.<layer>.<tensor>`, and the names of the outputs that follow them. */
export interface StateSpec {
  readonly shapes: readonly (readonly number[])[];
  readonly outputs: readonly string[];
}

export const bytesOfState = ({ shapes }: Pick<StateSpec, 'shapes'>): number =>
  shapes.reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 4), 0);

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
export const bytesOf = (layer: LayerCacheSpec): number => rowsOf(layer) * (layer.type === 'float16' ? 2 : 4);

/** Handled in order; `run`, `draw`, `save`, `restore` and `end` are answered. */
export type CacheMessage =
  /** `from`: forks this sequence. */
  | { readonly kind: 'create'; readonly sequence: number; readonly from: number | undefined }
  /** The sequence has lost tokens or ranges. */
  | { readonly kind: 'change'; readonly sequence: number; readonly layout: CacheLayout; readonly length: number }
  | { readonly kind: 'dispose'; readonly sequence: number }
  | { readonly kind: 'run'; readonly slices: readonly ThreadSlice[] }
  | DrawMessage
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

/** Consecutive cached tokens, and the columns allocated for them. */
export interface TokenRange {
  readonly first: number;
  readonly columns: number;
}

/** For each window group the ranges that are cached, ascending. */
export type CacheLayout = readonly (readonly TokenRange[])[];

export interface ThreadSlice {
  readonly sequence: number;
  /** Layout with room for `tokens`. */
  readonly layout: CacheLayout;
  readonly tokens: readonly number[];
  readonly logits: SequenceSlice['logits'];
  readonly hidden?: Float32Array;
}

/**
 * Answers, in the order of the messages. `values`: logits of each slice, or the result of a backend's own message;
 * `drawn`: tokens of each slice.
 */
export type FromThread =
  | {
      readonly kind: 'done';
      readonly values: readonly Float32Array[];
      readonly saved?: Uint8Array;
      readonly drawn?: readonly number[][];
    }
  /** `code`: the error is Hearth's own. */
  | { readonly kind: 'failed'; readonly message: string; readonly code?: ErrorCode }
  /** No answer: the thread waits for this token's row (drawing.ts). */
  | { readonly kind: 'row'; readonly token: number };
