/**
 * The steps after attention's projections: norms, RoPE and writing of cache rows, for grouped-query and latent
 * attention.
 */
import {
  cacheRowOf,
  type GroupedQueryAttentionSpec,
  type LatentAttentionSpec,
  qkNormWidths,
} from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { pageTokens, rowStruct, writeCacheRow } from './cacheCode.ts';

/** WGSL `rotate(i)`: element i of `head` after rotation of its first `dimensions`. */
export function rotationCode(layout: 'half-split' | 'interleaved', dimensions: number): string {
  const pairs = dimensions / 2;
  const body =
    layout === 'half-split'
      ? `let pair = i % ${pairs}u; let upper = i >= ${pairs}u; let other = head[select(i + ${pairs}u, i - ${pairs}u, upper)];`
      : 'let pair = i / 2u; let upper = (i & 1u) == 1u; let other = head[i ^ 1u];';
  return /* wgsl */ `
fn rotate(i: u32, token: u32) -> f32 {
  if (i >= ${dimensions}u) { return head[i]; }
  ${body}
  let angle = angles[rows[token].angle * ${pairs}u + pair];
  return head[i] * angle.x + select(-other, other, upper) * angle.y;
}`;
}

/** WGSL `query_factor(token)`, if the queries have a temperature: the factor on a token's rotated query. */
export function queryFactorCode({ queryTemperature }: GroupedQueryAttentionSpec): string {
  if (!queryTemperature) return '';
  const { beta, originalContextTokens } = queryTemperature;
  return /* wgsl */ `
fn query_factor(token: u32) -> f32 { return 1.0 + f32(${beta}) * log(1.0 + f32(rows[token].position / ${originalContextTokens}u)); }`;
}

/**
 * Prepares heads for attention: RMS norm of each query and key head (Qwen3), RoPE, and writing keys and values to their cache
 * pages.
 *
 * Bindings: rows (Row), pages u32, angles `[tokens, pairs]` vec2f (cos, sin, attention factor included; computed on the host in
 * float64, so that position 131071 is as exact as position 1), key `[tokens, kvHeads · headDim]`, value alike, norms?
 * `[2, headDim]` (query's, key's); query `[tokens, heads · headDim]` (write, in place), key_cache, value_cache u32 (write).
 * Workgroup: one head of one token; groups: heads + 2 kvHeads in x, tokens in y. Needs no features.
 * Must equal `rmsNorm`, `rotate` and `sharpen` of backend/reference.
 */
export function prepareHeadsKernel(
  spec: GroupedQueryAttentionSpec,
  epsilon: number,
  precision: CachePrecision,
): KernelSource {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = spec;
  const hasNorm = spec.qkNorm && !spec.jointNorm;
  const buffers = declareBuffers([
    read('rows', 'Row'),
    read('pages', 'u32'),
    read('angles', 'vec2f'),
    read('key'),
    read('value'),
    ...(hasNorm ? [read('norms')] : []),
    write('query'),
    write('key_cache', 'u32'),
    write('value_cache', 'u32'),
  ]);
  const threads = Math.min(64, headDim);
  const value = 'vec4f(rotated[4u * quad], rotated[4u * quad + 1u], rotated[4u * quad + 2u], rotated[4u * quad + 3u])';
  const writeRow = (cache: string) =>
    writeCacheRow(cache, precision, cacheRowOf(spec), { row: 'place', value, threads });
  const code = /* wgsl */ `
${rowStruct}
${buffers.code}
var<workgroup> head: array<f32, ${headDim}>;
var<workgroup> rotated: array<f32, ${headDim}>;
${rotationCode(spec.rope.layout, spec.rope.dimensions)}${queryFactorCode(spec)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let token = group.y;
  let is_query = group.x < ${heads}u;
  let is_value = group.x >= ${heads + kvHeads}u;
  let kv_head = (group.x - ${heads}u) % ${kvHeads}u;
  for (var i = thread; i < ${headDim}u; i += ${threads}u) {
    if (is_query) { head[i] = query[(token * ${heads}u + group.x) * ${headDim}u + i]; }
    else if (is_value) { head[i] = value[(token * ${kvHeads}u + kv_head) * ${headDim}u + i]; }
    else { head[i] = key[(token * ${kvHeads}u + kv_head) * ${headDim}u + i]; }
  }
  workgroupBarrier();
  ${hasNorm ? normCode(headDim, threads, epsilon) : ''}
  for (var i = thread; i < ${headDim}u; i += ${threads}u) {
    if (is_value) { rotated[i] = head[i]; } else { rotated[i] = rotate(i, token); }
  }
  workgroupBarrier();
  let row = rows[token];
  let page = pages[row.table + row.position / ${pageTokens}u];
  let place = (page * ${kvHeads}u + kv_head) * ${pageTokens}u + row.position % ${pageTokens}u;
  if (is_query) {
    for (var i = thread; i < ${headDim}u; i += ${threads}u) { query[(token * ${heads}u + group.x) * ${headDim}u + i] = rotated[i]${spec.queryTemperature ? ' * query_factor(token)' : ''}; }
  }
  else if (is_value) ${writeRow('value_cache')}
  else ${writeRow('key_cache')}
}
`;
  return { label: `prepareHeads ${heads}/${kvHeads}x${headDim}`, code, bindings: buffers.bindings };
}

