/** Matmuls with one matrix: of few rows of x as matrix-vector products, and of many in tiles. */
import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { geluCode } from './gatedNetwork.ts';
import { tileCode, tileRows, tileThreads, tileTokens, tileTokensOf } from './matrixTiles.ts';
import {
  matrixBuffer,
  matrixCode,
  passesOf,
  productLoop,
  rowsPerGroup,
  rowsPerPass,
  weightBytes,
  weightsPerStep,
} from './vectorProduct.ts';
import { type BlockScaleShape, unitCode, weightCode } from './weightCode.ts';

/** Options of a matmul. */
export interface ProductShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** y has `outputRows` rows a token; this matrix, or piece of one, computes those from `firstRow` on. */
  readonly firstRow?: number;
  readonly outputRows?: number;
  readonly bias?: boolean;
  /** y is the GELU of the result. */
  readonly gelu?: boolean;
  /** Adds to y, the residual stream. */
  readonly accumulate?: boolean;
  /**
   * The matrix is a stack of heads with this many rows; each multiplies its own `columns` values of x. A piece has
   * whole heads.
   */
  readonly rowsPerHead?: number;
}

/** Values a row of x. */
export function widthOfX({ layout, rowsPerHead, outputRows = layout.rows }: ProductShape): number {
  return (rowsPerHead ? outputRows / rowsPerHead : 1) * layout.columns;
}

/** WGSL of the result to store for `value`, a sum without its bias, and the function that it needs. */
function stored({ bias, gelu, accumulate }: ProductShape, value: string, row: string) {
  const biased = `${value}${bias ? ` + bias[${row}]` : ''}`;
  return {
    value: `${gelu ? `gelu(${biased})` : biased}${accumulate ? ' + y[at]' : ''}`,
    code: gelu ? geluCode('f32') : '',
  };
}

export interface MatrixVectorShape extends ProductShape {
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  readonly norm?: { readonly epsilon: number };
}

/**
 * y[m, row] (+)= gelu?(Σ x[m, column] · W[row, column] (+ bias[row])) for 1 to 16 rows of x: decode, small batches, draft
 * verification. With `norm`, x is first normalised: x · gain / rms(x), at no cost beyond reading gain.
 *
 * Bindings: weight, x `[tokens, heads? · columns]` vec4f, gain? `[columns]` vec4f, bias? `[rows]` f32; y `[tokens, rows]` f32 (write).
 * Workgroup: 64 threads, or as many as were tuned, which share the columns of `rowsPerGroup` output rows; groups in x, then y. Needs nothing; uses
 * subgroups. Must equal `linear` after `rmsNorm` of backend/reference.
 */
