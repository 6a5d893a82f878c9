/** Sizes of tensors in bytes: block layouts of all types, with overflow checks. */
import { invalidInput } from '../errors.ts';
import type { TensorType } from './tensor.ts';

export interface BlockLayout {
  /** Consecutive elements of a row in one block; 1 for plain types. */
  readonly elements: number;
  readonly bytes: number;
}

const plain = (bytes: number): BlockLayout => ({ elements: 1, bytes });
const block32 = (bytes: number): BlockLayout => ({ elements: 32, bytes });
const block256 = (bytes: number): BlockLayout => ({ elements: 256, bytes });

/** Quantised blocks are ggml's (ggml-common.h): scales and packed values of 32 or 256 elements. */
const layouts: Readonly<Record<TensorType, BlockLayout>> = {
  F64: plain(8),
  F32: plain(4),
  F16: plain(2),
  BF16: plain(2),
  F8_E4M3: plain(1),
  F8_E5M2: plain(1),
  F8_E8M0: plain(1),
  I8: plain(1),
  U8: plain(1),
  I16: plain(2),
  U16: plain(2),
  I32: plain(4),
  U32: plain(4),
  I64: plain(8),
  U64: plain(8),
  BOOL: plain(1),
  Q4_0: block32(18),
  Q4_1: block32(20),
  Q5_0: block32(22),
  Q5_1: block32(24),
  Q8_0: block32(34),
  Q2_K: block256(84),
  Q3_K: block256(110),
  Q4_K: block256(144),
  Q5_K: block256(176),
  Q6_K: block256(210),
  IQ4_NL: block32(18),
  IQ4_XS: block256(136),
  MXFP4: block32(17),
};

export const tensorTypes = Object.keys(layouts) as readonly TensorType[];

export function blockLayout(type: TensorType): BlockLayout {
  return layouts[type];
}

/** @throws HearthError `invalid-input` if the count isn't a safe integer. */
export function elementCountOf(shape: readonly number[]): number {
  // A zero dimension doesn't excuse an overflow of the others.
  let count = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) throw invalidInput(`dimension ${dimension} is no size`);
    if (dimension > 0) count *= dimension;
  }
  if (!Number.isSafeInteger(count)) throw invalidInput(`shape [${shape.join(', ')}] has more than 2^53 elements`);
  return shape.includes(0) ? 0 : count;
}

/**
 * Bytes of a tensor; its last dimension must be a multiple of the block.
 * @throws HearthError `invalid-input` for a partial block or a size over 2^53.
 */
export function byteLengthOf(type: TensorType, shape: readonly number[]): number {
  const { elements, bytes } = layouts[type];
  const count = elementCountOf(shape);
  const row = shape.at(-1) ?? 1;
  if (row % elements !== 0) {
    throw invalidInput(`a row of ${row} elements is not a multiple of the ${elements} elements of a ${type} block`);
  }
  const byteLength = (count / elements) * bytes;
  if (!Number.isSafeInteger(byteLength)) {
    throw invalidInput(`shape [${shape.join(', ')}] of ${type} has more than 2^53 bytes`);
  }
  return byteLength;
}

// Values of small floating-point types by bit pattern. Assumes a little-endian host, as on all platforms that Hearth
// ships for.

/** IEEE 754 binary16. */
function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** E4M3 of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022): no infinities, only 0x7F and 0xFF are NaN. */
function float8E4m3Value(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >> 3) & 0xf;
  const fraction = bits & 7;
  if ((bits & 0x7f) === 0x7f) return Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -9;
  return sign * (8 + fraction) * 2 ** (exponent - 10);
}

/** OCP Microscaling 1.0: exponent only; 255 is NaN. */
const float8E8m0Value = (bits: number): number => (bits === 255 ? Number.NaN : 2 ** (bits - 127));

/** E5M2 is the upper byte of a binary16. */
const float8E5m2Value = (bits: number): number => float16Value(bits << 8);

/** 65,536 values, 256 KiB. */
export const float16Values = Float32Array.from({ length: 0x10000 }, (_, bits) => float16Value(bits));

/** The nearest f16, the even one of two, as its bits; beyond 65504 infinite. (`Float16Array` needs Node 24.) */
export function float16Bits(value: number): number {
  const magnitude = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65_520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  // 1024 to 2047 steps of this exponent, fewer below 2^-14; a carry into the exponent is right as it is.
  const steps = roundToEven(magnitude / 2 ** (exponent - 10));
  return sign | (1024 * (exponent + 14) + steps);
}

/** Halves go to the even neighbour, as WGSL's `round` has it. */
export function roundToEven(value: number): number {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : nearest;
}
export const float8E4m3Values = Float32Array.from({ length: 256 }, (_, bits) => float8E4m3Value(bits));
export const float8E5m2Values = Float32Array.from({ length: 256 }, (_, bits) => float8E5m2Value(bits));
export const float8E8m0Values = Float32Array.from({ length: 256 }, (_, bits) => float8E8m0Value(bits));
