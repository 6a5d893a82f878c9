/** Values of the small floating-point types, by bit pattern. Hosts are little-endian, as every platform of Node.js that Hearth ships for. */

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

/** OCP Microscaling 1.0: a bare exponent, 255 is NaN. */
const float8E8m0Value = (bits: number): number => (bits === 255 ? Number.NaN : 2 ** (bits - 127));

/** E5M2 is the upper byte of a binary16. */
const float8E5m2Value = (bits: number): number => float16Value(bits << 8);

/** 65,536 values, 256 KiB. */
export const float16Values = Float32Array.from({ length: 0x10000 }, (_, bits) => float16Value(bits));
export const float8E4m3Values = Float32Array.from({ length: 256 }, (_, bits) => float8E4m3Value(bits));
export const float8E5m2Values = Float32Array.from({ length: 256 }, (_, bits) => float8E5m2Value(bits));
export const float8E8m0Values = Float32Array.from({ length: 256 }, (_, bits) => float8E8m0Value(bits));