export function matrixVectorKernel(shape: MatrixVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, tokens, norm } = shape;
  const matrix = { name: 'weight', layout, ...(shape.blockScale && { blockScale: shape.blockScale }) };
  const pass = passesOf(tokens, rowsPerPass);
  const buffers = declareBuffers([
    matrixBuffer(matrix, tokens),
    read('x', 'vec4f'),
    ...(norm ? [read('gain', 'vec4f')] : []),
    ...(shape.bias ? [read('bias')] : []),
    write('y'),
  ]);
  const sums = pass.rows.map((m) => `sum${m}`);
  const squares = norm ? pass.rows.filter((m) => m % 4 === 0).map((m) => `squares${m / 4}`) : [];
  const scale = norm
    ? ` * inverseSqrt(totals[${sums.length}u + m / 4u][m % 4u] / ${layout.columns}.0 + ${norm.epsilon})`
    : '';
  // A group's rows belong to one head, because rowsPerHead is a multiple of four.
  const head = shape.rowsPerHead ? ` + ((FIRST_ROW + first_row) / ${shape.rowsPerHead}u) * ${layout.columns / 4}u` : '';
  const loop = productLoop({
    matrices: [matrix],
    row: (_, r) => `rows.${'xyzw'[r]}`,
    x: 'x',
    xStart: (m) => `(${pass.token(m)} * X_WIDTH${head})`,
    tokens: pass.rows.length,
    tuning: capabilities.tuning,
    gain: norm !== undefined,
    sum: (_, m) => `sum${m}`,
    ...(norm && { square: (m: number) => `squares${m >> 2}[${m & 3}]` }),
  });
  const result = stored(shape, `totals[m][i % 4u]${scale}`, 'FIRST_ROW + row');
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${result.code}
${matrixCode([matrix], tokens, capabilities)}
const ROWS = ${layout.rows}u;
const FIRST_ROW = ${shape.firstRow ?? 0}u;
const OUTPUT_ROWS = ${shape.outputRows ?? layout.rows}u;
const X_WIDTH = ${widthOfX(shape) / 4}u;
${reductionCode(sums.length + squares.length, capabilities.tuning.vectorThreads, capabilities)}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first_row = (group.y * groups.x + group.x) * ${rowsPerGroup}u;
  let rows = min(vec4u(first_row) + vec4u(0u, 1u, 2u, 3u), vec4u(ROWS - 1u));
  ${pass.begin}
  ${[...sums, ...squares].map((name) => `var ${name} = vec4f();`).join(' ')}
  ${loop}
  reduce(thread, ${[...sums, ...squares].join(', ')});
  for (var i = thread; i < ${rowsPerGroup * pass.rows.length}u; i += THREADS) {
    let row = first_row + i % 4u;
    let m = i / 4u;
    if (row >= ROWS || first_token + m >= ${tokens}u) { continue; }
    let at = (first_token + m) * OUTPUT_ROWS + FIRST_ROW + row;
    y[at] = ${result.value};
  }
  ${pass.end}
}
`;
  return {
    label: `matrixVector ${layout.type} ${layout.rows}x${layout.columns}x${tokens}`,
    code,
    bindings: buffers.bindings,
    weightsPerStep: weightsPerStep([matrix], tokens, capabilities.tuning),
    weightBytes: weightBytes(matrix),
  };
}

/** Workgroups for a matrix of `rows`, continued in y beyond the limit of a dimension. */
export function matrixVectorGroups(rows: number): [number, number] {
  const groups = Math.ceil(rows / rowsPerGroup);
  const y = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / y), y];
}

/**
 * y[t, row] (+)= gelu?(Σ x[t, column] · W[row, column] (+ bias[row])) for many rows of x: prompts, in tiles.
 *
 * Bindings: weight, x (as `tileCode` says), bias? f32, params { tokens } (uniform); y `[tokens, outputRows]` f32 (write).
 * Workgroup: 256 threads give one tile of output rows by tokens; groups: rows in x, tokens in y.
 * Needs no features; uses subgroup matrices. Must equal `linear` of backend/reference.
 */
export function matrixMatrixKernel(shape: ProductShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, rowsPerHead, firstRow = 0 } = shape;
  const tokens = tileTokensOf(layout, capabilities);
  const result = stored(shape, 'value', `${firstRow}u + row`);
  const tile = tileCode(
    layout.type,
    {
      weightRow: `min(first_row + r, ${layout.rows - 1}u)`,
      xRow: '(first_token + t)',
      tokens,
      columns: layout.columns,
      xWidth: widthOfX(shape),
      xOffset: `(${rowsPerHead ? firstRow / rowsPerHead : 0}u + head) * (weight_COLUMNS / 4u)`,
      count: '(params.tokens - first_token)',
      store: `let row = first_row + r; if (row < end_row) { let at = (first_token + t) * ${shape.outputRows ?? layout.rows}u + ${firstRow}u + row; y[at] = ${result.value}; }`,
    },
    capabilities,
  );
  const buffers = declareBuffers([
    read('weight', 'u32'),
    ...tile.x,
    ...(shape.bias ? [read('bias')] : []),
    { name: 'params', type: 'Params', kind: 'uniform' },
    write('y'),
  ]);
  // A tile of rows is within one head, so it multiplies one range of x.
  const rowTiles = rowsPerHead ? Math.ceil(rowsPerHead / tileRows) : 0;
  const rowStart = rowsPerHead
    ? `let head = group.x / ${rowTiles}u; let first_row = head * ${rowsPerHead}u + (group.x % ${rowTiles}u) * ${tileRows}u; let end_row = (head + 1u) * ${rowsPerHead}u;`
    : `let head = 0u; let first_row = group.x * ${tileRows}u; let end_row = ${layout.rows}u;`;
  const code = /* wgsl */ `
${tile.enables}
struct Params { tokens: u32, unused0: u32, unused1: u32, unused2: u32 }
${buffers.code}
${result.code}
${unitCode}
${weightCode('weight', layout, shape.blockScale)}
${tile.declarations}
@compute @workgroup_size(${tileThreads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32${tile.builtins}) {
  ${rowStart}
  let first_token = group.y * ${tokens}u;
  ${tile.body}
}
`;
  return {
    label: `${tokens > tileTokens ? 'tallMatrix' : 'matrixMatrix'} ${layout.type} ${layout.rows}x${layout.columns}`,
    code,
    bindings: buffers.bindings,
    multipliesPerStep: tile.multipliesPerStep,
  };
}

/** Workgroups for `tokens` rows of x. */
export function matrixMatrixGroups(
  { layout, rowsPerHead }: ProductShape,
  tokens: number,
  capabilities: GpuCapabilities,
): [number, number] {
  const rowTiles = rowsPerHead
    ? (layout.rows / rowsPerHead) * Math.ceil(rowsPerHead / tileRows)
    : Math.ceil(layout.rows / tileRows);
  return [rowTiles, Math.ceil(tokens / tileTokensOf(layout, capabilities))];
}
