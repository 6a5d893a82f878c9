/** What the ONNX backend tells its thread besides (processor/messages.ts): the graph, and its inputs. */

import type { QueryTemperature, RopeSpec } from '../../model/spec/spec.ts';
import type { LayerCacheSpec, StateSpec, WindowGroup } from '../processor/messages.ts';

/** Both are answered. */
export type OnnxMessage =
  /** Times a matmul with so many threads, in milliseconds. */
  { readonly kind: 'measure'; readonly threads: number } | { readonly kind: 'load'; readonly graph: ThreadGraph };

export interface ThreadGraph {
  /** An ONNX ModelProto whose weights lie in `weightsDirectory`. */
  readonly model: Uint8Array;
  readonly weightsDirectory: string;
  readonly threads: number;
  readonly inputs: GraphInputs;
}

// Describes the graph's inputs. Plain data, sent to the graph thread once.

export interface GraphInputs {
  /** Of the hidden states that a stage takes instead of token ids. */
  readonly hiddenSize?: number;
  readonly numAttentionHeads: number;
  readonly rotations: readonly RotationInputs[];
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  /** Of recurrent layers. They are the group after the last window group. */
  readonly states: readonly StateSpec[];
}

/** Inputs `cos.<index>` and `sin.<index>`: RoPE tables for the positions of the pass's tokens. */
export interface RotationInputs {
  readonly rope: RopeSpec;
  /** Multiplies cos and sin. Folds the softmax scale into the queries' rotation at no cost. */
  readonly scale: number;
  /** Of queries: multiplies cos and sin too, by position. */
  readonly temperature?: QueryTemperature;
}
