/**
 * WGSL that reads a quantised matrix. Every type is read in units of eight values: two runs of four consecutive columns,
 * like a word of a four-bit block in ggml's order (low nibbles, then high nibbles sixteen columns later).
 * For a storage buffer `NAME: array<u32>` the code defines
 *
 *     fn NAME_unit(row: u32, unit: u32) -> Unit     the eight values
 *     fn NAME_columns(unit: u32) -> vec2u           their columns: column / 4 of each run
 *
 * Must equal `dequantise` of engine/formats.
 */
import { unsupported } from '../../../errors.ts';
import type { TensorType } from '../../../formats/tensor.ts';
import type { MatrixLayout } from '../decoder/weightLayout.ts';

/** Once in a kernel, before any `weightCode`. */
export const unitCode = /* wgsl */ `
struct Unit { a: vec4f, b: vec4f }
fn word_byte(word: u32, index: u32) -> u32 { return (word >> (8u * index)) & 0xffu; }
fn low_nibbles(word: u32) -> vec4u { return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(15u); }
fn bytes_of(word: u32) -> vec4u { return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u); }
fn signed_bytes(word: u32) -> vec4f { return vec4f(vec4i(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u)); }
`;

/** One unit of four rows, times the same values of x. Needs `unitCode`. */
export const productsCode = /* wgsl */ `
fn products(w0: Unit, w1: Unit, w2: Unit, w3: Unit, a: vec4f, b: vec4f) -> vec4f {
  return vec4f(dot(w0.a, a) + dot(w0.b, b), dot(w1.a, a) + dot(w1.b, b), dot(w2.a, a) + dot(w2.b, b), dot(w3.a, a) + dot(w3.b, b));
}
`;

const access = /* wgsl */ `
fn half_at(base: u32, index: u32) -> f32 { return unpack2x16float(weight[base + index / 2u] >> (16u * (index & 1u))).x; }
fn byte_at(base: u32, index: u32) -> u32 { return word_byte(weight[base + index / 4u], index & 3u); }
`;

/** Units with consecutive runs: columns 8u to 8u + 7. */
const sequential = 'fn unit_columns(unit: u32) -> vec2u { return vec2u(2u * unit, 2u * unit + 1u); }';
/** Four units a block of 32: word w holds columns 4w to 4w + 3 and, in the high nibbles, sixteen further on. */
const nibbles32 = /* wgsl */ `
fn unit_columns(unit: u32) -> vec2u { let first = (unit / 4u) * 8u + (unit & 3u); return vec2u(first, first + 4u); }`;
/** Thirty-two units a block of 256: each run of 8 words holds 32 columns, then in the high nibbles the next 32. */
const nibbles256 = /* wgsl */ `
fn unit_columns(unit: u32) -> vec2u { let first = (unit / 8u) * 16u + (unit & 7u); return vec2u(first, first + 8u); }`;

/** Six-bit scales and mins of Q4_K and Q5_K: ggml's get_scale_min_k4, on the block's three scale words. */
const scaleMinK4 = /* wgsl */ `
fn scale_min(head: u32, j: u32) -> vec2f {
  let low = byte_at(head + 1u, j & 3u);
  let middle = byte_at(head + 2u, j & 3u);
  let high = byte_at(head + 3u, j & 3u);
  let packed = select(vec2u(low & 63u, middle & 63u), vec2u((high & 15u) | ((low >> 6u) << 4u), (high >> 4u) | ((middle >> 6u) << 4u)), j >= 4u);
  return vec2f(packed) * unpack2x16float(weight[head]);
}`;

const iq4Values = /* wgsl */ `
const iq4 = array<f32, 16>(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
fn codes(n: vec4u) -> vec4f { return vec4f(iq4[n.x], iq4[n.y], iq4[n.z], iq4[n.w]); }`;

type Reader = (plane: readonly number[]) => string;

