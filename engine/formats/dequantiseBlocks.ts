/**
 * Converts ggml's blocks of 32 elements to f32, bit-identical to `dequantize_row_*` in ggml-quants.c. Element j of the
 * first half is the low nibble of byte j, element j of the second half the high nibble. Products are exact in f64 and
 * rounded once when stored, like ggml's f32 arithmetic.
 */
import { float16Values } from './blocks.ts';

type Decode = (bytes: Uint8Array, destination: Float32Array) => void;

const blockElements = 32;
const half = 16;

const float16At = (bytes: Uint8Array, at: number): number =>
  float16Values[(bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8)] ?? 0;

const uint32At = (bytes: Uint8Array, at: number): number =>
  (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);

/** `{ f16 scale; u8 codes[16] }`, value = scale · (code − 8). */
export const q4_0: Decode = (bytes, destination) => {
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
export const q4_1: Decode = (bytes, destination) => {
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
export const q5_0: Decode = (bytes, destination) => {
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
export const q5_1: Decode = (bytes, destination) => {
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
export const q8_0: Decode = (bytes, destination) => {
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, out = 0; out < destination.length; at += 34, out += blockElements) {
    const scale = float16At(bytes, at);
    for (let j = 0; j < blockElements; j++) destination[out + j] = scale * (signed[at + 2 + j] ?? 0);
  }
};

/** ggml-common.h `kvalues_iq4nl`: the non-linear grid of IQ4_NL and IQ4_XS. */
export const iq4Grid = Float64Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** `{ f16 scale; u8 codes[16] }`, value = scale · grid[code]. */
export const iq4_nl: Decode = (bytes, destination) => {
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
export const mxfp4: Decode = (bytes, destination) => {
  for (let at = 0, out = 0; out < destination.length; at += 17, out += blockElements) {
    const halfScale = halfScales[bytes[at] ?? 0] ?? 0;
    for (let j = 0; j < half; j++) {
      const codes = bytes[at + 1 + j] ?? 0;
      destination[out + j] = halfScale * (e2m1Doubled[codes & 15] ?? 0);
      destination[out + j + half] = halfScale * (e2m1Doubled[codes >> 4] ?? 0);
    }
  }
};
