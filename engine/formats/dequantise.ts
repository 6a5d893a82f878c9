/** Converts stored bytes of any tensor type to f32 values. */

import type { TensorType } from './tensor.ts';
import { blockLayout, float8E4m3Values, float8E5m2Values, float8E8m0Values, float16Values } from './tensor.ts';

/** Fills `destination`. */
type Decode = (bytes: Uint8Array, destination: Float32Array) => void;

// Plain element types.

/** Views the bytes as elements of `size` bytes; copies them if they aren't aligned. */
function aligned<T>(
  View: new (buffer: ArrayBufferLike, byteOffset: number, length: number) => T,
  size: number,
  bytes: Uint8Array,
): T {
  const source = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new View(source.buffer, source.byteOffset, source.byteLength / size);
}

const float64: Decode = (bytes, destination) => destination.set(aligned(Float64Array, 8, bytes));

const float32: Decode = (bytes, destination) =>
  // Byte by byte, which preserves NaN payloads.
  new Uint8Array(destination.buffer, destination.byteOffset, destination.byteLength).set(bytes);

const float16: Decode = (bytes, destination) => {
  const bits = aligned(Uint16Array, 2, bytes);
  for (let i = 0; i < destination.length; i++) destination[i] = float16Values[bits[i] ?? 0] ?? 0;
};

const bfloat16: Decode = (bytes, destination) => {
  const bits = aligned(Uint16Array, 2, bytes);
  const words = new Uint32Array(destination.buffer, destination.byteOffset, destination.length);
  for (let i = 0; i < words.length; i++) words[i] = (bits[i] ?? 0) << 16;
};

const byTable =
  (values: Float32Array): Decode =>
  (bytes, destination) => {
    for (let i = 0; i < destination.length; i++) destination[i] = values[bytes[i] ?? 0] ?? 0;
  };

const float8E4m3: Decode = byTable(float8E4m3Values);
const float8E5m2: Decode = byTable(float8E5m2Values);
const float8E8m0: Decode = byTable(float8E8m0Values);

const int8: Decode = (bytes, destination) => destination.set(aligned(Int8Array, 1, bytes));
const uint8: Decode = (bytes, destination) => destination.set(bytes);
const int16: Decode = (bytes, destination) => destination.set(aligned(Int16Array, 2, bytes));
const uint16: Decode = (bytes, destination) => destination.set(aligned(Uint16Array, 2, bytes));
const int32: Decode = (bytes, destination) => destination.set(aligned(Int32Array, 4, bytes));
const uint32: Decode = (bytes, destination) => destination.set(aligned(Uint32Array, 4, bytes));

/** Integers over 2^53 are rounded to f64, then to f32. */
const sixtyFour =
  (highAt: (words: DataView, at: number) => number): Decode =>
  (bytes, destination) => {
    const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < destination.length; i++) {
      destination[i] = highAt(words, 8 * i + 4) * 2 ** 32 + words.getUint32(8 * i, true);
    }
  };
const int64: Decode = sixtyFour((words, at) => words.getInt32(at, true));
const uint64: Decode = sixtyFour((words, at) => words.getUint32(at, true));

const boolean: Decode = (bytes, destination) => {
  for (let i = 0; i < destination.length; i++) destination[i] = bytes[i] === 0 ? 0 : 1;
};

// Converts ggml's blocks of 32 elements to f32, bit-identical to `dequantize_row_*` in ggml-quants.c. Element j of the
// first half is the low nibble of byte j, element j of the second half the high nibble. Products are exact in f64 and
// rounded once when stored, like ggml's f32 arithmetic.

const blockElements = 32;
const half = 16;

const float16At = (bytes: Uint8Array, at: number): number =>
  float16Values[(bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)] ?? 0;

const uint32At = (bytes: Uint8Array, at: number): number =>
  (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);

/** `{ f16 scale; u8 codes[16] }`, value = scale · (code − 8). */
const q4_0: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 18, out += blockElements) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 2 + j] ?? 0;
      destination[out + j] = scale * ((codes & 15) - 8);
      destination[out + j + half] = scale * ((codes >> 4) - 8);
    }
  }
};

