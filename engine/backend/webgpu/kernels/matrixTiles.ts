/**
 * A tile of a product with subgroup matrices of f16 that are summed in f32 (WGSL's proposal "Subgroup Matrix"). A value is the sum of two
 * halves, its rounding to f16 and the rounding of what is left, 22 bits in all, so that the sums are as good as those in f32:
 * hi·hi + lo·hi, and hi·lo where the matrix's values have more than the 11 bits of one half. x comes in halves, scaled
 * (`splitHalves`); weights beyond f16's 65504 do not occur, and those below 2^-14 are exact to 2^-25.
 */
import type { TensorType } from '../../../formats/tensor.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { type BufferDeclaration, declareBuffers, read, type SharedAccess, write } from './bindings.ts';

// The size of a tile of a prompt's product, and the loading of its operands: the same for plain tiles and subgroup matrices.

export const tileTokens = 64;
export const tileRows = 64;
/** Columns of a step: four units of a matrix row, in the matrix's own order, so that they need not follow each other. */
const tileColumns = 32;
export const tileThreads = 256;

/** Expressions speak of `t` and `r`, a row of x and a row of the matrix within the tile, and of what the kernel declares. */
interface TileProduct {
  /** Row of `weight`; must exist for every r. */
  readonly weightRow: string;
  /** Row of x, of `xWidth` values; asked for t below `count` only. */
  readonly xRow: string;
  readonly xWidth: number;
  /** From the start of x's row, in four values. */
  readonly xOffset: string;
  /** Rows of x in the tile; more than the tile has count as all. */
  readonly count: string;
  /** Statement that takes `value` at t, r, for t below `count`. */
  readonly store: string;
}

interface Destination {
  /** WGSL type of four values of x. */
  readonly xType: string;
  /** Statement that keeps `value`, of `quad` in row t. */
  readonly x: string;
  /** Statement that keeps `value`, a vec4f, of `quad` in row r. */
  readonly weight: string;
}

/** Statements by which the workgroup loads the step that starts with unit `first`; what is not there becomes zero. */
function loadStep(product: TileProduct, { xType, x, weight }: Destination): string {
  const quads = tileColumns / 4;
  const units = tileColumns / 8;
  return /* wgsl */ `
    for (var i = thread; i < ${tileTokens * quads}u; i += ${tileThreads}u) {
      let t = i / ${quads}u;
      let quad = i % ${quads}u;
      let unit = first + quad / 2u;
      var value = ${xType}();
      if (t < ${product.count} && unit < weight_COLUMNS / 8u) {
        value = x[${product.xRow} * ${product.xWidth / 4}u + ${product.xOffset} + weight_columns(unit)[quad % 2u]];
      }
      ${x}
    }
    for (var i = thread; i < ${tileRows * units}u; i += ${tileThreads}u) {
      let r = i / ${units}u;
      let unit = first + i % ${units}u;
      var both = Unit(vec4f(), vec4f());
      if (unit < weight_COLUMNS / 8u) { both = weight_unit(${product.weightRow}, unit); }
      { let quad = 2u * (i % ${units}u); let value = both.a; ${weight} }
      { let quad = 2u * (i % ${units}u) + 1u; let value = both.b; ${weight} }
    }`;
}

interface MatrixUnit {
  readonly subgroups: NonNullable<GpuCapabilities['subgroups']>;
  readonly matrix: NonNullable<GpuCapabilities['subgroupMatrix']>;
}

/** Types whose values are one half: their own bits, or few of them times a power of two. */
const halves: ReadonlySet<TensorType> = new Set<TensorType>(['F16', 'BF16', 'MXFP4']);

/** Between rows, in workgroup memory: eight more, so that rows do not start in the same bank. */
const stride = tileColumns + 8;

/** Rows of eight of a matrix, of 16 bytes each, as GPUs load them. */
export const matrixTileAccesses: readonly SharedAccess[] = [
  { name: 'matrix rows', address: (thread) => 2 * stride * (thread % 8) },
];

