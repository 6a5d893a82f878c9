/** Converts stored bytes of any tensor type to f32 values. */
import { blockLayout } from './blocks.ts';
import * as blocks from './dequantiseBlocks.ts';
import * as plain from './dequantisePlain.ts';
import * as superBlocks from './dequantiseSuperBlocks.ts';
import type { TensorType } from './tensor.ts';

const decoders: Readonly<Record<TensorType, (bytes: Uint8Array, destination: Float32Array) => void>> = {
  F64: plain.float64,
  F32: plain.float32,
  F16: plain.float16,
  BF16: plain.bfloat16,
  F8_E4M3: plain.float8E4m3,
  F8_E5M2: plain.float8E5m2,
  F8_E8M0: plain.float8E8m0,
  I8: plain.int8,
  U8: plain.uint8,
  I16: plain.int16,
  U16: plain.uint16,
  I32: plain.int32,
  U32: plain.uint32,
  I64: plain.int64,
  U64: plain.uint64,
  BOOL: plain.boolean,
  Q4_0: blocks.q4_0,
  Q4_1: blocks.q4_1,
  Q5_0: blocks.q5_0,
  Q5_1: blocks.q5_1,
  Q8_0: blocks.q8_0,
  Q2_K: superBlocks.q2_k,
  Q3_K: superBlocks.q3_k,
  Q4_K: superBlocks.q4_k,
  Q5_K: superBlocks.q5_k,
  Q6_K: superBlocks.q6_k,
  IQ4_NL: blocks.iq4_nl,
  IQ4_XS: superBlocks.iq4_xs,
  MXFP4: blocks.mxfp4,
};

/**
 * Dequantises whole blocks of `type`, into `destination` if given.
 * @throws RangeError for partial blocks, or a destination of another length.
 */
export function dequantise(type: TensorType, bytes: Uint8Array, destination?: Float32Array): Float32Array {
  const layout = blockLayout(type);
  const elements = (bytes.byteLength / layout.bytes) * layout.elements;
  if (bytes.byteLength % layout.bytes !== 0)
    throw new RangeError(`${bytes.byteLength} bytes are not whole ${type} blocks.`);
  const values = destination ?? new Float32Array(elements);
  if (values.length !== elements)
    throw new RangeError(`${elements} ${type} elements don't match a destination of ${values.length}.`);
  decoders[type](bytes, values);
  return values;
}