/** `{ f16 scale; f16 minimum; u8 codes[16] }`, value = scale · code + minimum. */
const q4_1: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 20, out += blockElements) {
    const scale = float16At(bytes, at);
    const minimum = float16At(bytes, at + 2);
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 4 + j] ?? 0;
      destination[out + j] = scale * (codes & 15) + minimum;
      destination[out + j + half] = scale * (codes >> 4) + minimum;
    }
  }
};

/** `{ f16 scale; u32 fifthBits; u8 codes[16] }`, value = scale · (code − 16); bit i of `fifthBits` is element i's. */
const q5_0: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 22, out += blockElements) {
    const scale = float16At(bytes, at);
    const fifthBits = uint32At(bytes, at + 2);
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 6 + j] ?? 0;
      destination[out + j] = scale * (((codes & 15) | (((fifthBits >> j) & 1) << 4)) - 16);
      destination[out + j + half] = scale * (((codes >> 4) | (((fifthBits >> (j + half)) & 1) << 4)) - 16);
    }
  }
};

/** `{ f16 scale; f16 minimum; u32 fifthBits; u8 codes[16] }`, value = scale · code + minimum. */
const q5_1: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 24, out += blockElements) {
    const scale = float16At(bytes, at);
    const minimum = float16At(bytes, at + 2);
    const fifthBits = uint32At(bytes, at + 4);
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 8 + j] ?? 0;
      destination[out + j] = scale * ((codes & 15) | (((fifthBits >> j) & 1) << 4)) + minimum;
      destination[out + j + half] = scale * ((codes >> 4) | (((fifthBits >> (j + half)) & 1) << 4)) + minimum;
    }
  }
};

/** `{ f16 scale; i8 codes[32] }`, value = scale · code. */
const q8_0: Decode = (bytes, destination) => {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, out = 0; out < destination.length; at += 34, out += blockElements) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < blockElements; j++) destination[out + j] = scale * (signed[at + 2 + j] ?? 0);
  }
};

/** ggml-common.h `kvalues_iq4nl`: the non-linear grid of IQ4_NL and IQ4_XS. */
const iq4Grid = Float64Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** `{ f16 scale; u8 codes[16] }`, value = scale · grid[code]. */
const iq4_nl: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 18, out += blockElements) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 2 + j] ?? 0;
      destination[out + j] = scale * (iq4Grid[codes & 15] ?? 0);
      destination[out + j + half] = scale * (iq4Grid[codes >> 4] ?? 0);
    }
  }
};

/** E2M1 values times two. ggml decodes minus zero as zero. */
const e2m1Doubled = Float64Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
const halfScales = Float64Array.from({ length: 256 }, (_, exponent) => 2 ** (exponent - 128));

/** `{ e8m0 scale; u8 codes[16] }`, value = 2^(scale − 127) · e2m1[code]. Scale 255 is 2^128 as in ggml, not NaN. */
const mxfp4: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 17, out += blockElements) {
    const halfScale = halfScales[bytes[at] ?? 0] ?? 0;
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 1 + j] ?? 0;
      destination[out + j] = halfScale * (e2m1Doubled[codes & 15] ?? 0);
      destination[out + j + half] = halfScale * (e2m1Doubled[codes >> 4] ?? 0);
    }
  }
};

// Converts ggml's super-blocks of 256 elements to f32, bit-identical to `dequantize_row_*` in ggml-quants.c. A
// super-block has one or two f16 scales, and small integer scales for its sub-blocks of 16 or 32 elements.

const superElements = 256;

const byteAt = (bytes: Uint8Array, at: number): number => bytes[at] ?? 0;
/**
 * `{ u8 scales[16]; u8 codes[64]; f16 scale; f16 minimumScale }`: sub-blocks of 16 with a 4-bit scale and a 4-bit
 * minimum. Element 128 h + 32 s + i is bits 2 s and 2 s + 1 of byte 32 h + i.
 */
const q2_k: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 84, out += superElements) {
    const scale = float16At(bytes, at + 80);
    const minimumScale = float16At(bytes, at + 82);
    for (let sub = 0; sub < 16; sub++) {
      const packed = byteAt(bytes, at + sub);
      const subScale = scale * (packed & 15);
      const minimum = minimumScale * (packed >> 4);
      const codesAt = at + 16 + 32 * (sub >> 3) + 16 * (sub & 1);
      const shift = sub & 6;
      for (let i = 0; i < 16; i++) {
        destination[out + 16 * sub + i] = subScale * ((byteAt(bytes, codesAt + i) >> shift) & 3) - minimum;
      }
    }
  }
};

