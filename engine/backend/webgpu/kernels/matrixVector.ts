/**
 * y[m, row] (+)= Σ x[m, column] · W[row, column] (+ bias[row]) for 1 to 16 rows of x: decode, small batches, draft
 * verification. With `norm`, x is first normalised: x · gain / rms(x), at no cost beyond reading gain.
 *
 * Bindings: weight, x `[tokens, heads? · columns]` vec4f, gain? `[columns]` vec4f, bias? `[rows]` f32; y `[tokens, rows]` f32 (write).
 * Workgroup: 64 threads, which share the columns of `rowsPerGroup` output rows; groups in x, then y. Needs nothing; uses
 * subgroups. Must equal `linear` after `rmsNorm` of backend/reference.
 */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { reductionCode, subgroupsEnable } from './reduction.ts';
import { type BlockScaleShape, productsCode, unitCode, weightCode } from './weightCode.ts';

/** What a product of a matrix with rows of x may have besides. Shared with matrixMatrix. */
export interface ProductShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** y has `outputRows` a token, of which this matrix (or this piece of one) gives those from `firstRow` on. */
  readonly firstRow?: number;
  readonly outputRows?: number;
  readonly bias?: boolean;
  /** Add to what y holds: the residual stream. */
  readonly accumulate?: boolean;
  /** The matrix is a stack of heads of so many rows, each of which multiplies its own `columns` values of x; a piece holds whole heads. */
  readonly rowsPerHead?: number;
}

/** Values a row of x. */
export function widthOfX({ layout, rowsPerHead, outputRows = layout.rows }: ProductShape): number {
  return (rowsPerHead ? outputRows / rowsPerHead : 1) * layout.columns;
}

export interface MatrixVectorShape extends ProductShape {
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  readonly norm?: { readonly epsilon: number };
}

export const rowsPerGroup = 4;
const threads = 64;

export function matrixVectorKernel(shape: MatrixVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, tokens, norm } = shape;
  const tokenIndices = Array.from({ length: tokens }, (_, m) => m);
  const buffers = declareBuffers([
    read('weight', 'u32'),
    read('x', 'vec4f'),
    ...(norm ? [read('gain', 'vec4f')] : []),
    ...(shape.bias ? [read('bias')] : []),
    write('y'),
  ]);
  const scale = norm
    ? ` * inverseSqrt(totals[${tokens}u + m / 4u][m % 4u] / f32(weight_COLUMNS) + ${norm.epsilon})`
    : '';
  const sums = tokenIndices.map((m) => `sum${m}`);
  const squares = norm ? Array.from({ length: Math.ceil(tokens / 4) }, (_, i) => `squares${i}`) : [];
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${unitCode}
${productsCode}
${weightCode('weight', layout, shape.blockScale)}
const ROWS = ${layout.rows}u;
const FIRST_ROW = ${shape.firstRow ?? 0}u;
const OUTPUT_ROWS = ${shape.outputRows ?? layout.rows}u;
const UNITS = ${layout.columns / 8}u;
const X_WIDTH = ${widthOfX(shape) / 4}u;
${reductionCode(sums.length + squares.length, threads, capabilities)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first_row = (group.y * groups.x + group.x) * ${rowsPerGroup}u;
  let rows = min(vec4u(first_row) + vec4u(0u, 1u, 2u, 3u), vec4u(ROWS - 1u));
  ${[...sums, ...squares].map((name) => `var ${name} = vec4f();`).join(' ')}
  for (var unit = thread; unit < UNITS; unit += ${threads}u) {
    let columns = weight_columns(unit);
    let w0 = weight_unit(rows.x, unit);
    let w1 = weight_unit(rows.y, unit);
    let w2 = weight_unit(rows.z, unit);
    let w3 = weight_unit(rows.w, unit);
    ${tokenIndices.map((m) => (shape.rowsPerHead ? perHead(m, shape.rowsPerHead) : shared(m, norm !== undefined))).join('\n    ')}
  }
  reduce(thread, ${[...sums, ...squares].join(', ')});
  for (var i = thread; i < ${rowsPerGroup * tokens}u; i += ${threads}u) {
    let row = first_row + i % 4u;
    if (row >= ROWS) { continue; }
    let m = i / 4u;
    let at = m * OUTPUT_ROWS + FIRST_ROW + row;
    y[at] = totals[m][i % 4u]${scale} ${shape.bias ? '+ bias[FIRST_ROW + row]' : ''} ${shape.accumulate ? '+ y[at]' : ''};
  }
}
`;
  return {
    label: `matrixVector ${layout.type} ${layout.rows}x${layout.columns}x${tokens}`,
    code,
    bindings: buffers.bindings,
  };
}

/** Workgroups for a matrix of `rows`; more than a dimension takes go on in y. */
export function matrixVectorGroups(rows: number): [number, number] {
  const groups = Math.ceil(rows / rowsPerGroup);
  const y = Math.ceil(groups / 65_535);
  return [Math.ceil(groups / y), y];
}

/** All rows multiply the same x. */
function shared(m: number, norm: boolean): string {
  const load = `let a = x[${m}u * X_WIDTH + columns.x]; let b = x[${m}u * X_WIDTH + columns.y];`;
  return norm
    ? `{ ${load} squares${m >> 2}[${m & 3}] += dot(a, a) + dot(b, b); sum${m} += products(w0, w1, w2, w3, a * gain[columns.x], b * gain[columns.y]); }`
    : `{ ${load} sum${m} += products(w0, w1, w2, w3, a, b); }`;
}

/** Each row multiplies the x of its own head; `rowsPerHead` is a multiple of four, so a group's rows share it. */
function perHead(m: number, rowsPerHead: number): string {
  const at = `${m}u * X_WIDTH + ((FIRST_ROW + first_row) / ${rowsPerHead}u) * (weight_COLUMNS / 4u)`;
  return `{ let at = ${at}; sum${m} += products(w0, w1, w2, w3, x[at + columns.x], x[at + columns.y]); }`;
}
