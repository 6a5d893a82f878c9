/** What is said between the decoder and the thread that runs its graph. */
import type { SequenceSlice } from '../backend.ts';
import type { RunPlan } from './layerPlan.ts';

/** Obeyed in order; `measure`, `load`, `run`, `save`, `restore` and `end` are answered. */
export type ToThread =
  /** Milliseconds of a product with that many threads. */
  | { readonly kind: 'measure'; readonly threads: number }
  | { readonly kind: 'load'; readonly graph: ThreadGraph }
  | { readonly kind: 'create'; readonly sequence: number }
  | { readonly kind: 'fork'; readonly sequence: number; readonly from: number }
  | { readonly kind: 'truncate'; readonly sequence: number; readonly length: number }
  | { readonly kind: 'mark'; readonly sequence: number; readonly lengths: readonly number[] }
  | { readonly kind: 'dispose'; readonly sequence: number }
  | { readonly kind: 'run'; readonly slices: readonly ThreadSlice[] }
  /** What is held of one layer. */
  | { readonly kind: 'save'; readonly sequence: number; readonly layer: number }
  /** Puts it into a sequence that then holds `extent`, once every layer was put. */
  | {
      readonly kind: 'restore';
      readonly sequence: number;
      readonly layer: number;
      readonly extent: ExtentState;
      readonly bytes: Uint8Array;
    }
  | { readonly kind: 'end' };

export interface ThreadGraph {
  /** An ONNX ModelProto whose weights lie in `weightsDirectory`. */
  readonly model: Uint8Array;
  readonly weightsDirectory: string;
  readonly threads: number;
  readonly plan: RunPlan;
}

export interface ThreadSlice {
  readonly sequence: number;
  readonly tokens: readonly number[];
  readonly logits: SequenceSlice['logits'];
}

/** Which tokens the caches of a sequence hold. */
export interface ExtentState {
  readonly length: number;
  readonly starts: readonly number[];
  /** For each span the lengths whose window is kept aside. */
  readonly kept: readonly (readonly number[])[];
}

/** After a run: also how many tokens the blocks of each span have room for. */
export interface CacheState extends ExtentState {
  readonly columns: readonly number[];
}

/** Answers, in order: logits of a run's slices, what was saved, or the milliseconds measured; `caches` are those of the slices, or the one restored. */
export type FromThread =
  | {
      readonly kind: 'done';
      readonly values: readonly Float32Array[];
      readonly saved?: Uint8Array;
      readonly caches: readonly CacheState[];
    }
  | { readonly kind: 'failed'; readonly message: string; readonly caches: readonly CacheState[] };