/**
 * Scale of sub-block 0 to 15 of Q3_K: low 4 bits in bytes 0 to 7, high 2 bits in bytes 8 to 11; stored with offset 32.
 */
export function q3Scale(bytes: Uint8Array, at: number, sub: number): number {
  const low = (byteAt(bytes, at + (sub & 7)) >> (sub < 8 ? 0 : 4)) & 15;
  const high = (byteAt(bytes, at + 8 + (sub & 3)) >> (2 * (sub >> 2))) & 3;
  return (low | (high << 4)) - 32;
}

/**
 * `{ u8 highBits[32]; u8 codes[64]; u8 scales[12]; f16 scale }`: sub-blocks of 16 with 6-bit scales.
 * A clear high bit subtracts 4; bit b of `highBits` belongs to elements 32 b to 32 b + 31.
 */
const q3_k: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 110, out += superElements) {
    const scale = float16At(bytes, at + 108);
    for (let sub = 0; sub < 16; sub++) {
      const subScale = scale * q3Scale(bytes, at + 96, sub);
      const codesAt = at + 32 + 32 * (sub >> 3) + 16 * (sub & 1);
      const highAt = at + 16 * (sub & 1);
      const shift = sub & 6;
      const highBit = sub >> 1;
      for (let i = 0; i < 16; i++) {
        const code = (byteAt(bytes, codesAt + i) >> shift) & 3;
        const high = (byteAt(bytes, highAt + i) >> highBit) & 1;
        destination[out + 16 * sub + i] = subScale * (code + 4 * high - 4);
      }
    }
  }
};

/** Scale of sub-block 0 to 7 of Q4_K and Q5_K: 6 bits of `scales[12]` (ggml `get_scale_min_k4`). */
export function q45Scale(bytes: Uint8Array, at: number, sub: number): number {
  if (sub < 4) return byteAt(bytes, at + sub) & 63;
  return (byteAt(bytes, at + sub + 4) & 15) | ((byteAt(bytes, at + sub - 4) >> 6) << 4);
}

/** Minimum of sub-block 0 to 7 of Q4_K and Q5_K. */
export function q45Minimum(bytes: Uint8Array, at: number, sub: number): number {
  if (sub < 4) return byteAt(bytes, at + sub + 4) & 63;
  return (byteAt(bytes, at + sub + 4) >> 4) | ((byteAt(bytes, at + sub) >> 6) << 4);
}

/**
 * `{ f16 scale; f16 minimumScale; u8 scales[12]; u8 codes[128] }`: sub-blocks of 32.
 * Sub-blocks 2 p and 2 p + 1 are the low and the high nibbles of bytes 32 p to 32 p + 31.
 */
const q4_k: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 144, out += superElements) {
    const scale = float16At(bytes, at);
    const minimumScale = float16At(bytes, at + 2);
    for (let sub = 0; sub < 8; sub++) {
      const subScale = scale * q45Scale(bytes, at + 4, sub);
      const minimum = minimumScale * q45Minimum(bytes, at + 4, sub);
      const codesAt = at + 16 + 32 * (sub >> 1);
      const shift = 4 * (sub & 1);
      for (let i = 0; i < 32; i++) {
        destination[out + 32 * sub + i] = subScale * ((byteAt(bytes, codesAt + i) >> shift) & 15) - minimum;
      }
    }
  }
};

/**
 * `{ f16 scale; f16 minimumScale; u8 scales[12]; u8 fifthBits[32]; u8 codes[128] }`: like Q4_K, plus bit s of
 * `fifthBits[i]` as the fifth bit of element i of sub-block s.
 */
