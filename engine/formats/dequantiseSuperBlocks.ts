/**
 * Converts ggml's super-blocks of 256 elements to f32, bit-identical to `dequantize_row_*` in ggml-quants.c. A
 * super-block has one or two f16 scales, and small integer scales for its sub-blocks of 16 or 32 elements.
 */

import { float16Values } from './blocks.ts';
import { iq4Grid } from './dequantiseBlocks.ts';

type Decode = (bytes: Uint8Array, destination: Float32Array) => void;

const superElements = 256;

const byteAt = (bytes: Uint8Array, at: number): number => bytes[at] ?? 0;
const float16At = (bytes: Uint8Array, at: number): number =>
  float16Values[byteAt(bytes, at) | (byteAt(bytes, at + 1) << 8)] ?? 0;

/**
 * `{ u8 scales[16]; u8 codes[64]; f16 scale; f16 minimumScale }`: sub-blocks of 16 with a 4-bit scale and a 4-bit
 * minimum. Element 128 h + 32 s + i is bits 2 s and 2 s + 1 of byte 32 h + i.
 */
export const q2_k: Decode = (bytes, destination) => {
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
export const q3_k: Decode = (bytes, destination) => {
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
export const q4_k: Decode = (bytes, destination) => {
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
export const q5_k: Decode = (bytes, destination) => {
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
export const q6_k: Decode = (bytes, destination) => {
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
export const iq4_xs: Decode = (bytes, destination) => {
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
