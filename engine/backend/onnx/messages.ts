/** Messages between the decoder and its graph thread. */
import type { SequenceSlice } from '../backend.ts';
import type { GraphInputs } from './graphInputs.ts';

/** Handled in order; `measure`, `load`, `run`, `save`, `restore` and `end` are answered. */
export type ToThread =
  /** Times a matmul with so many threads, in milliseconds. */
  | { readonly kind: 'measure'; readonly threads: number }
  | { readonly kind: 'load'; readonly graph: ThreadGraph }
  | { readonly kind: 'create'; readonly sequence: number }
  | { readonly kind: 'fork'; readonly sequence: number; readonly from: number }
  | { readonly kind: 'truncate'; readonly sequence: number; readonly length: number }
  | { readonly kind: 'checkpoints'; readonly sequence: number; readonly lengths: readonly number[] }
  | { readonly kind: 'dispose'; readonly sequence: number }
  | { readonly kind: 'run'; readonly slices: readonly ThreadSlice[] }
  /** Exports the cache of one layer. */
  | { readonly kind: 'save'; readonly sequence: number; readonly layer: number }
  /** Imports the cache of one layer. The sequence is usable once every layer is imported. */
  | {
      readonly kind: 'restore';
      readonly sequence: number;
      readonly layer: number;
      readonly ranges: CachedRangesState;
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

export interface ThreadSlice {
  readonly sequence: number;
  readonly tokens: readonly number[];
  readonly logits: SequenceSlice['logits'];
}

/** Which tokens of a sequence are cached. */
export interface CachedRangesState {
  readonly length: number;
  readonly starts: readonly number[];
  /** For each window group the lengths with a checkpoint. */
  readonly checkpoints: readonly (readonly number[])[];
}

/** Also the allocated columns of each window group's blocks. */
export interface CacheState extends CachedRangesState {
  readonly columns: readonly number[];
}

/**
 * Answers, in the order of the messages. `values`: logits of each slice, or the measured milliseconds; `saved`: an
 * exported layer; `caches`: state of each slice's cache, or of the restored one.
 */
export type FromThread =
  | {
      readonly kind: 'done';
      readonly values: readonly Float32Array[];
      readonly saved?: Uint8Array;
      readonly caches: readonly CacheState[];
    }
  | { readonly kind: 'failed'; readonly message: string; readonly caches: readonly CacheState[] };
