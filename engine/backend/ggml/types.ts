/** ggml's type numbers (`enum ggml_type`). */
import type { TensorType } from '../../formats/tensor.ts';
import type { CacheType } from '../processor/messages.ts';

/** Types of weights. */
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
export const int8 = 24;
export const int32 = 26;
export const int64 = 27;
export const cacheTypes: Readonly<Record<CacheType, number>> = { float32, float16: 1 };
