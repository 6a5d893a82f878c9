/**
 * A tile of a product with subgroup matrices of f16 that are summed in f32 (WGSL's proposal "Subgroup Matrix"). A value is the sum of two
 * halves, its rounding to f16 and the rounding of what is left, 22 bits in all, so that the sums are as good as those in f32:
 * hi·hi + lo·hi, and hi·lo where the matrix's values have more than the 11 bits of one half. x comes in halves, scaled
 * (`splitHalves`); weights beyond f16's 65504 do not occur, and those below 2^-14 are exact to 2^-25.
 */
import type { TensorType } from '../../../formats/tensor.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import { read, type SharedAccess } from './bindings.ts';
import type { TileCode } from './tiles.ts';

// The size of a tile of a prompt's product, and the loading of its operands: the same for plain tiles and subgroup matrices.

export const tileTokens = 64;
export const tileRows = 64;
/** Columns of a step: four units of a matrix row, in the matrix's own order, so that they need not follow each other. */
export const tileColumns = 32;
export const tileThreads = 256;

/** Expressions speak of `t` and `r`, a row of x and a row of the matrix within the tile, and of what the kernel declares. */
export interface TileProduct {
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
export function loadStep(product: TileProduct, { xType, x, weight }: Destination): string {
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

export interface MatrixUnit {
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
export function matrixTileBytes(unit: MatrixUnit): number {
  const operands = 2 * 2 * stride * (tileTokens + tileRows);
  return operands + 4 * spread(unit).busy * unit.matrix.m * unit.matrix.n;
}

/** Whether a tile can be made of an adapter's matrices. */
export function tilesWithMatrices(unit: MatrixUnit, workgroupBytes: number): boolean {
  const { m, n, k } = unit.matrix;
  const divides = tileTokens % m === 0 && tileRows % n === 0 && tileColumns % k === 0;
  return divides && tileThreads % unit.subgroups.max === 0 && matrixTileBytes(unit) <= workgroupBytes;
}

export function matrixTile(type: TensorType, product: TileProduct, unit: MatrixUnit): TileCode {
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
