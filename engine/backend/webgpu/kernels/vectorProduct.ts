/**
 * The loop over columns that all kernels of few rows share: the threads of a workgroup multiply four rows of one or
 * more matrices by rows of x. A single row of x is multiplied in chunks of 32 weights, which a thread loads 16 bytes at
 * a time (wideWeightCode.ts), of all four rows or of as many as were tuned; in short matrix rows, of one row. More rows
 * of x, and types without chunks, use units of eight weights (weightCode.ts), which all rows of x share.
 */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities, Tuning } from '../device/adapter.ts';
import { type BufferDeclaration, read } from './bindings.ts';
import { type BlockScaleShape, productsCode, unitCode, weightCode } from './weightCode.ts';
import { chunkColumns, isWide, needsSums, spanCode, wideWeightCode } from './wideWeightCode.ts';

export const rowsPerGroup = 4;
/** Rows of x whose sums a thread keeps at once. More rows take further passes, which find the weights in the cache. */
export const rowsPerPass = 8;

/** A matrix in one piece. */
export interface VectorMatrix {
  readonly name: string;
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
}

/** How the rows of x are divided into passes. Rows beyond the last repeat it and are not stored. */
export interface Passes {
  readonly count: number;
  /** Rows of one pass. */
  readonly rows: readonly number[];
  /** Before and after the statements of a pass, where `first_token` is its first row of x. */
  readonly begin: string;
  readonly end: string;
  /** WGSL of row m of the pass. */
  readonly token: (m: number) => string;
}

export function passesOf(tokens: number, most: number): Passes {
  const each = Math.min(tokens, most);
  const count = Math.ceil(tokens / each);
  const rows = Array.from({ length: each }, (_, m) => m);
  if (count === 1) return { count, rows, begin: '{ let first_token = 0u;', end: '}', token: (m) => `${m}u` };
  return {
    count,
    rows,
    begin: `for (var first_token = 0u; first_token < ${tokens}u; first_token += ${each}u) {`,
    end: '}',
    token: (m) => (tokens % each === 0 ? `(first_token + ${m}u)` : `min(first_token + ${m}u, ${tokens - 1}u)`),
  };
}

/** Bytes of weights that a kernel reads for `count` rows. */
export const weightBytes = ({ layout }: Pick<VectorMatrix, 'layout'>, count = layout.rows): number =>
  (4 * layout.totalWords * count) / layout.rows;

const inChunks = ({ layout, blockScale }: VectorMatrix, tokens: number): boolean =>
  tokens === 1 && isWide(layout, blockScale);

/** Rows of which a thread multiplies a chunk at once. */
const threadRowsOf = ({ layout }: VectorMatrix, { sharedColumns, threadRows }: Tuning): number =>
  layout.columns < sharedColumns ? 1 : threadRows;

/** The buffer of a matrix for `tokens` rows of x. */
export const matrixBuffer = (matrix: VectorMatrix, tokens: number): BufferDeclaration =>
  read(matrix.name, inChunks(matrix, tokens) ? 'vec4u' : 'u32');

/** Declarations for the loops over these matrices, including `THREADS`, the threads of the workgroup. */
export function matrixCode(matrices: readonly VectorMatrix[], tokens: number, capabilities: GpuCapabilities): string {
  const wide = matrices.some((matrix) => inChunks(matrix, tokens));
  const units = matrices.some((matrix) => !inChunks(matrix, tokens));
  const readers = matrices.map((matrix) => {
    const { name, layout, blockScale } = matrix;
    return inChunks(matrix, tokens)
      ? wideWeightCode(name, layout, blockScale, capabilities)
      : weightCode(name, layout, blockScale);
  });
  const threads = `const THREADS = ${capabilities.tuning.vectorThreads}u;`;
  return [threads, wide ? spanCode : '', units ? unitCode + productsCode : '', ...readers].join('\n');
}

export interface LoopShape {
  /** All have one type and width, so that they share each read of x. */
  readonly matrices: readonly VectorMatrix[];
  /** WGSL of row r of four of a matrix. */
  readonly row: (matrix: VectorMatrix, r: number) => string;
  /** WGSL of the start of row m of x, in units of four values. */
  readonly xStart: (m: number) => string;
  /** Name of the buffer of x. */
  readonly x: string;
  /** Rows of x of one pass. */
  readonly tokens: number;
  readonly tuning: Tuning;
  /** x is multiplied by `gain`, column by column. */
  readonly gain: boolean;
  /** WGSL variable, a vec4f, for the dot products of a matrix with row m of x. */
  readonly sum: (matrix: VectorMatrix, m: number) => string;
  /** WGSL variable for the sum of squares of row m of x. */
  readonly square?: (m: number) => string;
}

