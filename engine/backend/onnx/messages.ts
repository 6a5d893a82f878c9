/** Messages between the decoder and its graph thread. */
import type { SequenceSlice } from '../backend.ts';
import type { GraphInputs } from './graphInputs.ts';

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
