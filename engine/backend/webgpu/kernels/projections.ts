/** Matmuls of few rows of x with several matrices in one dispatch: the projections of attention. */
import type { GroupedQueryAttentionSpec } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { packHalves, pageTokens, rowStruct } from './cacheCode.ts';
import { queryFactorCode } from './prepareHeads.ts';
import {
  matrixBuffer,
  matrixCode,
  normalisedLoop,
  type Passes,
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
  /** Absent: x is normalised already. */
  readonly normEpsilon?: number;
}

export function canJoin(
  matrices: readonly Projection[],
  bias: boolean,
  { maxBindingsPerKernel }: GpuCapabilities,
): boolean {
  const bindings = 2 + 2 * matrices.length + (bias ? 1 : 0);
  return bindings <= maxBindingsPerKernel && matrices.every(({ layout }) => layout.rows % rowsPerGroup === 0);
}

/**
 * y[i][m, row] = Σ x[m, column] · gain[column] / rms(x[m]) · W[i][row, column] (+ bias) for several matrices and 1 to 16
 * rows of the same x, in one dispatch: queries, keys and values, or the two compressions of latent attention.
 *
 * Bindings: weight0, weight1, … u32, x `[tokens, columns]` vec4f, gain? `[columns]` vec4f, bias? (of all matrices, one
 * after the other); y0, y1, … `[tokens, rows]` f32 (write). Workgroup: 64 threads, or as many as were tuned, which share the columns of four rows of one
 * matrix; groups: the rows of all matrices in x. Needs 2 + 2 · matrices (+ 1) storage buffers and rows in multiples of
 * four; uses subgroups. Must equal `linear` after `rmsNorm` of backend/reference.
 */
export function jointVectorKernel(shape: JointVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { tokens, bias, normEpsilon } = shape;
  const matrices = shape.matrices.map((matrix, i) => ({ ...matrix, name: `weight${i}` }));
  const columns = matrices[0]?.layout.columns ?? 0;
  const pass = passesOf(tokens, rowsPerPass);
  const isNormalised = normEpsilon === undefined;
  const sums = sumsOf(pass, isNormalised);
  const buffers = declareBuffers([
    ...matrices.map((matrix) => matrixBuffer(matrix, tokens)),
    ...[read('x', 'vec4f'), ...(isNormalised ? [] : [read('gain', 'vec4f')])],
    ...(bias ? [read('bias')] : []),
    ...matrices.map((_, i) => write(`y${i}`)),
  ]);
  const first = (index: number) => matrices.slice(0, index).reduce((sum, { layout }) => sum + layout.rows, 0);
  const branches = (body: (index: number) => string) =>
    matrices.map((_, i) => `if (all_row < ${first(i + 1)}u) { ${body(i)} }`).join(' else ');
  const loop = (index: number) => {
    const own = matrices.slice(index, index + 1);
    return `let own = all_row - ${first(index)}u;${normalisedLoop(own, (r) => `own + ${r}u`, pass, isNormalised, capabilities)}`;
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
    let value = totals[m][i % 4u]${scaleOf(pass, columns, normEpsilon)}${bias ? ' + bias[all_row + i % 4u]' : ''};
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
    weightsPerStep: weightsPerStep(matrices.slice(0, 1), tokens, capabilities.tuning),
    weightBytes: matrices.reduce((sum, matrix) => sum + weightBytes(matrix), 0),
  };
}

/** Sums of a pass: of dot products, and of the squares of x unless it is normalised. */
function sumsOf({ rows }: Passes, isNormalised: boolean): string[] {
  const squares = isNormalised ? [] : rows.filter((m) => m % 4 === 0).map((m) => `squares${m / 4}`);
  return [...rows.map((m) => `sum${m}`), ...squares];
}

/** WGSL of the factor by which row m of a pass is normalised. */
const scaleOf = ({ rows }: Passes, columns: number, epsilon: number | undefined): string =>
  epsilon === undefined ? '' : ` * inverseSqrt(totals[${rows.length}u + m / 4u][m % 4u] / ${columns}.0 + ${epsilon})`;

export const jointVectorGroups = ({ matrices }: JointVectorShape): [number] => [
  matrices.reduce((sum, { layout }) => sum + layout.rows, 0) / rowsPerGroup,
];

