/**
 * act = activation(gate · x, up · x) for 1 to 16 rows of x: both halves of a gated network, the norm before them and the
 * activation after them in one dispatch. A dense network multiplies every row of x; of a stack of experts, each (token,
 * slot) multiplies the one whose number the router left in `chosen`. With `routing` it is the router as well: every
 * workgroup makes the same choice from the logits, which is quicker than a dispatch of its own.
 *
 * Bindings: gate, up, x `[tokens, columns]` vec4f, gain? `[columns]` vec4f; experts: gate_bias? and up_bias?
 * `[experts, rows]` vec4f, chosen `[tokens, topK]` u32, or with routing: logits `[tokens, experts]`, chosen (write) and
 * weights `[tokens, topK]` (write); act (write) `[tokens, rows]`, experts `[tokens, topK, rows]`, vec4f.
 * Workgroup: 64 threads, which share the columns of four rows of each matrix; groups: rows in x; experts: slots in y,
 * tokens in z. Needs rows in multiples of four; uses subgroups. Must equal the first half of `gatedNetwork` of
 * backend/reference.
 */
import type { Activation, ExpertsSpec } from '../../../model/spec/spec.ts';
import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { activationCode } from './activation.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { reductionCode, subgroupsEnable } from './reduction.ts';
import { routeCode, storeRoute } from './router.ts';
import { type BlockScaleShape, productsCode, unitCode, weightCode } from './weightCode.ts';

/** A piece of a matrix, or of a stack of experts, from row `firstRow` on. */
export interface GatedPiece {
  readonly layout: MatrixLayout;
  readonly firstRow: number;
}

export interface GatedShape {
  readonly gate: GatedPiece & { readonly blockScale?: BlockScaleShape };
  readonly up: GatedPiece & { readonly blockScale?: BlockScaleShape };
  /** Rows that this dispatch gives, of those that both pieces hold (experts: whole experts). */
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
    /** One piece must hold all experts then. */
    readonly routing?: ExpertsSpec;
  };
}

const threads = 64;
const rowsPerGroup = 4;

/** Rows that a piece of one matrix and a piece of the other both hold: one dispatch each. */
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

/** Experts among which every workgroup may choose by itself: each thread ranks a few of them. */
const mostRoutedExperts = 128;
const routingBindings = 10;

/** Whether the choice of experts is part of the kernel. A selection bias would be one binding more, and its routers are large. */
export const canRoute = ({ numExperts, router }: ExpertsSpec, capabilities: GpuCapabilities): boolean =>
  router.kind !== 'sigmoid-grouped' &&
  numExperts <= mostRoutedExperts &&
  capabilities.maxBindingsPerKernel >= routingBindings;

const chosenBindings = (routes: boolean) =>
  routes ? [read('logits'), write('chosen', 'u32'), write('weights')] : [read('chosen', 'u32')];