const q5_k: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 176, out += superElements) {
    const scale = float16At(bytes, at);
    const minimumScale = float16At(bytes, at + 2);
    for (let sub = 0; sub < 8; sub++) {
      const subScale = scale * q45Scale(bytes, at + 4, sub);
      const minimum = minimumScale * q45Minimum(bytes, at + 4, sub);
      const codesAt = at + 48 + 32 * (sub >> 1);
      const shift = 4 * (sub & 1);
      for (let i = 0; i < 32; i++) {
        const low = (byteAt(bytes, codesAt + i) >> shift) & 15;
        const fifth = (byteAt(bytes, at + 16 + i) >> sub) & 1;
        destination[out + 32 * sub + i] = subScale * (low | (fifth << 4)) - minimum;
      }
    }
  }
};

/**
 * `{ u8 low[128]; u8 high[64]; i8 scales[16]; f16 scale }`: sub-blocks of 16, value = scale · subScale · (code − 32).
 * In each half of 128 elements, groups 0 and 1 of 32 are the low nibbles of bytes 0 to 63, groups 2 and 3 the high
 * nibbles; bits 2 r and 2 r + 1 of the half's 32 `high` bytes complete group r.
 */
const q6_k: Decode = (bytes, destination) => {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, out = 0; out < destination.length; at += 210, out += superElements) {
    const scale = float16At(bytes, at + 208);
    for (let sub = 0; sub < 16; sub++) {
      const subScale = scale * (signed[at + 192 + sub] ?? 0);
      const inRun = 16 * (sub & 1);
      const run = (sub >> 1) & 3;
      const lowAt = at + 64 * (sub >> 3) + 32 * (run & 1) + inRun;
      const highAt = at + 128 + 32 * (sub >> 3) + inRun;
      const lowShift = 4 * (run >> 1);
      for (let i = 0; i < 16; i++) {
        const low = (byteAt(bytes, lowAt + i) >> lowShift) & 15;
        const high = (byteAt(bytes, highAt + i) >> (2 * run)) & 3;
        destination[out + 16 * sub + i] = subScale * ((low | (high << 4)) - 32);
      }
    }
  }
};

/**
 * `{ f16 scale; u16 scalesHigh; u8 scalesLow[4]; u8 codes[128] }`: sub-blocks of 32 in IQ4_NL's layout, with 6-bit
 * scales stored with offset 32.
 */
const iq4_xs: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 136, out += superElements) {
    const scale = float16At(bytes, at);
    const scalesHigh = byteAt(bytes, at + 2) | (byteAt(bytes, at + 3) << 8);
    for (let sub = 0; sub < 8; sub++) {
      const low = (byteAt(bytes, at + 4 + (sub >> 1)) >> (4 * (sub & 1))) & 15;
      const subScale = scale * ((low | (((scalesHigh >> (2 * sub)) & 3) << 4)) - 32);
      for (let i = 0; i < 16; i++) {
        const codes = byteAt(bytes, at + 8 + 16 * sub + i);
        destination[out + 32 * sub + i] = subScale * (iq4Grid[codes & 15] ?? 0);
        destination[out + 32 * sub + i + 16] = subScale * (iq4Grid[codes >> 4] ?? 0);
      }
    }
  }
};

const decoders: Readonly<Record<TensorType, (bytes: Uint8Array, destination: Float32Array) => void>> = {
  F64: float64,
  F32: float32,
  F16: float16,
  BF16: bfloat16,
  F8_E4M3: float8E4m3,
  F8_E5M2: float8E5m2,
  F8_E8M0: float8E8m0,
  I8: int8,
  U8: uint8,
  I16: int16,
  U16: uint16,
  I32: int32,
  U32: uint32,
  I64: int64,
  U64: uint64,
  BOOL: boolean,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
  IQ4_NL: iq4_nl,
  IQ4_XS: iq4_xs,
  MXFP4: mxfp4,
};

/**
 * Dequantises whole blocks of `type`, into `destination` if given.
 * @throws RangeError for partial blocks, or a destination of another length.
 */
export function dequantise(type: TensorType, bytes: Uint8Array, destination?: Float32Array): Float32Array {
  const layout = blockLayout(type);
  const elements = (bytes.byteLength / layout.bytes) * layout.elements;
  if (bytes.byteLength % layout.bytes !== 0) throw new RangeError(`${bytes.byteLength} bytes are not whole ${type} `);
  const values = destination ?? new Float32Array(elements);
  if (values.length !== elements)
    throw new RangeError(`${elements} ${type} elements don't match a destination of ${values.length}.`);
  decoders[type](bytes, values);
  return values;
}