const readers: Partial<Readonly<Record<TensorType, Reader>>> = {
  F32: () => /* wgsl */ `${sequential}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let at = row * COLUMNS + unit * 8u;
  return Unit(bitcast<vec4f>(vec4u(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u])),
              bitcast<vec4f>(vec4u(weight[at + 4u], weight[at + 5u], weight[at + 6u], weight[at + 7u])));
}`,
  F16: () => /* wgsl */ `${sequential}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let at = (row * COLUMNS + unit * 8u) / 2u;
  return Unit(vec4f(unpack2x16float(weight[at]), unpack2x16float(weight[at + 1u])),
              vec4f(unpack2x16float(weight[at + 2u]), unpack2x16float(weight[at + 3u])));
}`,
  BF16: () => /* wgsl */ `${sequential}
fn bf16(word: u32) -> vec2f { return bitcast<vec2f>(vec2u(word << 16u, word & 0xffff0000u)); }
fn weight_unit(row: u32, unit: u32) -> Unit {
  let at = (row * COLUMNS + unit * 8u) / 2u;
  return Unit(vec4f(bf16(weight[at]), bf16(weight[at + 1u])), vec4f(bf16(weight[at + 2u]), bf16(weight[at + 3u])));
}`,
  // e4m3fn: bias 7, subnormals of 2^-9, no infinities; 0x7f and 0xff are NaN, which no checkpoint contains.
  F8_E4M3: (plane) => /* wgsl */ `${sequential}
fn f8(word: u32) -> vec4f {
  let b = bytes_of(word);
  let magnitude = b & vec4u(127u);
  let normal = bitcast<vec4f>((magnitude << vec4u(20u)) + vec4u(120u << 23u));
  let small = vec4f(magnitude) * 0.001953125;
  let value = select(normal, small, magnitude < vec4u(8u));
  return select(value, -value, (b & vec4u(128u)) != vec4u(0u));
}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let at = (row * COLUMNS + unit * 8u) / 4u;
  let scale = bitcast<f32>(weight[${plane[1]}u + scale_row(row) * SCALE_COLUMNS + (unit * 8u) / SCALE_WIDTH]);
  return Unit(f8(weight[at]) * scale, f8(weight[at + 1u]) * scale);
}`,
  Q8_0: (plane) => /* wgsl */ `${sequential}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let at = row * COLUMNS / 4u + unit * 2u;
  let d = half_at(${plane[1]}u, block);
  return Unit(signed_bytes(weight[at]) * d, signed_bytes(weight[at + 1u]) * d);
}`,
  Q4_0: (plane) => /* wgsl */ `${nibbles32}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let d = half_at(${plane[1]}u, block);
  return Unit((vec4f(low_nibbles(word)) - 8.0) * d, (vec4f(low_nibbles(word >> 4u)) - 8.0) * d);
}`,
  Q4_1: (plane) => /* wgsl */ `${nibbles32}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let dm = unpack2x16float(weight[${plane[1]}u + block]);
  return Unit(vec4f(low_nibbles(word)) * dm.x + dm.y, vec4f(low_nibbles(word >> 4u)) * dm.x + dm.y);
}`,
  Q5_0: (plane) => /* wgsl */ `${nibbles32}
fn fifth(high: u32, first: u32) -> vec4u { return ((vec4u(high >> first) >> vec4u(0u, 1u, 2u, 3u)) & vec4u(1u)) << vec4u(4u); }
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let high = weight[${plane[1]}u + block];
  let d = half_at(${plane[2]}u, block);
  let first = (unit & 3u) * 4u;
  return Unit((vec4f(low_nibbles(word) | fifth(high, first)) - 16.0) * d,
              (vec4f(low_nibbles(word >> 4u) | fifth(high, first + 16u)) - 16.0) * d);
}`,
  Q5_1: (plane) => /* wgsl */ `${nibbles32}
fn fifth(high: u32, first: u32) -> vec4u { return ((vec4u(high >> first) >> vec4u(0u, 1u, 2u, 3u)) & vec4u(1u)) << vec4u(4u); }
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let high = weight[${plane[1]}u + block];
  let dm = unpack2x16float(weight[${plane[2]}u + block]);
  let first = (unit & 3u) * 4u;
  return Unit(vec4f(low_nibbles(word) | fifth(high, first)) * dm.x + dm.y,
              vec4f(low_nibbles(word >> 4u) | fifth(high, first + 16u)) * dm.x + dm.y);
}`,
  // Sixteen words of two-bit values a block of 256; word w of half h holds, in its four bit pairs, columns
  // 128h + 32p + 4(w mod 8). Two units a word: pairs 0 and 1, pairs 2 and 3.
  Q2_K: (plane) => /* wgsl */ `
fn unit_columns(unit: u32) -> vec2u {
  let first = (unit / 16u) * 32u + ((unit / 8u) & 1u) * 16u + (unit & 7u);
  return vec2u(first, first + 8u);
}
fn run(block: u32, quad: u32, word: u32, pair: u32) -> vec4f {
  let packed = byte_at(${plane[1]}u + block * 4u, (quad & 63u) / 4u);
  let dm = unpack2x16float(weight[${plane[2]}u + block]);
  let q = (vec4u(word >> (2u * pair)) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(3u);
  return vec4f(q) * (dm.x * f32(packed & 15u)) - dm.y * f32(packed >> 4u);
}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 16u + ((unit / 16u) & 1u) * 8u + (unit & 7u)];
  let columns = unit_columns(unit);
  let pair = 2u * ((unit / 8u) & 1u);
  return Unit(run(block, columns.x, word, pair), run(block, columns.y, word, pair + 1u));
}`,
  Q3_K: (plane) => /* wgsl */ `
fn unit_columns(unit: u32) -> vec2u {
  let first = (unit / 16u) * 32u + ((unit / 8u) & 1u) * 16u + (unit & 7u);
  return vec2u(first, first + 8u);
}
// Six-bit scale j of sixteen: four low bits in bytes 0 to 7, two high bits in bytes 8 to 11 (ggml's dequantize_row_q3_K).
fn scale3(block: u32, j: u32) -> f32 {
  let base = ${plane[2]}u + block * 3u;
  let low = (byte_at(base, j & 7u) >> (4u * (j / 8u))) & 15u;
  let high = (byte_at(base + 2u, j & 3u) >> (2u * (j / 4u))) & 3u;
  return f32(i32(low | (high << 4u)) - 32) * half_at(${plane[3]}u, block);
}
fn run(block: u32, unit: u32, quad: u32, word: u32, pair: u32) -> vec4f {
  let mask = weight[${plane[1]}u + block * 8u + (unit & 7u)];
  let bit = ((unit / 16u) & 1u) * 4u + pair;
  let q = (vec4u(word >> (2u * pair)) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(3u);
  let high = (vec4u(mask >> bit) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(1u);
  return (vec4f(q) - 4.0 * vec4f(vec4u(1u) - high)) * scale3(block, (quad & 63u) / 4u);
}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 16u + ((unit / 16u) & 1u) * 8u + (unit & 7u)];
  let columns = unit_columns(unit);
  let pair = 2u * ((unit / 8u) & 1u);
  return Unit(run(block, unit, columns.x, word, pair), run(block, unit, columns.y, word, pair + 1u));
}`,
  Q4_K: (plane) => /* wgsl */ `${nibbles256}${scaleMinK4}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 32u + (unit & 31u)];
  let head = ${plane[1]}u + block * 4u;
  let j = 2u * ((unit & 31u) / 8u);
  let low = scale_min(head, j);
  let high = scale_min(head, j + 1u);
  return Unit(vec4f(low_nibbles(word)) * low.x - low.y, vec4f(low_nibbles(word >> 4u)) * high.x - high.y);
}`,
  Q5_K: (plane) => /* wgsl */ `${nibbles256}${scaleMinK4}
fn fifth(word: u32, bit: u32) -> vec4u { return ((vec4u(word >> bit) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(1u)) << vec4u(4u); }
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 32u + (unit & 31u)];
  let bits = weight[${plane[1]}u + block * 8u + (unit & 7u)];
  let head = ${plane[2]}u + block * 4u;
  let j = 2u * ((unit & 31u) / 8u);
  let low = scale_min(head, j);
  let high = scale_min(head, j + 1u);
  return Unit(vec4f(low_nibbles(word) | fifth(bits, j)) * low.x - low.y,
              vec4f(low_nibbles(word >> 4u) | fifth(bits, j + 1u)) * high.x - high.y);
}`,
  // Word w of 32 in ql: half h = w / 16; low nibbles are columns 128h + 4(w mod 16), high nibbles 64 further on.
  Q6_K: (plane) => /* wgsl */ `
fn unit_columns(unit: u32) -> vec2u { let first = (unit / 16u) * 32u + (unit & 15u); return vec2u(first, first + 16u); }
fn high_bits(word: u32, shift: u32) -> vec4u { return ((vec4u(word >> shift) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(3u)) << vec4u(4u); }
fn scale6(block: u32, quad: u32) -> f32 {
  let byte = byte_at(${plane[2]}u + block * 4u, (quad & 63u) / 4u);
  return f32(i32(byte << 24u) >> 24u) * half_at(${plane[3]}u, block);
}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 32u + (unit & 31u)];
  let high = weight[${plane[1]}u + block * 16u + ((unit / 16u) & 1u) * 8u + (unit & 7u)];
  let shift = 2u * ((unit & 15u) / 8u);
  let columns = unit_columns(unit);
  return Unit((vec4f(low_nibbles(word) | high_bits(high, shift)) - 32.0) * scale6(block, columns.x),
              (vec4f(low_nibbles(word >> 4u) | high_bits(high, shift + 4u)) - 32.0) * scale6(block, columns.y));
}`,
  IQ4_NL: (plane) => /* wgsl */ `${nibbles32}${iq4Values}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let d = half_at(${plane[1]}u, block);
  return Unit(codes(low_nibbles(word)) * d, codes(low_nibbles(word >> 4u)) * d);
}`,
  // Eight sub-blocks of 32: six-bit scales, four low bits in scales_l, two high bits in scales_h.
  IQ4_XS: (plane) => /* wgsl */ `${nibbles32}${iq4Values}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 32u;
  let word = weight[block * 32u + (unit & 31u)];
  let head = weight[${plane[1]}u + block * 2u];
  let low = weight[${plane[1]}u + block * 2u + 1u];
  let sub = (unit & 31u) / 4u;
  let scale = ((low >> (4u * sub)) & 15u) | (((head >> (16u + 2u * sub)) & 3u) << 4u);
  let d = unpack2x16float(head).x * f32(i32(scale) - 32);
  return Unit(codes(low_nibbles(word)) * d, codes(low_nibbles(word >> 4u)) * d);
}`,
  // OCP MX: e2m1 doubled is one of the integers 0 1 2 3 4 6 8 12, the nibbles of 0xC8643210; the scale is 2^(e - 127).
  MXFP4: (plane) => /* wgsl */ `${nibbles32}
fn e2m1(n: vec4u) -> vec4f {
  let doubled = vec4f((vec4u(0xC8643210u) >> ((n & vec4u(7u)) * 4u)) & vec4u(15u));
  return select(doubled, -doubled, n > vec4u(7u));
}
fn weight_unit(row: u32, unit: u32) -> Unit {
  let block = row * BLOCKS + unit / 4u;
  let word = weight[block * 4u + (unit & 3u)];
  let exponent = byte_at(${plane[1]}u, block);
  let scale = select(bitcast<f32>((exponent - 1u) << 23u), bitcast<f32>(0x00200000u << min(exponent, 1u)), exponent < 2u);
  return Unit(e2m1(low_nibbles(word)) * scale, e2m1(low_nibbles(word >> 4u)) * scale);
}`,
};

