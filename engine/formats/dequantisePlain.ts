/** Converts plain element types to f32. Each function fills `destination`. */
import { float8E4m3Values, float8E5m2Values, float8E8m0Values, float16Values } from './blocks.ts';

type Decode = (bytes: Uint8Array, destination: Float32Array) => void;

/** Views the bytes as elements of `size` bytes; copies them if they aren't aligned. */
function aligned<T>(
  View: new (buffer: ArrayBufferLike, byteOffset: number, length: number) => T,
  size: number,
  bytes: Uint8Array,
): T {
  const source = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new View(source.buffer, source.byteOffset, source.byteLength / size);
}

export const float64: Decode = (bytes, destination) => destination.set(aligned(Float64Array, 8, bytes));

export const float32: Decode = (bytes, destination) =>
  // Byte by byte, which preserves NaN payloads.
  new Uint8Array(destination.buffer, destination.byteOffset, destination.byteLength).set(bytes);

export const float16: Decode = (bytes, destination) => {
  const bits = aligned(Uint16Array, 2, bytes);
  for (let i = 0; i < destination.length; i++) destination[i] = float16Values[bits[i] ?? 0] ?? 0;
};

export const bfloat16: Decode = (bytes, destination) => {
  const bits = aligned(Uint16Array, 2, bytes);
  const words = new Uint32Array(destination.buffer, destination.byteOffset, destination.length);
  for (let i = 0; i < words.length; i++) words[i] = (bits[i] ?? 0) << 16;
};

const byTable =
  (values: Float32Array): Decode =>
  (bytes, destination) => {
    for (let i = 0; i < destination.length; i++) destination[i] = values[bytes[i] ?? 0] ?? 0;
  };

export const float8E4m3: Decode = byTable(float8E4m3Values);
export const float8E5m2: Decode = byTable(float8E5m2Values);
export const float8E8m0: Decode = byTable(float8E8m0Values);

export const int8: Decode = (bytes, destination) => destination.set(aligned(Int8Array, 1, bytes));
export const uint8: Decode = (bytes, destination) => destination.set(bytes);
export const int16: Decode = (bytes, destination) => destination.set(aligned(Int16Array, 2, bytes));
export const uint16: Decode = (bytes, destination) => destination.set(aligned(Uint16Array, 2, bytes));
export const int32: Decode = (bytes, destination) => destination.set(aligned(Int32Array, 4, bytes));
export const uint32: Decode = (bytes, destination) => destination.set(aligned(Uint32Array, 4, bytes));

/** Integers over 2^53 are rounded to f64, then to f32. */
const sixtyFour =
  (highAt: (words: DataView, at: number) => number): Decode =>
  (bytes, destination) => {
    const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < destination.length; i++) {
      destination[i] = highAt(words, 8 * i + 4) * 2 ** 32 + words.getUint32(8 * i, true);
    }
  };
export const int64: Decode = sixtyFour((words, at) => words.getInt32(at, true));
export const uint64: Decode = sixtyFour((words, at) => words.getUint32(at, true));

export const boolean: Decode = (bytes, destination) => {
  for (let i = 0; i < destination.length; i++) destination[i] = bytes[i] === 0 ? 0 : 1;
};
