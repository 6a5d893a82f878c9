/** What the thread that runs the graph has to know besides the graph itself: plain data, sent to it once. */
import type { RopeSpec } from '../../model/spec/spec.ts';
import { elementBytes } from './onnxFile.ts';

export interface RunPlan {
  readonly numAttentionHeads: number;
  readonly rotations: readonly RotationPlan[];
  readonly spans: readonly SpanPlan[];
  readonly layers: readonly LayerCachePlan[];
}

/** Inputs `cos.<index>` and `sin.<index>`: tables of one rotation at the positions of the run's tokens. */
export interface RotationPlan {
  readonly rope: RopeSpec;
  /** Multiplies cos and sin: a softmax scale costs nothing in the queries' rotation. */
  readonly scale: number;
}

/** Layers that see the same tokens share inputs `mask.<index>` and `sizes.<index>`. */
export interface SpanPlan {
  /** Key j is visible to query i iff `0 <= i - j < slidingWindow`; absent: every earlier key. */
  readonly slidingWindow?: number;
}

/** What the cache is made of. */
export type CacheType = 'float32' | 'float16';

/** The cache of one layer: inputs `keys.<layer>` `[kvHeads, 1, keyDim, capacity]` and `values.<layer>` alike. */
export interface LayerCachePlan {
  readonly type: CacheType;
  readonly span: number;
  readonly keyValueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** The values are the first `valueDim` of the keys (latent attention). */
  readonly valuesInKeys: boolean;
}

/** Values cached for one token. */
export function rowsOf({ keyValueHeads, keyDim, valueDim, valuesInKeys }: LayerCachePlan): number {
  return keyValueHeads * (keyDim + (valuesInKeys ? 0 : valueDim));
}

/** Of one token. */
export const bytesOf = (layer: LayerCachePlan): number => rowsOf(layer) * elementBytes[layer.type];
