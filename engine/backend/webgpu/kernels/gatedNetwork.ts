/** The first half of a gated network: the activation alone, and both matmuls of a few rows with the activation. */
import type { Activation, ExpertsSpec } from '../../../model/spec/spec.ts';
import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities, Tuning } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { routeCode, storeRoute } from './router.ts';
import {
  matrixBuffer,
  matrixCode,
  type Passes,
  passesOf,
  productLoop,
  rowsPerGroup,
  rowsPerPass,
  type VectorMatrix,
  weightBytes,
  weightsPerStep,
} from './vectorProduct.ts';
import type { BlockScaleShape } from './weightCode.ts';

/** WGSL `fn gelu(x)` in its tanh approximation: ½ (1 + tanh y) is the sigmoid of 2y. */
export const geluCode = (type: 'f32' | 'vec4f'): string => /* wgsl */ `
fn gelu(x: ${type}) -> ${type} {
  let y = ${Math.sqrt(2 / Math.PI)} * (x + 0.044715 * x * x * x);
  return x / (1.0 + exp(min(-2.0 * y, ${type}(80.0))));
}`;

/** WGSL `fn activate(g: vec4f, u: vec4f) -> vec4f`, for gate and up. Exponents stay finite, because WGSL does not guarantee infinities. */
export function activationCode(activation: Activation): string {
  if (activation.kind === 'silu-gate') {
    return /* wgsl */ `
fn activate(g: vec4f, u: vec4f) -> vec4f { return g / (1.0 + exp(min(-g, vec4f(80.0)))) * u; }`;
  }
  if (activation.kind === 'gelu-gate') {
    return /* wgsl */ `
${geluCode('vec4f')}
fn activate(g: vec4f, u: vec4f) -> vec4f { return gelu(g) * u; }`;
  }
  const { alpha, limit } = activation;
  return /* wgsl */ `
fn activate(all_g: vec4f, all_u: vec4f) -> vec4f {
  let g = min(all_g, vec4f(${limit}));
  let u = clamp(all_u, vec4f(${-limit}), vec4f(${limit}));
  return (u + 1.0) * g / (1.0 + exp(min(-${alpha} * g, vec4f(80.0))));
}`;
}

/**
 * up = activation(gate) · up, element by element, in place.
 *
 * Bindings: gate, up (write), both `[tokens, width]` vec4f. Workgroup: 64 threads, four values each; groups: width in x,
 * tokens in y. Needs no features. Must equal `gatedNetwork`'s activation of backend/reference.
 */
