/**
 * Converts ggml's blocks to small integers with a float scale and, for some types, a float minimum: value = scale ·
 * code + minimum. Scales are exact: the product of an f16 and a small integer fits an f32. Codes are centred on zero,
 * and the minimum is corrected for the centre in f32, which may round its last bit.
 */

import { dequantise, q3Scale, q45Minimum, q45Scale } from '../../formats/dequantise.ts';
import type { TensorType } from '../../formats/tensor.ts';
import { float16Values } from '../../formats/tensor.ts';

export interface IntegerGrid {
  /** Bits of a code. */
  readonly bits: 4 | 8;
  /** Consecutive elements of a row with one scale. */
  readonly elementsPerScale: 16 | 32;
  /**
   * Bytes to write over a block's scales and minimums so that every scale is 1 and every minimum is minus the centre.
   * Dequantising the block then gives the codes.
   */
  readonly unit: readonly (readonly [offset: number, ...bytes: number[]])[];
  readonly scale: ReadNumber;
  readonly minimum?: ReadNumber;
}

/** Reads a number of sub-block `sub` of the block at byte `at`. */
type ReadNumber = (bytes: Uint8Array, at: number, sub: number) => number;

const one16 = [0x00, 0x3c] as const;

const float16At = (bytes: Uint8Array, at: number): number =>
  float16Values[(bytes[at] as number) | ((bytes[at + 1] as number) << 8)] as number;
const nibble = (bytes: Uint8Array, at: number, high: boolean): number =>
  high ? (bytes[at] as number) >> 4 : (bytes[at] as number) & 15;

/** A type with blocks of 32 elements that start with an f16 scale and have no minimum. */
const scaled = (bits: 4 | 8): IntegerGrid => ({ bits, elementsPerScale: 32, unit: [[0, ...one16]], scale: float16At });

export const integerGrids: Readonly<Partial<Record<TensorType, IntegerGrid>>> = {
  Q4_0: scaled(4),
  Q5_0: scaled(8),
  Q8_0: scaled(8),
  IQ4_NL: scaled(8),
  Q4_1: {
    bits: 4,
    elementsPerScale: 32,
    unit: [[0, ...one16, 0x00, 0xc8]], // minimum −8
    scale: float16At,
    minimum: (bytes, at) => float16At(bytes, at + 2) + 8 * float16At(bytes, at),
  },
  Q5_1: {
    bits: 8,
    elementsPerScale: 32,
    unit: [[0, ...one16, 0x00, 0xcc]], // minimum −16
    scale: float16At,
    minimum: (bytes, at) => float16At(bytes, at + 2) + 16 * float16At(bytes, at),
  },
  MXFP4: {
    bits: 8,
    elementsPerScale: 32,
    unit: [[0, 128]],
    scale: (bytes, at) => 2 ** ((bytes[at] as number) - 128),
  },
  Q2_K: {
    bits: 4,
    elementsPerScale: 16,
    unit: [
      [0, ...new Array<number>(16).fill(0x21)], // scale 1, minimum 2
      [80, ...one16, ...one16],
    ],
    scale: (bytes, at, sub) => float16At(bytes, at + 80) * nibble(bytes, at + sub, false),
    minimum: (bytes, at, sub) =>
      2 * float16At(bytes, at + 80) * nibble(bytes, at + sub, false) -
      float16At(bytes, at + 82) * nibble(bytes, at + sub, true),
  },
  Q3_K: {
    bits: 4,
    elementsPerScale: 16,
    unit: [[96, ...new Array<number>(8).fill(0x11), ...new Array<number>(4).fill(0xaa), ...one16]], // scales 33 − 32
    scale: (bytes, at, sub) => float16At(bytes, at + 108) * q3Scale(bytes, at + 96, sub),
  },
  Q4_K: {
    bits: 4,
    elementsPerScale: 32,
    unit: [[0, ...one16, ...one16, 1, 1, 1, 1, 8, 8, 8, 8, 0x81, 0x81, 0x81, 0x81]], // scale 1, minimum 8
    scale: (bytes, at, sub) => float16At(bytes, at) * q45Scale(bytes, at + 4, sub),
    minimum: (bytes, at, sub) => centredMinimum(bytes, at, sub, 8),
  },
  Q5_K: {
    bits: 8,
    elementsPerScale: 32,
    unit: [[0, ...one16, ...one16, 1, 1, 1, 1, 0x50, 0x50, 0x50, 0x50, 1, 1, 1, 1]], // scale 1, minimum 16
    scale: (bytes, at, sub) => float16At(bytes, at) * q45Scale(bytes, at + 4, sub),
    minimum: (bytes, at, sub) => centredMinimum(bytes, at, sub, 16),
  },
  Q6_K: {
    bits: 8,
    elementsPerScale: 16,
    unit: [[192, ...new Array<number>(16).fill(1), ...one16]],
    scale: (bytes, at, sub) => float16At(bytes, at + 208) * (((bytes[at + 192 + sub] as number) << 24) >> 24),
  },
  IQ4_XS: {
    bits: 8,
    elementsPerScale: 32,
    unit: [[0, ...one16, 0xaa, 0xaa, 0x11, 0x11, 0x11, 0x11]], // scales 33 − 32
    scale: (bytes, at, sub) => {
      const high = ((bytes[at + 2] as number) | ((bytes[at + 3] as number) << 8)) >> (2 * sub);
      return float16At(bytes, at) * ((nibble(bytes, at + 4 + (sub >> 1), sub % 2 === 1) | ((high & 3) << 4)) - 32);
    },
  },
};

