/** What is said between the decoder and the thread that runs its graph. */
import type { SequenceSlice } from '../backend.ts';
import type { RunPlan } from './plan.ts';

/** Obeyed in order; `load`, `run` and `end` are answered. */
export type ToThread =
  | { readonly kind: 'load'; readonly graph: ThreadGraph }
  | { readonly kind: 'create'; readonly sequence: number }
  | { readonly kind: 'fork'; readonly sequence: number; readonly from: number }
  | { readonly kind: 'truncate'; readonly sequence: number; readonly length: number }
  | { readonly kind: 'dispose'; readonly sequence: number }
  | { readonly kind: 'run'; readonly slices: readonly ThreadSlice[] }
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
}

/** After a run: also how many tokens the blocks of each span have room for. */
export interface CacheState extends ExtentState {
  readonly columns: readonly number[];
}

/** Answers to `load`, `run` and `end`, in order. `caches` are those of the run's slices. */
export type FromThread =
  | {
      readonly kind: 'done';
      readonly logits: readonly Float32Array[];
      readonly caches: readonly CacheState[];
    }
  | { readonly kind: 'failed'; readonly message: string; readonly caches: readonly CacheState[] };
