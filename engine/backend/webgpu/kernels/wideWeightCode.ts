/**
 * WGSL that multiplies a row of a quantised matrix by one row of x, 32 weights at a time: loads packed weights 16 bytes at
 * once and block scales once, and applies scales after the sum. For decode, where each weight is used once. For a storage buffer
 * `NAME: array<vec4u>` the code defines
 *
 *     fn NAME_chunk(row: u32, c: u32) -> Chunk      32 stored weights
 *     fn NAME_quads(c: u32) -> vec2u                their columns: column / 4 of two runs of 16
 *     fn NAME_dot(chunk: Chunk, x: Span) -> f32     their dot product with x
 *
 * Must equal `dequantise` of engine/formats, except for rounding by the order of the sum.
 */
import type { TensorType } from '../../../formats/tensor.ts';
import type { MatrixLayout } from '../decoder/weightLayout.ts';
import { type BlockScaleShape, matrixConstants } from './weightCode.ts';

/** Whether packing and unpacking preserve f16 values below 2^-14. */
export interface WeightFeatures {
  readonly halfSubnormals: boolean;
}

/** Weights of a chunk. */
export const chunkColumns = 32;

/**
 * Once in a kernel. `sixteens(w)`: the low nibbles of four bytes, each plus 16, through the f16 16 + n, whose upper four
 * mantissa bits are n: two integer operations for two weights, and no integer conversions, which run at a quarter of the rate.
 */
export const spanCode = /* wgsl */ `
struct Span { a0: vec4f, a1: vec4f, a2: vec4f, a3: vec4f, b0: vec4f, b1: vec4f, b2: vec4f, b3: vec4f, a_sum: f32, b_sum: f32 }
struct Chunk { q: vec4u, r: vec4u, t: vec4u, u: vec4u, s: vec4f }
fn halves(even: u32, odd: u32) -> vec4f { let e = unpack2x16float(even); let o = unpack2x16float(odd); return vec4f(e.x, o.x, e.y, o.y); }
fn sixteens(w: u32) -> vec4f { return halves(((w << 6u) & 0x03c003c0u) | 0x4c004c00u, ((w >> 2u) & 0x03c003c0u) | 0x4c004c00u); }
fn high_sixteens(w: u32) -> vec4f { return halves(((w << 2u) & 0x03c003c0u) | 0x4c004c00u, ((w >> 6u) & 0x03c003c0u) | 0x4c004c00u); }
fn signed_quad(w: u32) -> vec4f { return vec4f(vec4i(vec4u(w) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u)); }
`;

const access = /* wgsl */ `
fn word_at(index: u32) -> u32 { return weight[index / 4u][index % 4u]; }
fn half_at(base: u32, index: u32) -> f32 { return unpack2x16float(word_at(base + index / 2u) >> (16u * (index & 1u))).x; }
fn byte_at(base: u32, index: u32) -> u32 { return (word_at(base + index / 4u) >> (8u * (index & 3u))) & 255u; }
`;

/** Consecutive runs: columns 32c to 32c + 31. */
const sequential = 'fn weight_quads(c: u32) -> vec2u { return vec2u(8u * c, 8u * c + 4u); }';
/** Eight chunks a block of 256: low nibbles of each 32 bytes are 32 columns, high nibbles the next 32. */
const nibbles256 =
  'fn weight_quads(c: u32) -> vec2u { let first = (c / 2u) * 16u + 4u * (c & 1u); return vec2u(first, first + 8u); }';

const words = ['x', 'y', 'z', 'w'] as const;
/** Σ over both runs of four quads; `a` and `b` return the WGSL of four weights for a word's component. */
const sumOf = (run: 'a' | 'b', value: (component: string, i: number) => string) =>
  words.map((component, i) => `dot(${value(component, i)}, x.${run}${i})`).join(' + ');

const nibbleDot = /* wgsl */ `
fn low_sum(k: Chunk, x: Span) -> f32 { return ${sumOf('a', (c) => `sixteens(k.q.${c})`)}; }
fn high_sum(k: Chunk, x: Span) -> f32 { return ${sumOf('b', (c) => `high_sixteens(k.q.${c})`)}; }`;

/** A block of 32 with one scale: nibbles minus `zero`. */
const scaledNibbles = (plane: readonly number[], zero: number) => /* wgsl */ `${sequential}${nibbleDot}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c;
  return Chunk(weight[block], vec4u(), vec4u(), vec4u(), vec4f(half_at(${plane[1]}u, block)));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (low_sum(k, x) + high_sum(k, x) - ${16 + zero}.0 * (x.a_sum + x.b_sum)); }`;