/** How the tile's result matrices are spread over subgroups, which may be smaller, and then more, than the largest. */
function spread({ subgroups, matrix: { m, n } }: MatrixUnit) {
  const across = tileRows / n;
  const results = (tileTokens / m) * across;
  const each = Math.max(1, (results * subgroups.max) / tileThreads);
  return { across, results, each, busy: results / each, subgroups: tileThreads / subgroups.min };
}

/** Workgroup memory that the tile takes. */
function matrixTileBytes(unit: MatrixUnit): number {
  const operands = 2 * 2 * stride * (tileTokens + tileRows);
  return operands + 4 * spread(unit).busy * unit.matrix.m * unit.matrix.n;
}

/** Whether a tile can be made of an adapter's matrices. */
export function tilesWithMatrices(unit: MatrixUnit, workgroupBytes: number): boolean {
  const { m, n, k } = unit.matrix;
  const divides = tileTokens % m === 0 && tileRows % n === 0 && tileColumns % k === 0;
  return divides && tileThreads % unit.subgroups.max === 0 && matrixTileBytes(unit) <= workgroupBytes;
}

function matrixTile(type: TensorType, product: TileProduct, unit: MatrixUnit): TileCode {
  const { m, n } = unit.matrix;
  const exact = halves.has(type);
  const { across, busy, each, subgroups } = spread(unit);
  const slots = Array.from({ length: each }, (_, slot) => slot);
  // Subgroups beyond those that have a result keep to the barriers.
  const guard = subgroups > busy ? `if (subgroup < ${busy}u) ` : '';
  return {
    enables:
      'enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; diagnostic(off, chromium.subgroup_matrix_uniformity);',
    x: [read('x', 'vec4u'), read('x_scale')],
    builtins: ', @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32',
    declarations: /* wgsl */ `
var<workgroup> w_high: array<f16, ${tileRows * stride}>;
${exact ? '' : `var<workgroup> w_low: array<f16, ${tileRows * stride}>;`}
var<workgroup> x_high: array<f16, ${tileTokens * stride}>;
var<workgroup> x_low: array<f16, ${tileTokens * stride}>;
var<workgroup> results: array<f32, ${busy * m * n}>;`,
    body: /* wgsl */ `
  let subgroup = thread / lanes;
  let first_result = subgroup * ${each}u;
  ${slots.map((slot) => `var sum${slot} = subgroup_matrix_result<f32, ${n}, ${m}>();`).join('\n  ')}
  for (var first = 0u; first < weight_COLUMNS / 8u; first += ${tileColumns / 8}u) {
    ${loadStep(product, { xType: 'vec4u', x: keepX, weight: exact ? keepWeight : keepBothOfWeight })}
    workgroupBarrier();
    ${guard}{
      ${multiply(unit, slots, exact)}
    }
    workgroupBarrier();
  }
  ${slots
    .map(
      (slot) => /* wgsl */ `
  ${guard}{ subgroupMatrixStore<row_major>(&results, subgroup * ${m * n}u, sum${slot}, ${n}u); }
  workgroupBarrier();
  ${guard}{
    for (var i = lane; i < ${m * n}u; i += lanes) {
      let result = first_result + ${slot}u;
      let t = (result / ${across}u) * ${m}u + i / ${n}u;
      let r = (result % ${across}u) * ${n}u + i % ${n}u;
      if (t < ${product.count}) { let value = results[subgroup * ${m * n}u + i] * x_scale[${product.xRow}]; ${product.store} }
    }
  }
  workgroupBarrier();`,
    )
    .join('')}`,
  };
}

const place = (row: string) => `let at = ${row} * ${stride}u + 4u * quad;`;
/** Into the four places of `name`, what `words` holds: through packed words, since a compiler may take back and forth between types for nothing. */
const keepFour = (name: string, words: string) =>
  `{ let words = ${words}; let a = bitcast<vec2<f16>>(words.x); let b = bitcast<vec2<f16>>(words.y); ${name}[at] = a.x; ${name}[at + 1u] = a.y; ${name}[at + 2u] = b.x; ${name}[at + 3u] = b.y; }`;
