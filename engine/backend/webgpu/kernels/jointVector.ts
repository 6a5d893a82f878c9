/**
 * y[i][m, row] = Σ x[m, column] · gain[column] / rms(x[m]) · W[i][row, column] (+ bias) for several matrices and 1 to 16
 * rows of the same x, in one dispatch: queries, keys and values, or the two compressions of latent attention.
 *
 * Bindings: weight0, weight1, … u32, x `[tokens, columns]` vec4f, gain `[columns]` vec4f, bias? (of all matrices, one
 * after the other); y0, y1, … `[tokens, rows]` f32 (write). Workgroup: 64 threads, which share the columns of four rows of one
 * matrix; groups: the rows of all matrices in x. Needs 2 + 2 · matrices (+ 1) storage buffers and rows in multiples of
 * four; uses subgroups. Must equal `linear` after `rmsNorm` of backend/reference.
 */
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { rowsPerGroup } from './matrixVector.ts';
import { type Projection, productLoop } from './projectHeads.ts';
import { reductionCode, subgroupsEnable } from './reduction.ts';
import { productsCode, unitCode, weightCode } from './weightCode.ts';

export interface JointVectorShape {
  /** All of the same number of columns. */
  readonly matrices: readonly Projection[];
  readonly bias: boolean;
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  readonly normEpsilon: number;
}

const threads = 64;

export function canJoin(
  matrices: readonly Projection[],
  bias: boolean,
  { maxBindingsPerKernel }: GpuCapabilities,
): boolean {
  const bindings = 2 + 2 * matrices.length + (bias ? 1 : 0);
  return bindings <= maxBindingsPerKernel && matrices.every(({ layout }) => layout.rows % rowsPerGroup === 0);
}

export function jointVectorKernel(shape: JointVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { matrices, tokens, bias } = shape;
  const columns = matrices[0]?.layout.columns ?? 0;
  const tokenIndices = Array.from({ length: tokens }, (_, m) => m);
  const squares = Array.from({ length: Math.ceil(tokens / 4) }, (_, i) => `squares${i}`);
  const sums = [...tokenIndices.map((m) => `sum${m}`), ...squares];
  const buffers = declareBuffers([
    ...matrices.map((_, i) => read(`weight${i}`, 'u32')),
    ...[read('x', 'vec4f'), read('gain', 'vec4f')],
    ...(bias ? [read('bias')] : []),
    ...matrices.map((_, i) => write(`y${i}`)),
  ]);
  const first = (index: number) => matrices.slice(0, index).reduce((sum, { layout }) => sum + layout.rows, 0);
  const branches = (body: (index: number) => string) =>
    matrices.map((_, i) => `if (all_row < ${first(i + 1)}u) { ${body(i)} }`).join(' else ');
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${unitCode}
${productsCode}
${matrices.map(({ layout, blockScale }, i) => weightCode(`weight${i}`, layout, blockScale)).join('\n')}
${reductionCode(sums.length, threads, capabilities)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let all_row = ${rowsPerGroup}u * group.x;
  ${sums.map((name) => `var ${name} = vec4f();`).join(' ')}
  ${branches((i) => `let own = all_row - ${first(i)}u + vec4u(0u, 1u, 2u, 3u);${productLoop(`weight${i}`, tokenIndices, columns)}`)}
  reduce(thread, ${sums.join(', ')});
  for (var i = thread; i < ${rowsPerGroup * tokens}u; i += ${threads}u) {
    let m = i / 4u;
    let scale = inverseSqrt(totals[${tokens}u + m / 4u][m % 4u] / ${columns}.0 + ${shape.normEpsilon});
    let value = totals[m][i % 4u] * scale${bias ? ' + bias[all_row + i % 4u]' : ''};
    ${branches((index) => `y${index}[m * ${matrices[index]?.layout.rows}u + all_row - ${first(index)}u + i % 4u] = value;`)}
  }
}
`;
  const rows = matrices.map(({ layout }) => layout.rows).join('+');
  return {
    label: `jointVector ${matrices[0]?.layout.type} ${rows}x${columns}x${tokens}`,
    code,
    bindings: buffers.bindings,
  };
}

export const jointVectorGroups = ({ matrices }: JointVectorShape): [number] => [
  matrices.reduce((sum, { layout }) => sum + layout.rows, 0) / rowsPerGroup,
];