/** Scale and minimum of sub-blocks j and j + 1, j even: ggml's get_scale_min_k4 on the block's four words. (scales, mins) */
const scaleMinK4 = /* wgsl */ `
fn scales_mins(head: vec4u, j: u32) -> vec4f {
  let three = (head.yzw >> vec3u(8u * (j & 3u)));
  let other = (head.yzw >> vec3u(8u * ((j + 1u) & 3u)));
  let low = vec4u(three.x, other.x, three.y, other.y);
  let packed = select(low & vec4u(63u),
    vec4u(vec2u(three.z, other.z) & vec2u(15u), (vec2u(three.z, other.z) >> vec2u(4u)) & vec2u(15u)) | ((low >> vec4u(2u)) & vec4u(48u)), j >= 4u);
  let dm = unpack2x16float(head.x);
  return vec4f(packed) * dm.xxyy;
}`;

const iq4Codes = /* wgsl */ `
const iq4 = array<f32, 16>(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
fn codes(w: u32) -> vec4f { return vec4f(iq4[w & 15u], iq4[(w >> 8u) & 15u], iq4[(w >> 16u) & 15u], iq4[(w >> 24u) & 15u]); }
fn low_sum(k: Chunk, x: Span) -> f32 { return ${sumOf('a', (c) => `codes(k.q.${c})`)}; }
fn high_sum(k: Chunk, x: Span) -> f32 { return ${sumOf('b', (c) => `codes(k.q.${c} >> 4u)`)}; }`;

/** Two bytes a weight; `pair` returns two weights of a word. */
const pairs = (pair: string) => /* wgsl */ `${sequential}
${pair}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let at = row * (COLUMNS / 8u) + 4u * c;
  return Chunk(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u], vec4f());
}
fn eight(q: vec4u, first: vec4f, second: vec4f) -> f32 { return dot(vec4f(pair(q.x), pair(q.y)), first) + dot(vec4f(pair(q.z), pair(q.w)), second); }
fn weight_dot(k: Chunk, x: Span) -> f32 { return eight(k.q, x.a0, x.a1) + eight(k.r, x.a2, x.a3) + eight(k.t, x.b0, x.b1) + eight(k.u, x.b2, x.b3); }`;

interface Reader {
  readonly code: (plane: readonly number[], features: WeightFeatures) => string;
  /** Whether `dot` needs the sums of x over both runs. */
  readonly needsSums?: true;
}