const four = [0, 1, 2, 3];

/** Weights that a thread multiplies in one iteration of `productLoop`. */
export const weightsPerStep = (matrices: readonly VectorMatrix[], tokens: number, tuning: Tuning): number =>
  matrices.reduce(
    (sum, matrix) => sum + (inChunks(matrix, tokens) ? chunkColumns * threadRowsOf(matrix, tuning) : 8 * rowsPerGroup),
    0,
  );

/** Weights that a thread multiplies in one iteration of `manyLoop`. */
export const weightsPerManyStep = (matrix: VectorMatrix): number =>
  rowsPerGroup * (inChunks(matrix, 1) ? chunkColumns : 8);

export function productLoop(shape: LoopShape): string {
  const [first] = shape.matrices;
  if (!first) return '';
  if (!inChunks(first, shape.tokens)) return unitLoop(shape, first);
  const threadRows = threadRowsOf(first, shape.tuning);
  return threadRows === rowsPerGroup ? chunkLoop(shape, first) : dividedLoop(shape, first, threadRows);
}

/** One matrix after the other, as in `chunkLoop`, but each reads x again. */
function unitLoop({ matrices, row, xStart, x, tokens, gain, sum, square }: LoopShape, first: VectorMatrix): string {
  const ofToken = (matrix: VectorMatrix, m: number) => {
    const squared = square && matrix === first ? `${square(m)} += dot(a, a) + dot(b, b);` : '';
    const units = four.map((r) => `unit${r}`).join(', ');
    const product = `${sum(matrix, m)} += products(${units}, ${gain ? 'a * gain_a, b * gain_b' : 'a, b'});`;
    return `{ let at = ${xStart(m)}; let a = ${x}[at + columns.x]; let b = ${x}[at + columns.y]; ${squared} ${product} }`;
  };
  const ofMatrix = (matrix: VectorMatrix) => {
    const units = four.map((r) => `let unit${r} = ${matrix.name}_unit(${row(matrix, r)}, unit);`);
    return `{ ${units.join(' ')}
    ${Array.from({ length: tokens }, (_, m) => ofToken(matrix, m)).join('\n    ')} }`;
  };
  return /* wgsl */ `
  for (var unit = thread; unit < ${first.layout.columns / 8}u; unit += THREADS) {
    let columns = ${first.name}_columns(unit);
    ${gain ? 'let gain_a = gain[columns.x]; let gain_b = gain[columns.y];' : ''}
    ${matrices.map(ofMatrix).join('\n    ')}
  }`;
}

/** Loads the stored weights of a matrix's four rows before using any. Another matrix is loaded afterwards, to save registers. */
function chunkLoop({ matrices, row, xStart, x, gain, sum, square }: LoopShape, first: VectorMatrix): string {
  const products = matrices.map((matrix) => {
    const chunks = four.map((r) => `let chunk${r} = ${matrix.name}_chunk(${row(matrix, r)}, c);`);
    const dots = four.map((r) => `${matrix.name}_dot(chunk${r}, span)`);
    return `{ ${chunks.join(' ')} ${sum(matrix, 0)} += vec4f(${dots.join(', ')}); }`;
  });
  const sums = matrices.some(({ layout }) => needsSums(layout));
  return /* wgsl */ `
  for (var c = thread; c < ${first.layout.columns / chunkColumns}u; c += THREADS) {
    let quads = ${first.name}_quads(c);
    ${spanOf({ x, start: xStart(0), gain, sums, ...(square && { square: square(0) }) })}
    ${products.join('\n    ')}
  }`;
}