/** A word is (high, low). */
const keepX = `${place('t')} ${[0, 1, 2, 3].map((i) => `{ let both = bitcast<vec2<f16>>(value[${i}]); x_high[at + ${i}u] = both.x; x_low[at + ${i}u] = both.y; }`).join(' ')}`;
const keepWeight = `${place('r')} let high = vec2u(pack2x16float(value.xy), pack2x16float(value.zw)); ${keepFour('w_high', 'high')}`;
const keepBothOfWeight = `${keepWeight} let low = value - vec4f(unpack2x16float(high.x), unpack2x16float(high.y)); ${keepFour('w_low', 'vec2u(pack2x16float(low.xy), pack2x16float(low.zw))')}`;

/** The results of one subgroup follow each other along the matrix's rows, so that they share the matrix of x. */
function multiply(unit: MatrixUnit, slots: readonly number[], exact: boolean): string {
  const { m, n, k } = unit.matrix;
  const { across } = spread(unit);
  const left = (name: string, result: string) =>
    `subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, row_major>(&${name}, (${result} / ${across}u) * ${m * stride}u + column, ${stride}u)`;
  const right = (name: string, result: string) =>
    `subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, col_major>(&${name}, (${result} % ${across}u) * ${n * stride}u + column, ${stride}u)`;
  const statements = slots.map((slot) => {
    const result = `(first_result + ${slot}u)`;
    const row = Math.floor(slot / across);
    const x = `let high${row} = ${left('x_high', result)}; let low${row} = ${left('x_low', result)};`;
    const add = (a: string, b: string) =>
      `sum${slot} = subgroupMatrixMultiplyAccumulate(${a}${row}, ${b}, sum${slot});`;
    const rest = exact ? '' : add('high', right('w_low', result));
    return `${slot % across === 0 ? x : ''} { let w = ${right('w_high', result)}; ${add('low', 'w')} ${rest} ${add('high', 'w')} }`;
  });
  return `for (var column = 0u; column < ${tileColumns}u; column += ${k}u) {
        ${statements.join('\n        ')}
      }`;
}

// A tile of a matmul with many rows of x, shared by `matrixMatrix` and `expertTiles`. Uses subgroup matrices if the adapter
// has them (`matrixTile`), otherwise plain f32, which every adapter supports.

interface TileCode {
  /** Before everything else in the shader. */
  readonly enables: string;
  /** The binding of x, made by `Recorder.tileOperand`. */
  readonly x: readonly BufferDeclaration[];
  readonly declarations: string;
  /** Parameters of `main` after `group` and `thread`. */
  readonly builtins: string;
  /** Statements of `main`, in uniform control flow. */
  readonly body: string;
}

/** Needs `unitCode` and `weightCode` of `weight`, of that type. */
export function tileCode(type: TensorType, product: TileProduct, capabilities: GpuCapabilities): TileCode {
  const { subgroups, subgroupMatrix } = capabilities;
  return subgroups && subgroupMatrix
    ? matrixTile(type, product, { subgroups, matrix: subgroupMatrix })
    : plainTile(product);
}

/** Rows of a plain tile are padded by one vec4, so that they do not start in the same bank. */
const plainStride = tileColumns / 4 + 1;

/** Reads of the loop over a plain tile's columns. */
export const plainTileAccesses: readonly SharedAccess[] = [
  { name: 'weights', address: (thread) => 16 * plainStride * (thread % 16) },
  { name: 'x', address: (thread) => 16 * plainStride * Math.floor(thread / 16) },
];

