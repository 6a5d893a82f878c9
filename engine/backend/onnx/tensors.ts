/** Numbers on their way into the runtime and out of it. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { CacheType } from './layerPlan.ts';

export type Output = InferenceSession.ReturnType[string];

/** f32, or the bits of f16. */
export type CacheValues = Float32Array | Uint16Array;

export const newValues = (type: CacheType, count: number): CacheValues =>
  type === 'float16' ? new Uint16Array(count) : new Float32Array(count);

/** The bytes as values, without a copy where they are aligned. */
export function valuesOf(type: CacheType, bytes: Uint8Array): CacheValues {
  const size = type === 'float16' ? 2 : 4;
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const count = byteLength / size;
  return type === 'float16' ? new Uint16Array(buffer, byteOffset, count) : new Float32Array(buffer, byteOffset, count);
}

export function cacheTensor(values: CacheValues, dims: readonly number[]): Tensor {
  if (values instanceof Float32Array) return new Tensor('float32', values, dims);
  // The binding (1.30) reads halves from a Uint16Array alone, of which Tensor would make a Float16Array where there is one.
  const tensor: Tensor = new Tensor('uint16', values, dims);
  Object.defineProperty(tensor, 'type', { value: 'float16' });
  return tensor;
}

/** Of an output; halves come as a Float16Array where there is one, else as a Uint16Array. */
export function cacheValues(output: Output | undefined): CacheValues {
  if (output?.type !== 'float16') return floats(output);
  const { buffer, byteOffset, length } = output.data as unknown as Uint16Array;
  return new Uint16Array(buffer, byteOffset, length);
}

export function floats(output: Output | undefined): Float32Array {
  if (!(output?.data instanceof Float32Array)) throw new Error('the graph returned no floats');
  return output.data;
}
