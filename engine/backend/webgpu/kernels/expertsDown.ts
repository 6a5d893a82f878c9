/**
 * y[t] (+)= Σ over slots of weight · (W[expert] · act[t, slot] + bias[expert]) for few tokens: the second matmul of the chosen
 * experts and their weighted sum, added to the residual stream.
 *
 * Bindings: matrix (of a stack of experts), act `[tokens, topK, columns]` vec4f, bias? `[experts, rows]`, chosen and
 * weights `[tokens, topK]`; y `[tokens, rows]` (write). A stack in pieces is one dispatch a piece, each adding the experts
 * it holds. Workgroup: 64 threads, or as many as were tuned, which share the columns of all slots of four rows; groups: rows in x, tokens in y. Needs rows in
 * multiples of four; uses subgroups. Must equal `expertNetworks` of backend/reference after its activation.
 */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import {
  manyLoop,
  matrixBuffer,
  matrixCode,
  rowsPerGroup,
  type VectorMatrix,
  weightBytes,
  weightsPerManyStep,
} from './vectorProduct.ts';
import type { BlockScaleShape } from './weightCode.ts';

export interface ExpertsDownShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** First row of the stack in this piece, which has whole experts. */
  readonly firstRow: number;
  /** Rows of one expert. */
  readonly rows: number;
  readonly topK: number;
  readonly bias: boolean;
  /** Adds to y; every piece except the first must. */
  readonly accumulate: boolean;
}

export function expertsDownKernel(shape: ExpertsDownShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, rows, topK } = shape;
  const firstExpert = shape.firstRow / rows;
  const endExpert = firstExpert + layout.rows / rows;
  const matrix = { name: 'matrix', layout, ...(shape.blockScale && { blockScale: shape.blockScale }) };
  const loop = expertLoop(
    matrix,
    topK,
    (expert) => `(${expert} - ${firstExpert}u) * ${rows}u + ${rowsPerGroup}u * group.x`,
  );
  const buffers = declareBuffers([
    matrixBuffer(matrix, 1),
    read('act', 'vec4f'),
    ...(shape.bias ? [read('bias')] : []),
    read('chosen', 'u32'),
    read('weights'),
    write('y'),
  ]);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${matrixCode([matrix], 1, capabilities)}
fn held(expert: u32) -> bool { return expert >= ${firstExpert}u && expert < ${endExpert}u; }
${reductionCode(1, capabilities.tuning.vectorThreads, capabilities)}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first_visit = group.y * ${topK}u;
  var sum = vec4f();
  ${loop}
  reduce(thread, sum);
  if (thread >= ${rowsPerGroup}u) { return; }
  let row = ${rowsPerGroup}u * group.x + thread;
  var total = totals[0][thread];
  ${shape.bias ? biasCode(rows, topK) : ''}
  y[group.y * ${rows}u + row] = total${shape.accumulate ? ` + y[group.y * ${rows}u + row]` : ''};
}
`;
  return {
    label: `expertsDown ${layout.type} ${rows}x${layout.columns} of ${topK}`,
    code,
    bindings: buffers.bindings,
    weightsPerStep: weightsPerManyStep(matrix),
    weightBytes: weightBytes(matrix, topK * rows),
  };
}

/** One loop over the columns of all slots, so that fewer threads idle at its end. */
function expertLoop(matrix: VectorMatrix, topK: number, row: (expert: string) => string): string {
  return manyLoop(
    { matrix, x: 'act', many: topK },
    (statements) => /* wgsl */ `
    let visit = first_visit + slot;
    let expert = chosen[visit];
    if (!held(expert)) { continue; }
    let row = ${row('expert')};
    let start = visit * ${matrix.layout.columns / 4}u;
    ${statements}
    sum += weights[visit] * product;`,
  );
}

function biasCode(rows: number, topK: number): string {
  return /* wgsl */ `for (var visit = first_visit; visit < first_visit + ${topK}u; visit++) {
    if (held(chosen[visit])) { total += weights[visit] * bias[chosen[visit] * ${rows}u + row]; }
  }`;
}

export const expertsDownGroups = ({ rows }: ExpertsDownShape, tokens: number): [number, number] => [
  rows / rowsPerGroup,
  tokens,
];