/** Every thread sums the squares of the whole head: heads are short, and this needs no barrier. */
function normCode(headDim: number, threads: number, epsilon: number): string {
  return /* wgsl */ `
  var squares = 0.0;
  for (var i = 0u; i < ${headDim}u; i++) { squares += head[i] * head[i]; }
  let scale = inverseSqrt(squares / ${headDim}.0 + ${epsilon});
  workgroupBarrier();
  if (!is_value) {
    for (var i = thread; i < ${headDim}u; i += ${threads}u) { head[i] *= scale * norms[select(${headDim}u, 0u, is_query) + i]; }
  }
  workgroupBarrier();`;
}

const threads = 64;

/**
 * RMS norm over all query heads of a token together, and over all key heads (MiniMax-M2).
 *
 * Bindings: norms `[heads · headDim + kvHeads · headDim]` vec4f (query's, key's); query `[tokens, heads · headDim]`, key
 * `[tokens, kvHeads · headDim]` vec4f (write, in place). Workgroup: 64 threads; a token's queries, or its keys; groups: 2 in x,
 * tokens in y. Needs no features; uses subgroups. Must equal `rmsNorm` of backend/reference.
 */
export function jointNormKernel(
  spec: GroupedQueryAttentionSpec,
  epsilon: number,
  capabilities: GpuCapabilities,
): KernelSource {
  const widths = qkNormWidths(spec);
  const buffers = declareBuffers([read('norms', 'vec4f'), write('query', 'vec4f'), write('key', 'vec4f')]);
  const normalise = (name: 'query' | 'key', width: number, firstGain: number) => /* wgsl */ `
fn normalise_${name}(token: u32, thread: u32) {
  let first = token * ${width / 4}u;
  var squares = vec4f();
  for (var i = thread; i < ${width / 4}u; i += ${threads}u) { squares += ${name}[first + i] * ${name}[first + i]; }
  reduce(thread, squares);
  let scale = inverseSqrt(dot(totals[0], vec4f(1.0)) / ${width}.0 + ${epsilon});
  for (var i = thread; i < ${width / 4}u; i += ${threads}u) { ${name}[first + i] *= norms[${firstGain / 4}u + i] * scale; }
}`;
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${reductionCode(1, threads, capabilities)}
${normalise('query', widths[0], 0)}
${normalise('key', widths[1], widths[0])}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (group.x == 0u) { normalise_query(group.y, thread); } else { normalise_key(group.y, thread); }
}
`;
  return { label: `jointNorm ${widths[0]}+${widths[1]}`, code, bindings: buffers.bindings };
}

/**
 * Prepares latent attention: splits query heads into the part without position, which the key expansion uses, and the
 * rotated part; normalises the latent, rotates its key, and writes both to the cache.
 *
 * Bindings: rows (Row), pages u32, angles `[tokens, pairs]` vec2f (as for prepareHeads), query
 * `[tokens, heads, nope + rope]` vec4f, latent `[tokens, rank + rope]` vec4f, gain `[rank]` vec4f; nope_query
 * `[tokens, heads, nope]` vec4f, rope_query `[tokens, heads, rope]`, cache u32 in pages `[32 tokens, rank + rope]` (write).
 * Workgroup: 64 threads; one head of one token, or its latent; groups: heads + 1 in x, tokens in y. Needs no features; uses
 * subgroups. Must equal `latentAttention` of backend/reference up to its scores.
 */
export function prepareLatentKernel(
  spec: LatentAttentionSpec,
  precision: CachePrecision,
  capabilities: GpuCapabilities,
): KernelSource {
  const { numAttentionHeads: heads, keyValueRank: rank, nopeHeadDim: nope, ropeHeadDim: rope } = spec;
  const { normEpsilon: epsilon } = spec;
  const buffers = declareBuffers([
    read('rows', 'Row'),
    read('pages', 'u32'),
    read('angles', 'vec2f'),
    read('query', 'vec4f'),
    read('latent', 'vec4f'),
    read('gain', 'vec4f'),
    write('nope_query', 'vec4f'),
    write('rope_query'),
    write('cache', 'u32'),
  ]);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${rowStruct}
${buffers.code}
// The rotated part of a query, or of the key.
var<workgroup> head: array<f32, ${rope}>;
${rotationCode(spec.rope.layout, spec.rope.dimensions)}
${reductionCode(1, threads, capabilities)}
fn hold(quad: u32, value: vec4f) {
  head[4u * quad] = value.x; head[4u * quad + 1u] = value.y; head[4u * quad + 2u] = value.z; head[4u * quad + 3u] = value.w;
}
fn prepare_query(index: u32, token: u32, thread: u32) {
  let start = index * ${(nope + rope) / 4}u;
  for (var quad = thread; quad < ${nope / 4}u; quad += ${threads}u) { nope_query[index * ${nope / 4}u + quad] = query[start + quad]; }
  for (var quad = thread; quad < ${rope / 4}u; quad += ${threads}u) { hold(quad, query[start + ${nope / 4}u + quad]); }
  workgroupBarrier();
  for (var i = thread; i < ${rope}u; i += ${threads}u) { rope_query[index * ${rope}u + i] = rotate(i, token); }
}
fn cached(quad: u32, start: u32, token: u32, scale: f32) -> vec4f {
  if (quad < ${rank / 4}u) { return latent[start + quad] * gain[quad] * scale; }
  let i = 4u * (quad - ${rank / 4}u);
  return vec4f(rotate(i, token), rotate(i + 1u, token), rotate(i + 2u, token), rotate(i + 3u, token));
}
fn prepare_key(token: u32, thread: u32) {
  let start = token * ${(rank + rope) / 4}u;
  let row = rows[token];
  let page = pages[row.table + row.position / ${pageTokens}u];
  let place = page * ${pageTokens}u + row.position % ${pageTokens}u;
  for (var quad = thread; quad < ${rope / 4}u; quad += ${threads}u) { hold(quad, latent[start + ${rank / 4}u + quad]); }
  var squares = vec4f();
  for (var quad = thread; quad < ${rank / 4}u; quad += ${threads}u) { squares += latent[start + quad] * latent[start + quad]; }
  reduce(thread, squares);
  let scale = inverseSqrt(dot(totals[0], vec4f(1.0)) / ${rank}.0 + ${epsilon});
  ${writeCacheRow('cache', precision, cacheRowOf(spec), { row: 'place', value: 'cached(quad, start, token, scale)', threads })}
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (group.x < ${heads}u) { prepare_query(group.y * ${heads}u + group.x, group.y, thread); } else { prepare_key(group.y, thread); }
}
`;
  return { label: `prepareLatent ${heads}x${nope}+${rope} ${rank}`, code, bindings: buffers.bindings };
}