export interface BlockScaleShape {
  readonly blockRows: number;
  readonly blockColumns: number;
  /** Rows of each matrix of a stack (experts, heads); blocks restart in each matrix. */
  readonly rowsPerMatrix?: number;
}

/** Rows of blocks of the first `rows` rows, which are whole matrices of a stack. */
export function scaleRowsOf({ blockRows, rowsPerMatrix }: BlockScaleShape, rows: number): number {
  return rowsPerMatrix === undefined
    ? Math.ceil(rows / blockRows)
    : (rows / rowsPerMatrix) * Math.ceil(rowsPerMatrix / blockRows);
}

/** WGSL constants of a matrix, and the position of an F8_E4M3 row's block scales. */
export function matrixConstants(layout: MatrixLayout, blockScale?: BlockScaleShape): string {
  const constants = [`const COLUMNS = ${layout.columns}u;`, `const BLOCKS = ${layout.blocksPerRow}u;`];
  if (layout.type === 'F8_E4M3') {
    const { blockRows, blockColumns, rowsPerMatrix } = blockScale ?? {
      blockRows: layout.rows,
      blockColumns: layout.columns,
    };
    const scaleRow =
      rowsPerMatrix === undefined || rowsPerMatrix % blockRows === 0
        ? `row / ${blockRows}u`
        : `(row / ${rowsPerMatrix}u) * ${Math.ceil(rowsPerMatrix / blockRows)}u + (row % ${rowsPerMatrix}u) / ${blockRows}u`;
    constants.push(
      `fn scale_row(row: u32) -> u32 { return ${scaleRow}; }`,
      `const SCALE_WIDTH = ${blockColumns}u;`,
      `const SCALE_COLUMNS = ${Math.ceil(layout.columns / blockColumns)}u;`,
    );
  }
  return constants.join('\n');
}

/** All names that a reader declares. WGSL has no generics, so each matrix of a kernel gets its own copy. */
const readerNames =
  /\b(COLUMNS|BLOCKS|scale_row|SCALE_WIDTH|SCALE_COLUMNS|half_at|byte_at|bf16|f8|fifth|run|scale3|scale6|scale_min|high_bits|codes|iq4|e2m1)\b/g;

/** WGSL for the storage buffer `name` that holds a matrix in `layout`. */
export function weightCode(name: string, layout: MatrixLayout, blockScale?: BlockScaleShape): string {
  const reader = readers[layout.type];
  if (!reader) throw unsupported(`The GPU backend doesn't support weights of type ${layout.type}.`);
  return [matrixConstants(layout, blockScale), access, reader(layout.planeWords)]
    .join('\n')
    .replace(readerNames, `${name}_$1`)
    .replace(/\bunit_columns\b/g, `${name}_columns`)
    .replace(/\bweight_unit\b/g, `${name}_unit`)
    .replace(/\bweight\b/g, name);
}
