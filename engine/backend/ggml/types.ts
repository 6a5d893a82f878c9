/** ggml's numbers of the types that weights may have (`enum ggml_type`), and the messages of this backend's thread. */
import type { TensorType } from '../../formats/tensor.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { CacheType, LayerCacheSpec, WindowGroup } from '../processor/messages.ts';
import type { LibraryFiles } from './library.ts';

export const ggmlTypes: Readonly<Partial<Record<TensorType, number>>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q2_K: 10,
  Q3_K: 11,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  IQ4_NL: 20,
  IQ4_XS: 23,
  BF16: 30,
  MXFP4: 39,
};
export const float32 = 0;
export const int32 = 26;
export const int64 = 27;
export const cacheTypes: Readonly<Record<CacheType, number>> = { float32, float16: 1 };

/** A tensor of the thread: what a weight becomes. */
export interface DeclaredTensor {
  /** As `layers.0.query`, with `.bias` behind a linear's bias. */
  readonly key: string;
  readonly type: number;
  /** ggml's order: the row's length first. */
  readonly sizes: readonly number[];
  /** `matrix`, `experts`: the first factor of a matmul alone, so its blocks may be interleaved. */
  readonly use: 'matrix' | 'experts' | 'vector';
}

/** What the decoder's thread holds: the layers' caches in the order of the layers. */
export interface GgmlModel {
  readonly libraries: LibraryFiles;
  readonly spec: DecoderSpec;
  readonly threads: number;
  readonly cacheType: CacheType;
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  readonly tensors: readonly DeclaredTensor[];
}

/** Both are answered. */
export type GgmlMessage =
  /** Opens the library and allocates every tensor. */
  | { readonly kind: 'load'; readonly model: GgmlModel }
  /** The next bytes of a tensor, from `offset` on. */
  | { readonly kind: 'fill'; readonly key: string; readonly offset: number; readonly bytes: Uint8Array };