export function activationKernel(activation: Activation, width: number): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('gate', 'vec4f'), write('up', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
${activationCode(activation)}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${quads}u) { return; }
  let i = at.y * ${quads}u + at.x;
  up[i] = activate(gate[i], up[i]);
}
`;
  return { label: `activation ${activation.kind} ${width}`, code, bindings: buffers.bindings };
}

export const activationGroups = (width: number, tokens: number): [number, number] => [Math.ceil(width / 256), tokens];

/** A piece of a matrix, or of a stack of experts, from row `firstRow` on. */
export interface GatedPiece {
  readonly layout: MatrixLayout;
  readonly firstRow: number;
}

export interface GatedShape {
  readonly gate: GatedPiece & { readonly blockScale?: BlockScaleShape };
  readonly up: GatedPiece & { readonly blockScale?: BlockScaleShape };
  /** Rows that this dispatch computes, among those that both pieces hold (experts: whole experts). */
  readonly firstRow: number;
  readonly endRow: number;
  /** Rows of one network. */
  readonly rows: number;
  readonly activation: Activation;
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  readonly norm?: { readonly epsilon: number };
  readonly experts?: {
    readonly topK: number;
    readonly bias: boolean;
    /** Requires that one piece holds all experts. */
    readonly routing?: ExpertsSpec;
  };
}

/** Row ranges that a piece of one matrix and a piece of the other both hold: one dispatch each. */
export function jointPieces<Piece extends GatedPiece>(
  gate: readonly Piece[],
  up: readonly Piece[],
): { readonly gate: Piece; readonly up: Piece; readonly firstRow: number; readonly endRow: number }[] {
  return gate.flatMap((g) =>
    up.flatMap((u) => {
      const firstRow = Math.max(g.firstRow, u.firstRow);
      const endRow = Math.min(g.firstRow + g.layout.rows, u.firstRow + u.layout.rows);
      return firstRow < endRow ? [{ gate: g, up: u, firstRow, endRow }] : [];
    }),
  );
}

/** Most experts among which every workgroup can choose itself: each thread ranks a few of them. */
const mostRoutedExperts = 128;
const routingBindings = 10;

/**
 * Whether the choice of experts is part of the kernel. A selection bias would need one more binding, and routers with
 * one are large.
 */
export const canRoute = ({ numExperts, router }: ExpertsSpec, capabilities: GpuCapabilities): boolean =>
  router.kind !== 'sigmoid-grouped' &&
  numExperts <= mostRoutedExperts &&
  capabilities.maxBindingsPerKernel >= routingBindings;

const chosenBindings = (routes: boolean) =>
  routes ? [read('logits'), write('chosen', 'u32'), write('weights')] : [read('chosen', 'u32')];

/**
 * act = activation(gate · x, up · x) for 1 to 16 rows of x: both halves of a gated network, the norm before them and
 * the activation after them in one dispatch. A dense network multiplies every row of x; of a stack of experts, each
 * (token, slot) multiplies the one whose number the router left in `chosen`. With `routing` it is the router as well:
 * every workgroup makes the same choice from the logits, which is faster than a separate dispatch.
 *
 * Bindings: gate, up, x `[tokens, columns]` vec4f, gain? `[columns]` vec4f; experts: gate_bias? and up_bias?
 * `[experts, rows]` vec4f, chosen `[tokens, topK]` u32, or with routing: logits `[tokens, experts]`, chosen (write) and
 * weights `[tokens, topK]` (write); act (write) `[tokens, rows]`, experts `[tokens, topK, rows]`, vec4f.
 * Workgroup: 64 threads, or as many as were tuned, which share the columns of four rows of each matrix; groups: rows in x; experts: slots in y,
 * tokens in z. Needs rows in multiples of four; uses subgroups. Must equal the first half of `gatedNetwork` of
 * backend/reference.
 */
export function gatedVectorKernel(shape: GatedShape, capabilities: GpuCapabilities): KernelSource {
  const { gate, up, norm, experts, rows } = shape;
  // An expert's workgroup has one token; the weights of a dense network serve all tokens at once.
  const tokens = experts ? 1 : shape.tokens;
  const matrices = [
    { ...gate, name: 'gate' },
    { ...up, name: 'up' },
  ];
  const pass = passesOf(tokens, rowsPerPass);
  const buffers = declareBuffers([
    ...matrices.map((matrix) => matrixBuffer(matrix, tokens)),
    read('x', 'vec4f'),
    ...(norm ? [read('gain', 'vec4f')] : []),
    ...(experts?.bias ? [read('gate_bias', 'vec4f'), read('up_bias', 'vec4f')] : []),
    ...(experts ? chosenBindings(experts.routing !== undefined) : []),
    write('act', 'vec4f'),
  ]);
  // One row of x by matrices of one type, whose columns are in one order: each read of x serves both.
  const together = tokens === 1 && gate.layout.type === up.layout.type;
  const sums = together ? 3 : pass.rows.length + Math.ceil(pass.rows.length / 4);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${matrixCode(matrices, tokens, capabilities)}
${activationCode(shape.activation)}
const X_WIDTH = ${gate.layout.columns / 4}u;
const ACT_WIDTH = ${rows / 4}u;
${reductionCode(sums, capabilities.tuning.vectorThreads, capabilities)}
${experts?.routing ? `${routeCode(experts.routing, false, capabilities.tuning.vectorThreads)}${storeRoute(experts.topK, capabilities.tuning.vectorThreads)}` : ''}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  ${experts ? chosenRow(shape, experts) : `let row = ${shape.firstRow}u + ${rowsPerGroup}u * group.x;`}
  let gate_row = row - ${gate.firstRow}u;
  let up_row = row - ${up.firstRow}u;
  ${pass.begin}
  ${together ? bothAtOnce(shape, matrices, capabilities.tuning) : oneByOne(shape, matrices, pass, capabilities.tuning)}
  ${pass.end}
}
`;
  const label = `gatedVector ${gate.layout.type} ${up.layout.type} ${rows}x${gate.layout.columns}x${shape.tokens}${experts ? ` of ${experts.topK} ${experts.routing ? 'routed ' : ''}experts` : ''}`;
  const step = weightsPerStep(together ? matrices : matrices.slice(0, 1), tokens, capabilities.tuning);
  const bytes = matrices.reduce((sum, { layout }) => sum + weightBytes({ layout }, experts && experts.topK * rows), 0);
  return { label, code, bindings: buffers.bindings, weightsPerStep: step, weightBytes: bytes };
}