/** A thread takes a chunk of `threadRows` rows (1 or 2) in each iteration, so the four rows are also distributed over threads. */
function dividedLoop(
  { matrices, row, xStart, x, gain, sum, square }: LoopShape,
  first: VectorMatrix,
  threadRows: number,
): string {
  const chunks = first.layout.columns / chunkColumns;
  const shares = rowsPerGroup / threadRows;
  const own = four.slice(0, threadRows);
  const products = matrices.map((matrix) => {
    const rows = four.map((r) => row(matrix, r)).join(', ');
    const loads = own.map((r) => `let chunk${r} = ${matrix.name}_chunk(own_rows[r + ${r}u], c);`);
    const dots = own.map((r) => `let dot${r} = ${matrix.name}_dot(chunk${r}, span);`);
    const all = four.map((r) => `dot${r % threadRows}`).join(', ');
    return `{ let own_rows = vec4u(${rows}); ${[...loads, ...dots].join(' ')} ${sum(matrix, 0)} += select(vec4f(), vec4f(${all}), isOwn); }`;
  });
  const sums = matrices.some(({ layout }) => needsSums(layout));
  return /* wgsl */ `
  ${square ? 'var all_squares = 0.0;' : ''}
  for (var i = thread; i < ${shares * chunks}u; i += THREADS) {
    let r = ${threadRows}u * (i / ${chunks}u);
    let c = i % ${chunks}u;
    let isOwn = vec4u(r) == vec4u(${four.map((r) => `${r - (r % threadRows)}u`).join(', ')});
    let quads = ${first.name}_quads(c);
    ${spanOf({ x, start: xStart(0), gain, sums, ...(square && { square: 'all_squares' }) })}
    ${products.join('\n    ')}
  }
  ${square ? `${square(0)} += ${1 / shares} * all_squares;` : ''}`;
}

/**
 * Computes `sum0`, … of four matrix rows with x, `[tokens, columns]`. If x isn't normalised yet, multiplies it by
 * `gain` and also computes `squares0`, …
 */
export function normalisedLoop(
  matrices: readonly VectorMatrix[],
  row: (r: number) => string,
  pass: Passes,
  isNormalised: boolean,
  { tuning }: GpuCapabilities,
): string {
  const columns = matrices[0]?.layout.columns ?? 0;
  return productLoop({
    matrices,
    row: (_, r) => row(r),
    x: 'x',
    xStart: (m) => `${pass.token(m)} * ${columns / 4}u`,
    tokens: pass.rows.length,
    tuning,
    gain: !isNormalised,
    sum: (_, m) => `sum${m}`,
    ...(!isNormalised && { square: (m: number) => `squares${m >> 2}[${m & 3}]` }),
  });
}

/**
 * One loop over the columns of `many` matmuls with one row of x each. `body` gets the statements that define `product`,
 * the dot products of four rows from `row` on with x from `start` on; it may use `slot`, the index of the matmul.
 */
export function manyLoop(
  { matrix, x, many }: { readonly matrix: VectorMatrix; readonly x: string; readonly many: number },
  body: (statements: string) => string,
): string {
  const { name, layout } = matrix;
  const wide = inChunks(matrix, 1);
  const steps = layout.columns / (wide ? chunkColumns : 8);
  const dots = four.map((r) => `${name}_dot(chunk${r}, span)`).join(', ');
  const chunks = /* wgsl */ `let quads = ${name}_quads(step);
    ${four.map((r) => `let chunk${r} = ${name}_chunk(row + ${r}u, step);`).join(' ')}
    ${spanOf({ x, start: 'start', gain: false, sums: needsSums(layout) })}
    let product = vec4f(${dots});`;
  const units = four.map((r) => `${name}_unit(row + ${r}u, step)`).join(', ');
  const eights = /* wgsl */ `let columns = ${name}_columns(step);
    let product = products(${units}, ${x}[start + columns.x], ${x}[start + columns.y]);`;
  return /* wgsl */ `for (var i = thread; i < ${many * steps}u; i += THREADS) {
    let slot = i / ${steps}u;
    let step = i % ${steps}u;
    ${body(wide ? chunks : eights)}
  }`;
}

interface SpanShape {
  readonly x: string;
  readonly start: string;
  readonly gain: boolean;
  readonly sums: boolean;
  readonly square?: string;
}

/** Statements that define `span`, the 32 values of x at `quads`. */
export function spanOf({ x, start, gain, sums, square }: SpanShape): string {
  const runs = (['a', 'b'] as const).flatMap((run, i) => {
    const at = (quad: number) => `quads.${'xy'[i]} + ${quad}u`;
    return [
      ...four.map((quad) => `let x_${run}${quad} = ${x}[${start} + ${at(quad)}];`),
      ...four.map((quad) => `let ${run}${quad} = x_${run}${quad}${gain ? ` * gain[${at(quad)}]` : ''};`),
    ];
  });
  const all = ['a', 'b'].flatMap((run) => four.map((quad) => `${run}${quad}`));
  const squares = square ? `${square} += ${all.map((name) => `dot(x_${name}, x_${name})`).join(' + ')};` : '';
  const total = (run: string) => (sums ? `dot(${four.map((quad) => `${run}${quad}`).join(' + ')}, vec4f(1.0))` : '0.0');
  return `${runs.join(' ')} ${squares}
    let span = Span(${all.join(', ')}, ${total('a')}, ${total('b')});`;
}
