/**
 * y[i][m, row] = Σ x[m, column] · gain[column] / rms(x[m]) · W[i][row, column] (+ bias) for several matrices and 1 to 16
 * rows of the same x, in one dispatch: queries, keys and values, or the two compressions of latent attention.
 *
 * Bindings: weight0, weight1, … u32, x `[tokens, columns]` vec4f, gain `[columns]` vec4f, bias? (of all matrices, one
 * after the other); y0, y1, … `[tokens, rows]` f32 (write). Workgroup: 64 threads, or as many as were tuned, which share the columns of four rows of one
 * matrix; groups: the rows of all matrices in x. Needs 2 + 2 · matrices (+ 1) storage buffers and rows in multiples of
 * four; uses subgroups. Must equal `linear` after `rmsNorm` of backend/reference.
 */
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import {
  matrixBuffer,
  matrixCode,
  normalisedLoop,
  passesOf,
  rowsPerGroup,
  rowsPerPass,
  type VectorMatrix,
  weightBytes,
  weightsPerStep,
} from './vectorProduct.ts';

/** A matrix in one piece. */
export type Projection = Omit<VectorMatrix, 'name'>;

export interface JointVectorShape {
  /** All have the same number of columns. */
  readonly matrices: readonly Projection[];
  readonly bias: boolean;
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  readonly normEpsilon: number;
}

export function canJoin(
  matrices: readonly Projection[],
  bias: boolean,
  { maxBindingsPerKernel }: GpuCapabilities,
): boolean {
  const bindings = 2 + 2 * matrices.length + (bias ? 1 : 0);
  return bindings <= maxBindingsPerKernel && matrices.every(({ layout }) => layout.rows % rowsPerGroup === 0);
}

export function jointVectorKernel(shape: JointVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { tokens, bias } = shape;
  const matrices = shape.matrices.map((matrix, i) => ({ ...matrix, name: `weight${i}` }));
  const columns = matrices[0]?.layout.columns ?? 0;
  const pass = passesOf(tokens, rowsPerPass);
  const squares = pass.rows.filter((m) => m % 4 === 0).map((m) => `squares${m / 4}`);
  const sums = [...pass.rows.map((m) => `sum${m}`), ...squares];
  const buffers = declareBuffers([
    ...matrices.map((matrix) => matrixBuffer(matrix, tokens)),
    ...[read('x', 'vec4f'), read('gain', 'vec4f')],
    ...(bias ? [read('bias')] : []),
    ...matrices.map((_, i) => write(`y${i}`)),
  ]);
  const first = (index: number) => matrices.slice(0, index).reduce((sum, { layout }) => sum + layout.rows, 0);
  const branches = (body: (index: number) => string) =>
    matrices.map((_, i) => `if (all_row < ${first(i + 1)}u) { ${body(i)} }`).join(' else ');
  const loop = (index: number) => {
    const own = matrices.slice(index, index + 1);
    return `let own = all_row - ${first(index)}u;${normalisedLoop(own, (r) => `own + ${r}u`, pass)}`;
  };
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${matrixCode(matrices, tokens, capabilities)}
${reductionCode(sums.length, capabilities.tuning.vectorThreads, capabilities)}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let all_row = ${rowsPerGroup}u * group.x;
  ${pass.begin}
  ${sums.map((name) => `var ${name} = vec4f();`).join(' ')}
  ${branches(loop)}
  reduce(thread, ${sums.join(', ')});
  for (var i = thread; i < ${rowsPerGroup * pass.rows.length}u; i += THREADS) {
    let m = i / 4u;
    if (first_token + m >= ${tokens}u) { continue; }
    let scale = inverseSqrt(totals[${pass.rows.length}u + m / 4u][m % 4u] / ${columns}.0 + ${shape.normEpsilon});
    let value = totals[m][i % 4u] * scale${bias ? ' + bias[all_row + i % 4u]' : ''};
    ${branches((index) => `y${index}[(first_token + m) * ${matrices[index]?.layout.rows}u + all_row - ${first(index)}u + i % 4u] = value;`)}
  }
  ${pass.end}
}
`;
  const rows = matrices.map(({ layout }) => layout.rows).join('+');
  return {
    label: `jointVector ${matrices[0]?.layout.type} ${rows}x${columns}x${tokens}`,
    code,
    bindings: buffers.bindings,
    weightsPerStep: weightsPerStep(matrices.slice(0, 1), tokens),
    weightBytes: matrices.reduce((sum, matrix) => sum + weightBytes(matrix), 0),
  };
}

export const jointVectorGroups = ({ matrices }: JointVectorShape): [number] => [
  matrices.reduce((sum, { layout }) => sum + layout.rows, 0) / rowsPerGroup,
];