/** `row`: the workgroup's first row in the stack. Experts in another piece belong to another dispatch. */
function chosenRow(
  { firstRow, endRow, rows }: GatedShape,
  { topK, routing }: { readonly topK: number; readonly routing?: ExpertsSpec },
): string {
  const expert = routing
    ? /* wgsl */ `
  route(group.z, thread);
  if (group.x == 0u && group.y == 0u) { store_route(group.z, thread); }
  let row = workgroupUniformLoad(&picked[group.y]) * ${rows}u + ${rowsPerGroup}u * group.x;`
    : /* wgsl */ `
  let row = chosen[visit] * ${rows}u + ${rowsPerGroup}u * group.x;
  if (row < ${firstRow}u || row >= ${endRow}u) { return; }`;
  return /* wgsl */ `
  let visit = group.z * ${topK}u + group.y;${expert}`;
}

/** The parts of the loop over columns that are the same in both cases. */
const loopShape = ({ norm, experts }: GatedShape, token: (m: number) => string) => ({
  row: ({ name }: VectorMatrix, r: number) => `${name}_row + ${r}u`,
  x: 'x',
  xStart: (m: number) => `${experts ? 'group.z' : token(m)} * X_WIDTH`,
  gain: norm !== undefined,
});

/** 1 / rms of row m of the pass, from the sums of squares that follow `first` other totals. */
const scaleOf = ({ gate, norm }: GatedShape, first: number): string =>
  norm ? `inverseSqrt(totals[${first}u + m / 4u][m % 4u] / ${gate.layout.columns}.0 + ${norm.epsilon})` : '1.0';

const biasOf = ({ experts }: GatedShape, name: string): string => (experts?.bias ? ` + ${name}_bias[row / 4u]` : '');
const placeOf = ({ experts }: GatedShape): string =>
  experts ? 'visit * ACT_WIDTH + group.x' : '(first_token + m) * ACT_WIDTH + row / 4u';

function bothAtOnce(shape: GatedShape, matrices: readonly VectorMatrix[], tuning: Tuning): string {
  const loop = productLoop({
    ...loopShape(shape, () => '0u'),
    matrices,
    tokens: 1,
    tuning,
    sum: ({ name }) => `${name}_sum`,
    ...(shape.norm && { square: () => 'squares.x' }),
  });
  return /* wgsl */ `var gate_sum = vec4f(); var up_sum = vec4f(); var squares = vec4f();
  ${loop}
  reduce(thread, gate_sum, up_sum, squares);
  if (thread == 0u) {
    let m = 0u;
    let scale = ${scaleOf(shape, 2)};
    act[${placeOf(shape)}] = activate(totals[0] * scale${biasOf(shape, 'gate')}, totals[1] * scale${biasOf(shape, 'up')});
  }`;
}

/**
 * Sums one matrix at a time, because the sums of both would not fit in the registers. Thread m keeps row m's gate
 * meanwhile.
 */
function oneByOne(shape: GatedShape, matrices: readonly VectorMatrix[], pass: Passes, tuning: Tuning): string {
  const squares = pass.rows.filter((m) => m % 4 === 0).map((m) => `squares${m / 4}`);
  const sums = [...pass.rows.map((m) => `sum${m}`), ...squares];
  const half = (matrix: VectorMatrix, squared: boolean) => /* wgsl */ `{
    ${sums.map((name) => `var ${name} = vec4f();`).join(' ')}
    ${productLoop({
      ...loopShape(shape, pass.token),
      matrices: [matrix],
      tokens: pass.rows.length,
      tuning,
      sum: (_, m) => `sum${m}`,
      ...(shape.norm && squared && { square: (m: number) => `squares${m >> 2}[${m & 3}]` }),
    })}
    reduce(thread, ${sums.join(', ')});
  }`;
  const count = pass.rows.length;
  const [gate, up] = matrices.map((matrix, i) => half(matrix, i === 0));
  return /* wgsl */ `let m = thread;
  ${gate}
  var g = vec4f(); var scale = 1.0;
  if (m < ${count}u) { scale = ${scaleOf(shape, count)}; g = totals[m] * scale${biasOf(shape, 'gate')}; }
  ${up}
  if (m < ${count}u && first_token + m < ${shape.experts ? 1 : shape.tokens}u) {
    act[${placeOf(shape)}] = activate(g, totals[m] * scale${biasOf(shape, 'up')});
  }`;
}

export function gatedVectorGroups(shape: GatedShape): [number, number, number] {
  const { experts, rows, firstRow, endRow, tokens } = shape;
  return experts ? [rows / rowsPerGroup, experts.topK, tokens] : [(endRow - firstRow) / rowsPerGroup, 1, 1];
}