export interface ProjectHeadsShape {
  readonly spec: GroupedQueryAttentionSpec;
  readonly query: Projection;
  readonly key: Projection;
  readonly value: Projection;
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
  /** Absent: x is normalised already. */
  readonly normEpsilon?: number;
  readonly precision: ProjectedPrecision;
}

const storageBuffers = 12;

/** Not `q8`: the values of a workgroup are not a whole block, so their scale can't be computed. */
export type ProjectedPrecision = Exclude<CachePrecision, 'q8'>;

/** Whether the fused form serves this attention on this adapter. */
export function canProjectHeads(spec: GroupedQueryAttentionSpec, capabilities: GpuCapabilities): boolean {
  return !spec.qkNorm && spec.rope.dimensions % 4 === 0 && capabilities.maxBindingsPerKernel >= storageBuffers;
}

/**
 * Query, key and value of 1 to 16 rows of x in one dispatch: x is normalised, multiplied, biased and rotated, queries are
 * kept, keys and values go into their cache pages. For models that do not normalise heads: every workgroup computes whole pairs
 * of rotated elements, but no whole head.
 *
 * Bindings: query_weight, key_weight, value_weight u32, x `[tokens, columns]` vec4f, gain? `[columns]` vec4f, bias?
 * `[heads + 2 kvHeads, headDim]`, rows (Row), pages u32, angles `[tokens, pairs]` vec2f (as for prepareHeads), params
 * { tokens } (uniform); query `[tokens, heads · headDim]`, key_cache, value_cache u32 (write).
 * Workgroup: 64 threads, or as many as were tuned, which share the columns of four rows of one head; groups: (heads + 2 kvHeads) · headDim / 4 in x.
 * Needs 12 storage buffers; uses subgroups. Must equal `linear`, `rotate` and `sharpen` after `rmsNorm` of backend/reference.
 */
export function projectHeadsKernel(shape: ProjectHeadsShape, capabilities: GpuCapabilities): KernelSource {
  const { spec, tokens, precision } = shape;
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = spec;
  const query = { ...shape.query, name: 'query_weight' };
  const key = { ...shape.key, name: 'key_weight' };
  const value = { ...shape.value, name: 'value_weight' };
  const matrices = [query, key, value];
  const pass = passesOf(tokens, rowsPerPass);
  const isNormalised = shape.normEpsilon === undefined;
  const sums = sumsOf(pass, isNormalised);
  const buffers = declareBuffers([
    ...matrices.map((matrix) => matrixBuffer(matrix, tokens)),
    ...[read('x', 'vec4f'), ...(isNormalised ? [] : [read('gain', 'vec4f')])],
    ...(spec.bias.qkv ? [read('bias')] : []),
    ...[read('rows', 'Row'), read('pages', 'u32'), read('angles', 'vec2f')],
    { name: 'params', type: 'Params', kind: 'uniform' },
    ...[write('query'), write('key_cache', 'u32'), write('value_cache', 'u32')],
  ]);
  const loop = (matrix: VectorMatrix) =>
    normalisedLoop([matrix], (r) => `own.${'xyzw'[r]}`, pass, isNormalised, capabilities);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
struct Params { tokens: u32, unused0: u32, unused1: u32, unused2: u32 }
${rowStruct}
${buffers.code}
${matrixCode(matrices, tokens, capabilities)}
${reductionCode(sums.length, capabilities.tuning.vectorThreads, capabilities)}
${rowsOfHead(spec)}${queryFactorCode(spec)}
${storePair('key_cache', precision)}
${storePair('value_cache', precision)}
${storeCode(shape, pass)}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / ${headDim / 4}u;
  let within = rows_of_head(group.x % ${headDim / 4}u);
  ${pass.begin}
  ${sums.map((name) => `var ${name} = vec4f();`).join(' ')}
  if (head < ${heads}u) {
    let own = head * ${headDim}u + within;${loop(query)}
  } else if (head < ${heads + kvHeads}u) {
    let own = (head - ${heads}u) * ${headDim}u + within;${loop(key)}
  } else {
    let own = (head - ${heads + kvHeads}u) * ${headDim}u + within;${loop(value)}
  }
  reduce(thread, ${sums.join(', ')});
  if (thread < ${pass.rows.length}u && first_token + thread < min(params.tokens, ${tokens}u)) { store(head, within, first_token, thread); }
  ${pass.end}
}
`;
  return {
    label: `projectHeads ${shape.query.layout.type} ${heads}/${kvHeads}x${headDim}x${tokens}`,
    code,
    bindings: buffers.bindings,
    weightsPerStep: weightsPerStep([query], tokens, capabilities.tuning),
    weightBytes: matrices.reduce((sum, matrix) => sum + weightBytes(matrix), 0),
  };
}

/** Row m of a pass: normalised, biased, rotated, to the queries or into its cache page. */
function storeCode({ spec, query, normEpsilon }: ProjectHeadsShape, pass: Passes): string {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, bias } = spec;
  return /* wgsl */ `