/** Each thread computes four rows of x by four of the matrix, 16 apart. */
function plainTile(product: TileProduct): TileCode {
  const quads = tileColumns / 4;
  const four = [0, 1, 2, 3];
  return {
    enables: '',
    x: [read('x', 'vec4f')],
    builtins: '',
    declarations: /* wgsl */ `
var<workgroup> tile_w: array<vec4f, ${tileRows * plainStride}>;
var<workgroup> tile_x: array<vec4f, ${tileTokens * plainStride}>;`,
    body: /* wgsl */ `
  ${four.map((t) => `var sum${t} = vec4f();`).join(' ')}
  let tx = thread % 16u;
  let ty = thread / 16u;
  for (var first = 0u; first < weight_COLUMNS / 8u; first += ${quads / 2}u) {
    ${loadStep(product, { xType: 'vec4f', x: `tile_x[t * ${plainStride}u + quad] = value;`, weight: `tile_w[r * ${plainStride}u + quad] = value;` })}
    workgroupBarrier();
    for (var quad = 0u; quad < ${quads}u; quad++) {
      ${four.map((r) => `let w${r} = tile_w[(tx + ${16 * r}u) * ${plainStride}u + quad];`).join('\n      ')}
      ${four.map((t) => `{ let v = tile_x[(ty + ${16 * t}u) * ${plainStride}u + quad]; sum${t} += vec4f(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v)); }`).join('\n      ')}
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i++) {
    let r = tx + 16u * i;
    ${four.map((each) => `{ let t = ty + ${16 * each}u; let value = sum${each}[i]; if (t < ${product.count}) { ${product.store} } }`).join('\n    ')}
  }`,
  };
}

const threads = 64;

/**
 * x as the sum of two f16, for tiles of subgroup matrices: a row is multiplied by a power of two that brings its largest
 * value to [2^14, 2^15), so that nothing is beyond f16 and 22 bits are kept; high is its rounding, low that of the rest.
 *
 * Bindings: x `[rows, width]` vec4f; halves `[rows, width]` vec4u, words of (high, low) (write), scale `[rows]`, by which a
 * product is multiplied in the end (write). Workgroup: 64 threads a row; groups: rows in x. Needs nothing (its f16 are packed).
 * Must equal x: (high + low) · scale, to 2^-22 of each value and 2^-40 of the row's largest.
 */
export function splitHalvesKernel(width: number): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('x', 'vec4f'), write('halves', 'vec4u'), write('scale')]);
  const code = /* wgsl */ `
${buffers.code}
// Bits of a float that is not negative are in the order of the floats.
var<workgroup> largest: atomic<u32>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (thread == 0u) { atomicStore(&largest, 0u); }
  workgroupBarrier();
  let first = group.x * ${quads}u;
  var most = vec4u();
  for (var i = thread; i < ${quads}u; i += ${threads}u) { most = max(most, bitcast<vec4u>(abs(x[first + i]))); }
  atomicMax(&largest, max(max(most.x, most.y), max(most.z, most.w)));
  workgroupBarrier();
  // Biased exponent of the largest value; below 2^-95 a row counts as that large.
  let exponent = clamp(atomicLoad(&largest) >> 23u, 32u, 254u);
  let up = bitcast<f32>((268u - exponent) << 23u);
  for (var i = thread; i < ${quads}u; i += ${threads}u) {
    let value = x[first + i] * up;
    let high = vec4u(pack2x16float(vec2f(value.x, 0.0)), pack2x16float(vec2f(value.y, 0.0)), pack2x16float(vec2f(value.z, 0.0)), pack2x16float(vec2f(value.w, 0.0)));
    let rest = value - vec4f(unpack2x16float(high.x).x, unpack2x16float(high.y).x, unpack2x16float(high.z).x, unpack2x16float(high.w).x);
    let low = vec4u(pack2x16float(vec2f(0.0, rest.x)), pack2x16float(vec2f(0.0, rest.y)), pack2x16float(vec2f(0.0, rest.z)), pack2x16float(vec2f(0.0, rest.w)));
    halves[first + i] = high | low;
  }
  if (thread == 0u) { scale[group.x] = bitcast<f32>((exponent - 14u) << 23u); }
}
`;
  return { label: `splitHalves ${width}`, code, bindings: buffers.bindings };
}
