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

import { cacheRowOf, type LatentAttentionSpec } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/engineProtocol.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { pageTokens, rowStruct, writeCacheRow } from './cacheCode.ts';
import { rotationCode } from './prepareHeads.ts';

const threads = 64;

export function prepareLatentKernel(
  spec: LatentAttentionSpec,
  epsilon: number,
  precision: CachePrecision,
  capabilities: GpuCapabilities,
): KernelSource {
  const { numAttentionHeads: heads, keyValueRank: rank, nopeHeadDim: nope, ropeHeadDim: rope } = spec;
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