/** Q4_K and Q5_K: value = scale · code − minimum, with codes from 0. */
function centredMinimum(bytes: Uint8Array, at: number, sub: number, centre: number): number {
  return (
    centre * float16At(bytes, at) * q45Scale(bytes, at + 4, sub) -
    float16At(bytes, at + 2) * q45Minimum(bytes, at + 4, sub)
  );
}

export interface PackedRows {
  /** In MatMulNBits' format: unsigned; two 4-bit codes a byte, the first in the low half. */
  readonly codes: Uint8Array;
  readonly scales: Float32Array;
  readonly minimums?: Float32Array;
}

/** `bytes`: whole blocks of `type`; they are overwritten. `grid` and `layout` are those of `type`. */
export function packRows(
  type: TensorType,
  grid: IntegerGrid,
  layout: { readonly elements: number; readonly bytes: number },
  bytes: Uint8Array,
): PackedRows {
  const blocks = bytes.length / layout.bytes;
  const subBlocks = layout.elements / grid.elementsPerScale;
  const scales = new Float32Array(blocks * subBlocks);
  const minimums = grid.minimum && new Float32Array(scales.length);
  for (let block = 0, at = 0; block < blocks; block++, at += layout.bytes) {
    for (let sub = 0; sub < subBlocks; sub++) {
      scales[block * subBlocks + sub] = grid.scale(bytes, at, sub);
      if (minimums && grid.minimum) minimums[block * subBlocks + sub] = grid.minimum(bytes, at, sub);
    }
    for (const [offset, ...unit] of grid.unit) bytes.set(unit, at + offset);
  }
  const codes = packCodes(dequantise(type, bytes), grid.bits);
  return { codes, scales, ...(minimums && { minimums }) };
}

/** Adds MatMulNBits' default zero points, 8 and 128. */
function packCodes(codes: Float32Array, bits: 4 | 8): Uint8Array {
  const packed = new Uint8Array((codes.length * bits) / 8);
  if (bits === 8) {
    for (let i = 0; i < packed.length; i++) packed[i] = (codes[i] as number) + 128;
    return packed;
  }
  for (let i = 0; i < packed.length; i++) {
    packed[i] = ((codes[2 * i] as number) + 8) | (((codes[2 * i + 1] as number) + 8) << 4);
  }
  return packed;
}
