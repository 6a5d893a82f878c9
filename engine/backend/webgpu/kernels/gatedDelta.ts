/**
 * The kernels of a gated delta net. Each processes the tokens of a sequence one after the other, and stores the state
 * after the last token in the sequence's block. Must equal `gatedDeltaNet` of backend/reference.
 *
 * A block of states: `[valueHeads, keyHeadDim, valueHeadDim]`, then the convolution's last inputs `[channels, tokens - 1]`.
 */
import { convolutionChannels, type GatedDeltaSpec, stateValues } from '../../../model/spec/spec.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { rowStruct } from './cacheCode.ts';

/** Added to a vector's squared length before it is normalised: transformers' `l2norm`. */
const unitEpsilon = 1e-6;
/** Columns of a state that a workgroup keeps, and values: 28 KiB. */
const mostColumns = 32;
const mostKept = 7 * 1024;
/** Longest keys: a state's column must fit in a workgroup. */
export const longestKey = 1024;

const uniform = { name: 'params', type: 'Params', kind: 'uniform' } as const;
/** The first row of a sequence computes for all of them. */
const sequenceCode = /* wgsl */ `
${rowStruct}
struct Params { tokens: u32, a: u32, b: u32, c: u32 }
fn begins(row: u32) -> bool { return row == 0u || rows[row - 1u].table != rows[row].table; }`;

/** The part of the channels that a buffer holds. */
export interface Channels {
  readonly first: number;
  readonly count: number;
}

/**
 * SiLU of the causal convolution, in place. Bindings: rows (Row), pages u32, params, kernel `[channels, tokens]`, x `[rows,
 * count]` (write), states (write). Workgroup: 64 threads, a channel each; groups: channels in x, rows in y. Needs no features.
 */
export function convolutionKernel(spec: GatedDeltaSpec, { first, count }: Channels): KernelSource {
  const before = spec.convolutionTokens - 1;
  const inputsAt = stateValues(spec) - convolutionChannels(spec) * before;
  const buffers = declareBuffers([
    ...[read('rows', 'Row'), read('pages', 'u32'), uniform, read('kernel')],
    ...[write('x'), write('states')],
  ]);
  const code = /* wgsl */ `
${sequenceCode}
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let first = at.y;
  if (at.x >= ${count}u || first >= params.tokens || !begins(first)) { return; }
  let channel = ${first}u + at.x;
  let table = rows[first].table;
  let place = pages[table] * ${stateValues(spec)}u + ${inputsAt}u + channel * ${before}u;
  var last: array<f32, ${Math.max(1, before)}>;
  if (rows[first].position > 0u) { for (var i = 0u; i < ${before}u; i++) { last[i] = states[place + i]; } }
  for (var row = first; row < params.tokens && rows[row].table == table; row++) {
    let input = x[row * ${count}u + at.x];
    var sum = kernel[channel * ${before + 1}u + ${before}u] * input;
    for (var i = 0u; i < ${before}u; i++) { sum += kernel[channel * ${before + 1}u + i] * last[i]; }
    for (var i = 1u; i < ${before}u; i++) { last[i - 1u] = last[i]; }
    ${before > 0 ? `last[${before - 1}] = input;` : ''}
    x[row * ${count}u + at.x] = sum / (1.0 + exp(min(-sum, 80.0)));
  }
  for (var i = 0u; i < ${before}u; i++) { states[place + i] = last[i]; }
}
`;
  return { label: `convolution ${first}+${count}`, code, bindings: buffers.bindings };
}

export const convolutionGroups = ({ count }: Channels, rows: number): [number, number] => [Math.ceil(count / 64), rows];

function columnsOf({ keyHeadDim, valueHeadDim }: GatedDeltaSpec): number {
  const most = Math.min(mostColumns, Math.floor(mostKept / keyHeadDim));
  return Array.from({ length: most }, (_, i) => most - i).find((count) => valueHeadDim % count === 0) ?? 1;
}

/**
 * beta = sigmoid(beta), decay = exp(rate · softplus(decay + bias)), in place. Bindings: factors `[2, valueHeads]` (rate, bias),
 * betas and decays `[rows, valueHeads]` (write). Workgroup: 64 threads; groups: heads in x, rows in y. Needs no features.
 */