export function gatedVectorKernel(shape: GatedShape, capabilities: GpuCapabilities): KernelSource {
  const { gate, up, norm, experts, rows } = shape;
  // An expert's workgroup has one token of its own; the weights of a dense network serve all tokens at once.
  const tokens = experts ? 1 : shape.tokens;
  const tokenIndices = Array.from({ length: tokens }, (_, m) => m);
  const buffers = declareBuffers([
    read('gate', 'u32'),
    read('up', 'u32'),
    read('x', 'vec4f'),
    ...(norm ? [read('gain', 'vec4f')] : []),
    ...(experts?.bias ? [read('gate_bias', 'vec4f'), read('up_bias', 'vec4f')] : []),
    ...(experts ? chosenBindings(experts.routing !== undefined) : []),
    write('act', 'vec4f'),
  ]);
  const squares = norm ? Array.from({ length: Math.ceil(tokens / 4) }, (_, i) => `squares${i}`) : [];
  const sums = [...tokenIndices.map((m) => `gate${m}`), ...tokenIndices.map((m) => `up${m}`), ...squares];
  const scale = norm
    ? ` * inverseSqrt(totals[${2 * tokens}u + m / 4u][m % 4u] / ${gate.layout.columns}.0 + ${norm.epsilon})`
    : '';
  const bias = (name: string) => (experts?.bias ? ` + ${name}_bias[row / 4u]` : '');
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${unitCode}
${productsCode}
${weightCode('gate', gate.layout, gate.blockScale)}
${weightCode('up', up.layout, up.blockScale)}
${activationCode(shape.activation)}
const UNITS = ${gate.layout.columns / 8}u;
const X_WIDTH = ${gate.layout.columns / 4}u;
const ACT_WIDTH = ${rows / 4}u;
${reductionCode(sums.length, threads, capabilities)}
${experts?.routing ? `${routeCode(experts.routing, false, threads)}${storeRoute(experts.topK, threads)}` : ''}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  ${experts ? chosenRow(shape, experts) : `let row = ${shape.firstRow}u + ${rowsPerGroup}u * group.x; let first_token = 0u;`}
  let gate_row = row - ${gate.firstRow}u;
  let up_row = row - ${up.firstRow}u;
  ${sums.map((name) => `var sum_${name} = vec4f();`).join(' ')}
  ${loops(shape, tokenIndices)}
  reduce(thread, ${sums.map((name) => `sum_${name}`).join(', ')});
  for (var m = thread; m < ${tokens}u; m += ${threads}u) {
    let scale = 1.0${scale};
    let g = totals[m] * scale${bias('gate')};
    let u = totals[${tokens}u + m] * scale${bias('up')};
    act[${experts ? `visit * ACT_WIDTH + group.x` : `m * ACT_WIDTH + row / 4u`}] = activate(g, u);
  }
}
`;
  const label = `gatedVector ${gate.layout.type} ${up.layout.type} ${rows}x${gate.layout.columns}x${shape.tokens}${experts ? ` of ${experts.topK} ${experts.routing ? 'routed ' : ''}experts` : ''}`;
  return { label, code, bindings: buffers.bindings };
}

/** `row`: the first of this workgroup in the stack. The expert of another piece is another dispatch's. */
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
  let visit = group.z * ${topK}u + group.y;
  let first_token = group.z;${expert}`;
}

/** Matrices of one type have their columns in one order and share each read of x. */
function loops({ gate, up, norm }: GatedShape, tokens: readonly number[]): string {
  const together = gate.layout.type === up.layout.type;
  const squared = (m: number) => (norm ? ` sum_squares${m >> 2}[${m & 3}] += dot(a, a) + dot(b, b);` : '');
  const scaled = (name: string, m: number) =>
    `sum_${name}${m} += products(${name}0, ${name}1, ${name}2, ${name}3, ${norm ? 'a * gain_a, b * gain_b' : 'a, b'});`;
  const loop = (names: readonly string[], square: boolean) => /* wgsl */ `
  for (var unit = thread; unit < UNITS; unit += ${threads}u) {
    let columns = ${names[0]}_columns(unit);
    ${names.flatMap((name) => [0, 1, 2, 3].map((r) => `let ${name}${r} = ${name}_unit(${name}_row + ${r}u, unit);`)).join('\n    ')}
    ${norm ? 'let gain_a = gain[columns.x]; let gain_b = gain[columns.y];' : ''}
    ${tokens
      .map((m) => {
        const load = `let at = (first_token + ${m}u) * X_WIDTH; let a = x[at + columns.x]; let b = x[at + columns.y];`;
        return `{ ${load}${square ? squared(m) : ''} ${names.map((name) => scaled(name, m)).join(' ')} }`;
      })
      .join('\n    ')}
  }`;
  return together ? loop(['gate', 'up'], true) : `${loop(['gate'], true)}${loop(['up'], false)}`;
}

export function gatedVectorGroups(shape: GatedShape): [number, number, number] {
  const { experts, rows, firstRow, endRow, tokens } = shape;
  return experts ? [rows / rowsPerGroup, experts.topK, tokens] : [(endRow - firstRow) / rowsPerGroup, 1, 1];
}
