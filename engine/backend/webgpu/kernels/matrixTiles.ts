/**
 * A tile of a matmul with f16 subgroup matrices and f32 sums (WGSL's proposal "Subgroup Matrix"). A value is split into
 * two halves, its rounding to f16 and the rounding of the remainder, 22 bits in all, so that the sums are as exact as
 * in f32: hi·hi + lo·hi, and hi·lo where the matrix's values have more than the 11 bits of one half. x comes in halves,
 * scaled (`splitHalves`); weights beyond f16's 65504 do not occur, and those below 2^-14 are exact to 2^-25.
 */
import type { TensorType } from '../../../formats/tensor.ts';
import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { type BufferDeclaration, declareBuffers, read, type SharedAccess, write } from './bindings.ts';

// The size of a prompt's tile and the loading of its operands, which are the same for plain tiles and subgroup
// matrices.

export const tileTokens = 64;
export const tileRows = 64;
/** Columns of a step: four units of a matrix row, in the matrix's own order, so that they need not follow each other. */
export const tileColumns = 32;
export const tileThreads = 256;

/**
 * WGSL expressions may use `t` and `r`, a row of x and a row of the matrix within the tile, and the kernel's
 * declarations.
 */
interface TileProduct {
  /** Row of `weight`; must exist for every r. */
  readonly weightRow: string;
  /** Rows of x in a tile: `tileTokens`, or twice as many with subgroup matrices. */
  readonly tokens: number;
  /** Row of x, of `xWidth` values; evaluated only for t below `count`. */
  readonly xRow: string;
  /** Columns of the matrix. */
  readonly columns: number;
  readonly xWidth: number;
  /** Offset from the start of x's row, in units of four values. */
  readonly xOffset: string;
  /** Number of rows of x that exist; more than the tile's rows count as all. */
  readonly count: string;
  /** Statement that stores `value` at t, r, for t below `count`. */
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

interface StepLoad {
  /** Variables of a thread's share of a step, and the rows that they come from. */
  readonly declare: string;
  /** Statement that fills the variables from the step that starts with unit `first`. */
  readonly fetch: string;
  /** Statement that moves the variables into workgroup memory. */
  readonly store: string;
}

/**
 * A thread's share of a step, fetched into registers while other threads still multiply the step before. Missing
 * columns become zero; missing rows of x repeat the last one, and their results are not stored.
 */
function stepLoad(product: TileProduct, { xType, x, weight }: Destination): StepLoad {
  const [quads, units] = [tileColumns / 4, tileColumns / 8];
  const xs = Array.from({ length: (product.tokens * quads) / tileThreads }, (_, i) => i);
  const ws = Array.from({ length: (tileRows * units) / tileThreads }, (_, i) => i);
  const whole = product.columns % tileColumns === 0;
  const within = (unit: string, statement: string, zero: string) =>
    whole ? statement : `if (${unit} < ${product.columns / 8}u) { ${statement} } else { ${zero} }`;
  const fetch = /* wgsl */ `{
      let x_unit = first + (thread % ${quads}u) / 2u;
      let column = weight_columns(x_unit)[thread % 2u];
      ${within('x_unit', xs.map((i) => `x${i} = x[x_at${i} + column];`).join(' '), xs.map((i) => `x${i} = ${xType}();`).join(' '))}
      let w_unit = first + thread % ${units}u;
      ${within('w_unit', ws.map((i) => `w${i} = weight_unit(w_row${i}, w_unit);`).join(' '), ws.map((i) => `w${i} = Unit(vec4f(), vec4f());`).join(' '))}
    }`;
  return {
    declare: [
      ...xs.map(
        (i) => `var x${i}: ${xType}; var x_at${i}: u32;
  { let t = min(thread / ${quads}u + ${(i * tileThreads) / quads}u, ${product.count} - 1u); x_at${i} = ${product.xRow} * ${product.xWidth / 4}u + ${product.xOffset}; }`,
      ),
      ...ws.map(
        (i) => `var w${i}: Unit; var w_row${i}: u32;
  { let r = thread / ${units}u + ${(i * tileThreads) / units}u; w_row${i} = ${product.weightRow}; }`,
      ),
    ].join('\n  '),
    fetch,
    store: [
      ...xs.map(
        (i) =>
          `{ let t = thread / ${quads}u + ${(i * tileThreads) / quads}u; let quad = thread % ${quads}u; let value = x${i}; ${x} }`,
      ),
      ...ws.flatMap((i) =>
        ['a', 'b'].map(
          (half, j) =>
            `{ let r = thread / ${units}u + ${(i * tileThreads) / units}u; let quad = 2u * (thread % ${units}u) + ${j}u; let value = w${i}.${half}; ${weight} }`,
        ),
      ),
    ].join('\n    '),
  };
}

/** The loop over the columns, with the statements of one step. */
function stepLoop(product: TileProduct, load: StepLoad, step: string): string {
  const steps = Math.ceil(product.columns / tileColumns);
  return /* wgsl */ `
  ${load.declare}
  for (var first = 0u; first < ${(steps * tileColumns) / 8}u; first += ${tileColumns / 8}u) {
    ${load.fetch}
    workgroupBarrier();
    ${load.store}
    workgroupBarrier();
    ${step}
  }
  workgroupBarrier();`;
}

interface MatrixUnit {
  readonly subgroups: NonNullable<GpuCapabilities['subgroups']>;
  readonly matrix: NonNullable<GpuCapabilities['subgroupMatrix']>;
}

/** Types whose values fit in one half: they are f16, or have few bits times a power of two. */
const halves: ReadonlySet<TensorType> = new Set<TensorType>(['F16', 'BF16', 'MXFP4']);

/** Stride of rows in workgroup memory: eight more than the columns, so that rows do not start in the same bank. */
const stride = tileColumns + 8;

/** A GPU loads a matrix in rows of eight values, 16 bytes each. */
export const matrixTileAccesses: readonly SharedAccess[] = [
  { name: 'matrix rows', address: (thread) => 2 * stride * (thread % 8) },
];

/**
 * Distribution of a tile's results over subgroups. Subgroups may be smaller than the largest size; then there are more
 * of them.
 */
function spread({ subgroups, matrix: { m, n } }: MatrixUnit, tokens: number) {
  const across = tileRows / n;
  const results = (tokens / m) * across;
  const each = Math.max(1, (results * subgroups.max) / tileThreads);
  return { across, each, busy: results / each };
}

/** Bytes of workgroup memory that a tile of `tokens` takes, an expert's list of visits included; results leave it in `rounds`. */
function matrixTileBytes(unit: MatrixUnit, tokens: number, exact: boolean, rounds: number): number {
  const operands = 2 * stride * (2 * tokens + (exact ? 1 : 2) * tileRows);
  return operands + (4 * spread(unit, tokens).busy * unit.matrix.m * unit.matrix.n) / rounds + 4 * tokens;
}

const mostRounds = 8;

/** Fewest rounds in which the results fit beside the operands. */
function roundsOf(unit: MatrixUnit, tokens: number, exact: boolean, workgroupBytes: number): number | undefined {
  for (let rounds = 1; rounds <= mostRounds; rounds *= 2) {
    if (matrixTileBytes(unit, tokens, exact, rounds) <= workgroupBytes) return rounds;
  }
  return undefined;
}

/**
 * Rows of x in a tile: twice `tileTokens` where subgroup matrices and workgroup memory allow it, so that the matrix is
 * dequantised half as often; f32 is not dequantised. Rows that do not exist are not multiplied.
 */
export function mostTileTokens(type: TensorType, capabilities: GpuCapabilities): number {
  const { subgroups, subgroupMatrix: matrix, maxWorkgroupBytes, tuning } = capabilities;
  const most = 2 * tileTokens;
  if (type === 'F32' || tuning.tileTokens < most) return tileTokens;
  const rounds = subgroups && matrix && roundsOf({ subgroups, matrix }, most, halves.has(type), maxWorkgroupBytes);
  return rounds !== undefined && rounds <= 2 ? most : tileTokens;
}

/** The same for the tiles of one matrix. */
export function tileTokensOf({ type, rows }: MatrixLayout, capabilities: GpuCapabilities): number {
  return rows < capabilities.tuning.tallRows ? tileTokens : mostTileTokens(type, capabilities);
}

/** Whether tiles can use the adapter's matrices. */
export function tilesWithMatrices(unit: MatrixUnit, workgroupBytes: number): boolean {
  const { m, n, k } = unit.matrix;
  const divides = tileTokens % m === 0 && tileRows % n === 0 && tileColumns % k === 0;
  return (
    divides && tileThreads % unit.subgroups.max === 0 && matrixTileBytes(unit, tileTokens, false, 1) <= workgroupBytes
  );
}

export const matrixEnables =
  'enable f16; enable subgroups; enable chromium_experimental_subgroup_matrix; diagnostic(off, chromium.subgroup_matrix_uniformity);';

function matrixTile(type: TensorType, product: TileProduct, unit: MatrixUnit, workgroupBytes: number): TileCode {
  const { m, n } = unit.matrix;
  const exact = halves.has(type);
  const rounds = roundsOf(unit, product.tokens, exact, workgroupBytes);
  if (rounds === undefined) throw new Error(`a tile of ${product.tokens} rows does not fit ${workgroupBytes} bytes`);
  const { across, busy, each } = spread(unit, product.tokens);
  const slots = Array.from({ length: each }, (_, slot) => slot);
  // Subgroups without a result, or without an existing row of x, only take part in barriers.
  const present = `first_result / ${across}u * ${m}u < min(${product.count}, ${product.tokens}u)`;
  const load = stepLoad(product, { xType: 'vec4u', x: keepX, weight: exact ? keepWeight : keepBothOfWeight });
  return {
    enables: matrixEnables,
    x: [read('x', 'vec4u'), read('x_scale')],
    multipliesPerStep: (slots.length * (exact ? 2 : 3) * tileColumns) / unit.matrix.k,
    builtins: ', @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32',
    declarations: /* wgsl */ `
var<workgroup> w_high: array<f16, ${tileRows * stride}>;
${exact ? '' : `var<workgroup> w_low: array<f16, ${tileRows * stride}>;`}
var<workgroup> x_high: array<f16, ${product.tokens * stride}>;
var<workgroup> x_low: array<f16, ${product.tokens * stride}>;
var<workgroup> results: array<f32, ${(busy / rounds) * m * n}>;`,
    body: /* wgsl */ `
  let subgroup = thread / lanes;
  let first_result = subgroup * ${each}u;
  ${slots.map((slot) => `var sum${slot} = subgroup_matrix_result<f32, ${n}, ${m}>();`).join('\n  ')}
  ${stepLoop(product, load, `if (${present}) { ${multiply(unit, slots, exact)} }`)}
  let own = (subgroup / ${rounds}u) * ${m * n}u;
  for (var round = 0u; round < ${rounds}u; round++) {
    let writes = subgroup % ${rounds}u == round && ${present};
  ${slots
    .map(
      (slot) => /* wgsl */ `
    if (writes) { subgroupMatrixStore<row_major>(&results, own, sum${slot}, ${n}u); }
    workgroupBarrier();
    if (writes) {
      for (var i = lane; i < ${m * n}u; i += lanes) {
        let result = first_result + ${slot}u;
        let t = (result / ${across}u) * ${m}u + i / ${n}u;
        let r = (result % ${across}u) * ${n}u + i % ${n}u;
        if (t < ${product.count}) { let value = results[own + i] * x_scale[${product.xRow}]; ${product.store} }
      }
    }
    workgroupBarrier();`,
    )
    .join('')}
  }`,
  };
}

const place = (row: string) => `let at = ${row} * ${stride}u + 4u * quad;`;
/**
 * Stores `words` in four elements of `name`, as packed words, because compilers may not optimise conversions between
 * types away.
 */
export const keepFour = (name: string, words: string) =>
  `{ let words = ${words}; let a = bitcast<vec2<f16>>(words.x); let b = bitcast<vec2<f16>>(words.y); ${name}[at] = a.x; ${name}[at + 1u] = a.y; ${name}[at + 2u] = b.x; ${name}[at + 3u] = b.y; }`;
/** A word is (high, low). */
const keepX = `${place('t')} ${[0, 1, 2, 3].map((i) => `{ let both = bitcast<vec2<f16>>(value[${i}]); x_high[at + ${i}u] = both.x; x_low[at + ${i}u] = both.y; }`).join(' ')}`;
const keepWeight = `${place('r')} let high = vec2u(pack2x16float(value.xy), pack2x16float(value.zw)); ${keepFour('w_high', 'high')}`;
const keepBothOfWeight = `${keepWeight} let low = value - vec4f(unpack2x16float(high.x), unpack2x16float(high.y)); ${keepFour('w_low', 'vec2u(pack2x16float(low.xy), pack2x16float(low.zw))')}`;

/** The results of one subgroup are adjacent along the matrix's rows, so that they share the matrix of x. */
function multiply(unit: MatrixUnit, slots: readonly number[], exact: boolean): string {
  const { m, n, k } = unit.matrix;
  const { across } = spread(unit, tileTokens);
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
  /** Directives at the start of the shader. */
  readonly enables: string;
  /** The binding of x, made by `Recorder.tileOperand`. */
  readonly x: readonly BufferDeclaration[];
  readonly declarations: string;
  /** Parameters of `main` after `group` and `thread`. */
  readonly builtins: string;
  /** Statements of `main`, in uniform control flow. */
  readonly body: string;
  /** Multiplications a step of a thread, or with matrices, of a subgroup. */
  readonly multipliesPerStep: number;
}

/** Needs `unitCode` and `weightCode` of `weight`, of that type. */
export function tileCode(type: TensorType, product: TileProduct, capabilities: GpuCapabilities): TileCode {
  const { subgroups, subgroupMatrix: matrix, maxWorkgroupBytes } = capabilities;
  return subgroups && matrix ? matrixTile(type, product, { subgroups, matrix }, maxWorkgroupBytes) : plainTile(product);
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
  if (product.tokens !== tileTokens) throw new Error(`a plain tile has ${tileTokens} rows`);
  const quads = tileColumns / 4;
  const four = [0, 1, 2, 3];
  const load = stepLoad(product, {
    xType: 'vec4f',
    x: `tile_x[t * ${plainStride}u + quad] = value;`,
    weight: `tile_w[r * ${plainStride}u + quad] = value;`,
  });
  return {
    enables: '',
    x: [read('x', 'vec4f')],
    multipliesPerStep: four.length * four.length * tileColumns,
    builtins: '',
    declarations: /* wgsl */ `
var<workgroup> tile_w: array<vec4f, ${tileRows * plainStride}>;
var<workgroup> tile_x: array<vec4f, ${tileTokens * plainStride}>;`,
    body: /* wgsl */ `
  ${four.map((t) => `var sum${t} = vec4f();`).join(' ')}
  let tx = thread % 16u;
  let ty = thread / 16u;
  ${stepLoop(
    product,
    load,
    `for (var quad = 0u; quad < ${quads}u; quad++) {
      ${four.map((r) => `let row${r} = tile_w[(tx + ${16 * r}u) * ${plainStride}u + quad];`).join('\n      ')}
      ${four.map((t) => `{ let v = tile_x[(ty + ${16 * t}u) * ${plainStride}u + quad]; sum${t} += vec4f(dot(row0, v), dot(row1, v), dot(row2, v), dot(row3, v)); }`).join('\n      ')}
    }`,
  )}
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