export function deltaStepsKernel({ numValueHeads: heads }: GatedDeltaSpec): KernelSource {
  const buffers = declareBuffers([read('factors'), write('betas'), write('decays')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${heads}u) { return; }
  let i = at.y * ${heads}u + at.x;
  betas[i] = 1.0 / (1.0 + exp(min(-betas[i], 80.0)));
  let raw = decays[i] + factors[${heads}u + at.x];
  decays[i] = exp(factors[at.x] * (max(raw, 0.0) + log(1.0 + exp(-abs(raw)))));
}
`;
  return { label: `deltaSteps ${heads}`, code, bindings: buffers.bindings };
}

/**
 * The delta rule; the results replace the values. Bindings: rows (Row), pages u32, params, query and key `[rows,
 * keyHeads · keyHeadDim]`, betas and decays `[rows, valueHeads]`, value `[rows, valueHeads · valueHeadDim]` (write),
 * states (write). Workgroup: a thread for each of up to 32 columns of a head's state; groups: columns of all heads in
 * x, rows in y. Needs no features; workgroup memory for the columns of a state.
 */
export function deltaKernel(spec: GatedDeltaSpec): KernelSource {
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim, sharing } = spec;
  const columns = columnsOf(spec);
  const keyHead = sharing === 'tiled' ? `head % ${numKeyHeads}u` : `head * ${numKeyHeads}u / ${numValueHeads}u`;
  const buffers = declareBuffers([
    ...[read('rows', 'Row'), read('pages', 'u32'), uniform, read('query'), read('key')],
    ...[read('betas'), read('decays'), write('value'), write('states')],
  ]);
  const load = (name: string, scale: string) => /* wgsl */ `
    for (var i = column; i < ${keyHeadDim}u; i += ${columns}u) { vector[i] = ${name}[row * ${numKeyHeads * keyHeadDim}u + key_at + i]; }
    workgroupBarrier();
    let ${name}_scale = ${scale}unit_scale();`;
  const code = /* wgsl */ `
${sequenceCode}
${buffers.code}
var<workgroup> state: array<f32, ${keyHeadDim * columns}>;
var<workgroup> vector: array<f32, ${keyHeadDim}>;
/** Every thread sums the whole vector: it is short, and this needs no barrier. */
fn unit_scale() -> f32 {
  var squares = ${unitEpsilon};
  for (var i = 0u; i < ${keyHeadDim}u; i++) { squares += vector[i] * vector[i]; }
  return inverseSqrt(squares);
}
@compute @workgroup_size(${columns})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) column: u32) {
  let first = group.y;
  if (first >= params.tokens || !begins(first)) { return; }
  let head = group.x / ${valueHeadDim / columns}u;
  let value_column = group.x % ${valueHeadDim / columns}u * ${columns}u + column;
  let key_at = (${keyHead}) * ${keyHeadDim}u;
  let table = rows[first].table;
  let place = pages[table] * ${stateValues(spec)}u + head * ${keyHeadDim * valueHeadDim}u + value_column;
  let is_new = rows[first].position == 0u;
  for (var i = 0u; i < ${keyHeadDim}u; i++) {
    state[i * ${columns}u + column] = select(states[place + i * ${valueHeadDim}u], 0.0, is_new);
  }
  for (var row = first; row < params.tokens && rows[row].table == table; row++) {
    let at = row * ${numValueHeads}u + head;
    let value_at = row * ${numValueHeads * valueHeadDim}u + head * ${valueHeadDim}u + value_column;
    let decay = decays[at];
    ${load('key', '')}
    var known = 0.0;
    for (var i = 0u; i < ${keyHeadDim}u; i++) { known += state[i * ${columns}u + column] * vector[i]; }
    let correction = betas[at] * (value[value_at] - decay * known * key_scale) * key_scale;
    for (var i = 0u; i < ${keyHeadDim}u; i++) {
      let index = i * ${columns}u + column;
      state[index] = decay * state[index] + vector[i] * correction;
    }
    workgroupBarrier();
    ${load('query', `${keyHeadDim ** -0.5} * `)}
    var sum = 0.0;
    for (var i = 0u; i < ${keyHeadDim}u; i++) { sum += state[i * ${columns}u + column] * vector[i]; }
    value[value_at] = sum * query_scale;
    workgroupBarrier();
  }
  for (var i = 0u; i < ${keyHeadDim}u; i++) { states[place + i * ${valueHeadDim}u] = state[i * ${columns}u + column]; }
}
`;
  return { label: `delta ${numValueHeads}x${keyHeadDim}x${valueHeadDim}`, code, bindings: buffers.bindings };
}

export const deltaGroups = (spec: GatedDeltaSpec, rows: number): [number, number] => [
  (spec.numValueHeads * spec.valueHeadDim) / columnsOf(spec),
  rows,
];

/**
 * x = RMSNorm(x) · SiLU(gate) of each head, in place. Bindings: gate and x (write) `[rows, heads · width]`, gain `[width]`.
 * Workgroup: 64 threads a head; groups: heads in x, rows in y. Needs no features.
 */
export function gatedNormKernel(heads: number, width: number, epsilon: number): KernelSource {
  const buffers = declareBuffers([read('gate'), read('gain'), write('x')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = (group.y * ${heads}u + group.x) * ${width}u;
  var squares = 0.0;
  for (var i = 0u; i < ${width}u; i++) { squares += x[first + i] * x[first + i]; }
  let scale = inverseSqrt(squares / ${width}.0 + ${epsilon});
  workgroupBarrier();
  storageBarrier();
  for (var i = thread; i < ${width}u; i += 64u) {
    let g = gate[first + i];
    x[first + i] *= scale * gain[i] * g / (1.0 + exp(min(-g, 80.0)));
  }
}
`;
  return { label: `gatedNorm ${heads}x${width}`, code, bindings: buffers.bindings };
}

/**
 * x · sigmoid(gate), in place: of attention's output, and of a shared expert, which has one gate a row. Bindings: gate `[rows,
 * width]` or `[rows]`, x `[rows, width]` (write). Workgroup: 64 threads; groups: width in x, rows in y. Needs no features.
 * Must equal the gates of `groupedQueryAttention` and `expertNetworks` of backend/reference.
 */
export function sigmoidGateKernel(width: number, gates: 'one a value' | 'one a row'): KernelSource {
  const buffers = declareBuffers([read('gate'), write('x')]);
  const gate = gates === 'one a row' ? 'at.y' : `at.y * ${width}u + at.x`;
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${width}u) { return; }
  x[at.y * ${width}u + at.x] /= 1.0 + exp(min(-gate[${gate}], 80.0));
}
`;
  return { label: `sigmoidGate ${gates} ${width}`, code, bindings: buffers.bindings };
}

export const sigmoidGateGroups = (width: number, rows: number): [number, number] => [Math.ceil(width / 64), rows];