const readers: Partial<Readonly<Record<TensorType, Reader>>> = {
  F16: { code: () => pairs('fn pair(w: u32) -> vec2f { return unpack2x16float(w); }') },
  BF16: { code: () => pairs('fn pair(w: u32) -> vec2f { return bitcast<vec2f>(vec2u(w << 16u, w & 0xffff0000u)); }') },
  // As f16 bits times 2^8, subnormals included: e4m3's exponent is f16's less 8, its mantissa the upper three bits.
  F8_E4M3: {
    code: (plane, { halfSubnormals }) => /* wgsl */ `${sequential}
${
  halfSubnormals
    ? `const UP = 256.0;
fn f8(w: u32) -> vec4f { return halves(((w << 8u) & 0x80008000u) | ((w << 7u) & 0x3f803f80u), (w & 0x80008000u) | ((w >> 1u) & 0x3f803f80u)); }`
    : `const UP = 1.0;
fn f8(w: u32) -> vec4f {
  let b = vec4u(w) >> vec4u(0u, 8u, 16u, 24u);
  let magnitude = b & vec4u(127u);
  let value = select(bitcast<vec4f>((magnitude << vec4u(20u)) + vec4u(120u << 23u)), vec4f(magnitude) * 0.001953125, magnitude < vec4u(8u));
  return select(value, -value, (b & vec4u(128u)) != vec4u(0u));
}`
}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let at = row * (COLUMNS / 16u) + 2u * c;
  let scale = bitcast<f32>(word_at(${plane[1]}u + scale_row(row) * SCALE_COLUMNS + (c * 32u) / SCALE_WIDTH));
  return Chunk(weight[at], weight[at + 1u], vec4u(), vec4u(), vec4f(scale * UP));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (${sumOf('a', (c) => `f8(k.q.${c})`)} + ${sumOf('b', (c) => `f8(k.r.${c})`)}); }`,
  },
  Q8_0: {
    code: (plane) => /* wgsl */ `${sequential}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c;
  return Chunk(weight[2u * block], weight[2u * block + 1u], vec4u(), vec4u(), vec4f(half_at(${plane[1]}u, block)));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (${sumOf('a', (c) => `signed_quad(k.q.${c})`)} + ${sumOf('b', (c) => `signed_quad(k.r.${c})`)}); }`,
  },
  Q4_0: { needsSums: true, code: (plane) => scaledNibbles(plane, 8) },
  Q4_1: {
    needsSums: true,
    code: (plane) => /* wgsl */ `${sequential}${nibbleDot}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c;
  let dm = unpack2x16float(word_at(${plane[1]}u + block));
  return Chunk(weight[block], vec4u(), vec4u(), vec4u(), vec4f(dm.x, dm.y - 16.0 * dm.x, 0.0, 0.0));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (low_sum(k, x) + high_sum(k, x)) + k.s.y * (x.a_sum + x.b_sum); }`,
  },
  Q4_K: {
    needsSums: true,
    code: (plane) => /* wgsl */ `${nibbles256}${nibbleDot}${scaleMinK4}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c / 8u;
  let s = scales_mins(weight[${(plane[1] ?? 0) / 4}u + block], c & 6u);
  return Chunk(weight[block * 8u + (c & 7u)], vec4u(), vec4u(), vec4u(), vec4f(s.xy, s.zw + 16.0 * s.xy));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * low_sum(k, x) + k.s.y * high_sum(k, x) - k.s.z * x.a_sum - k.s.w * x.b_sum; }`,
  },
  // The f16 32 + n: four bits of n at 5, the fifth at 9.
  Q5_K: {
    needsSums: true,
    code: (plane) => /* wgsl */ `${nibbles256}${scaleMinK4}
fn thirty_twos(w: u32, h: u32) -> vec4f {
  return halves(((w << 5u) & 0x01e001e0u) | ((h << 9u) & 0x02000200u) | 0x50005000u, ((w >> 3u) & 0x01e001e0u) | ((h << 1u) & 0x02000200u) | 0x50005000u);
}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c / 8u;
  let s = scales_mins(weight[${(plane[2] ?? 0) / 4}u + block], c & 6u);
  let fifth = weight[${(plane[1] ?? 0) / 4}u + block * 2u + (c & 1u)] >> vec4u(c & 6u);
  return Chunk(weight[block * 8u + (c & 7u)], fifth, vec4u(), vec4u(), vec4f(s.xy, s.zw + 32.0 * s.xy));
}
fn weight_dot(k: Chunk, x: Span) -> f32 {
  let low = ${sumOf('a', (c) => `thirty_twos(k.q.${c}, k.r.${c})`)};
  let high = ${sumOf('b', (c) => `thirty_twos(k.q.${c} >> 4u, k.r.${c} >> 1u)`)};
  return k.s.x * low + k.s.y * high - k.s.z * x.a_sum - k.s.w * x.b_sum;
}`,
  },
  // The f16 64 + n: four bits of n at 4, two at 8. A run is a sub-block of 16, the high nibbles 64 columns further on.
  Q6_K: {
    needsSums: true,
    code: (plane) => /* wgsl */ `
fn weight_quads(c: u32) -> vec2u { let first = (c / 4u) * 32u + 4u * (c & 3u); return vec2u(first, first + 16u); }
fn sixty_fours(w: u32, h: u32) -> vec4f {
  return halves(((w << 4u) & 0x00f000f0u) | ((h << 8u) & 0x03000300u) | 0x54005400u, ((w >> 4u) & 0x00f000f0u) | (h & 0x03000300u) | 0x54005400u);
}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c / 8u;
  let half = (c & 7u) / 4u;
  let high = weight[${(plane[1] ?? 0) / 4}u + block * 4u + 2u * half + (c & 1u)] >> vec4u(c & 2u);
  let packed = vec2u(word_at(${plane[2]}u + block * 4u + 2u * half), word_at(${plane[2]}u + block * 4u + 2u * half + 1u));
  let scales = vec2f(bitcast<vec2i>(packed << vec2u(24u - 8u * (c & 3u))) >> vec2u(24u)) * half_at(${plane[3]}u, block);
  return Chunk(weight[block * 8u + (c & 7u)], high, vec4u(), vec4u(), vec4f(scales, 0.0, 0.0));
}
fn weight_dot(k: Chunk, x: Span) -> f32 {
  let low = ${sumOf('a', (c) => `sixty_fours(k.q.${c}, k.r.${c})`)};
  let high = ${sumOf('b', (c) => `sixty_fours(k.q.${c} >> 4u, k.r.${c} >> 4u)`)};
  return k.s.x * (low - 96.0 * x.a_sum) + k.s.y * (high - 96.0 * x.b_sum);
}`,
  },
  IQ4_NL: {
    code: (plane) => /* wgsl */ `${sequential}${iq4Codes}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c;
  return Chunk(weight[block], vec4u(), vec4u(), vec4u(), vec4f(half_at(${plane[1]}u, block)));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (low_sum(k, x) + high_sum(k, x)); }`,
  },
  IQ4_XS: {
    code: (plane) => /* wgsl */ `${sequential}${iq4Codes}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c / 8u;
  let head = word_at(${plane[1]}u + block * 2u);
  let low = word_at(${plane[1]}u + block * 2u + 1u);
  let scale = ((low >> (4u * (c & 7u))) & 15u) | (((head >> (16u + 2u * (c & 7u))) & 3u) << 4u);
  return Chunk(weight[block * 8u + (c & 7u)], vec4u(), vec4u(), vec4u(), vec4f(unpack2x16float(head).x * (f32(scale) - 32.0)));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (low_sum(k, x) + high_sum(k, x)); }`,
  },
  // e2m1 as f16 bits times 2^14: its exponent the lower two bits of f16's, its mantissa the uppermost; 0.5 is a subnormal of f16.
  MXFP4: {
    code: (plane, { halfSubnormals }) => /* wgsl */ `${sequential}
${
  halfSubnormals
    ? `fn e2m1(w: u32) -> vec4f {
  return halves(((w << 9u) & 0x0e000e00u) | ((w << 12u) & 0x80008000u), ((w << 1u) & 0x0e000e00u) | ((w << 4u) & 0x80008000u));
}`
    : `fn e2m1(w: u32) -> vec4f {
  let n = (vec4u(w) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(15u);
  let value = exp2(-15.0) * vec4f((vec4u(0xC8643210u) >> ((n & vec4u(7u)) * 4u)) & vec4u(15u));
  return select(value, -value, n > vec4u(7u));
}`
}
fn weight_chunk(row: u32, c: u32) -> Chunk {
  let block = row * BLOCKS + c;
  // Beyond 2^113 times e2m1, which no weight reaches, the scale would overflow f32.
  let scale = bitcast<f32>((min(byte_at(${plane[1]}u, block), 240u) + 14u) << 23u);
  return Chunk(weight[block], vec4u(), vec4u(), vec4u(), vec4f(scale));
}
fn weight_dot(k: Chunk, x: Span) -> f32 { return k.s.x * (${sumOf('a', (c) => `e2m1(k.q.${c})`)} + ${sumOf('b', (c) => `e2m1(k.q.${c} >> 4u)`)}); }`,
  },
};

/** Whether rows are read in chunks; otherwise in units of eight (weightCode.ts). */
export function isWide({ type, columns }: MatrixLayout, blockScale?: BlockScaleShape): boolean {
  const scaled = type !== 'F8_E4M3' || (blockScale !== undefined && blockScale.blockColumns % chunkColumns === 0);
  return readers[type] !== undefined && columns % chunkColumns === 0 && scaled;
}

/** Whether `NAME_dot` needs the sums of x. */
export const needsSums = ({ type }: MatrixLayout): boolean => readers[type]?.needsSums === true;

const names =
  /\b(COLUMNS|BLOCKS|scale_row|SCALE_WIDTH|SCALE_COLUMNS|word_at|half_at|byte_at|iq4|codes|low_sum|high_sum|scales_mins|pair|eight|f8|UP|thirty_twos|sixty_fours|e2m1)\b/g;

/** WGSL for the storage buffer `name: array<vec4u>` that holds a matrix in `layout`. Needs `spanCode`. */
export function wideWeightCode(
  name: string,
  layout: MatrixLayout,
  blockScale: BlockScaleShape | undefined,
  features: WeightFeatures,
): string {
  const reader = readers[layout.type];
  if (!reader) throw new Error(`rows of ${layout.type} are not read in chunks`);
  return [matrixConstants(layout, blockScale), access, reader.code(layout.planeWords, features)]
    .join('\n')
    .replace(names, `${name}_$1`)
    .replace(/\bweight_(chunk|quads|dot)\b/g, `${name}_$1`)
    .replace(/\bweight\b/g, name);
}