fn store(head: u32, within: vec4u, first_token: u32, m: u32) {
  let token = first_token + m;
  var y = totals[m]${scaleOf(pass, query.layout.columns, normEpsilon)};
  ${bias.qkv ? `let b = head * ${headDim}u + within; y += vec4f(bias[b.x], bias[b.y], bias[b.z], bias[b.w]);` : ''}
  if (head < ${heads + kvHeads}u) { y = rotate_pairs(y, within, token); }
  if (head < ${heads}u) {${spec.queryTemperature ? ' y *= query_factor(token);' : ''}
    let at = (token * ${heads}u + head) * ${headDim}u + within;
    query[at.x] = y.x; query[at.y] = y.y; query[at.z] = y.z; query[at.w] = y.w;
    return;
  }
  let row = rows[token];
  let page = pages[row.table + row.position / ${pageTokens}u];
  let kv_head = (head - ${heads}u) % ${kvHeads}u;
  let at = ((page * ${kvHeads}u + kv_head) * ${pageTokens}u + row.position % ${pageTokens}u) * ${headDim}u + within;
  if (head < ${heads + kvHeads}u) {
    store_key_cache(at.x, y.xy);
    store_key_cache(at.z, y.zw);
  } else {
    store_value_cache(at.x, y.xy);
    store_value_cache(at.z, y.zw);
  }
}`;
}

export const projectHeadsGroups = (spec: GroupedQueryAttentionSpec): [number] => [
  ((spec.numAttentionHeads + 2 * spec.numKeyValueHeads) * spec.headDim) / 4,
];

/** Four rows of a head that hold two whole pairs of the rotation, and the rotation of both. */
function rowsOfHead({ rope, headDim }: GroupedQueryAttentionSpec): string {
  const pairs = rope.dimensions / 2;
  const split = rope.layout === 'half-split';
  const guard = rope.dimensions < headDim ? `if (within.x >= ${rope.dimensions}u) { return y; }` : '';
  return /* wgsl */ `
fn rows_of_head(slot: u32) -> vec4u {
  ${split ? `if (slot < ${pairs / 2}u) { return 2u * slot + vec4u(0u, 1u, ${pairs}u, ${pairs + 1}u); }` : ''}
  return 4u * slot + vec4u(0u, 1u, 2u, 3u);
}
fn rotate_pairs(y: vec4f, within: vec4u, token: u32) -> vec4f {
  ${guard}
  let pair = rows[token].angle * ${pairs}u + within.x${split ? '' : ' / 2u'};
  let first = angles[pair];
  let second = angles[pair + 1u];
  ${
    split
      ? 'return vec4f(y.x * first.x - y.z * first.y, y.y * second.x - y.w * second.y, y.z * first.x + y.x * first.y, y.w * second.x + y.y * second.y);'
      : 'return vec4f(y.x * first.x - y.y * first.y, y.y * first.x + y.x * first.y, y.z * second.x - y.w * second.y, y.w * second.x + y.z * second.y);'
  }
}`;
}

/** Two consecutive values at value index `at`, which is even. */
function storePair(name: string, precision: ProjectedPrecision): string {
  return precision === 'f16'
    ? `fn store_${name}(at: u32, pair: vec2f) { ${name}[at / 2u] = ${packHalves('pair')}; }`
    : `fn store_${name}(at: u32, pair: vec2f) { ${name}[at] = bitcast<u32>(pair.x); ${name}[at + 1u] = bitcast<u32>(pair.y); }`;
}
