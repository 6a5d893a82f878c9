/**
 * Causal attention over cached pages by online softmax (FlashAttention; Dao et al. 2022): grouped queries with sinks and
 * windows, and latent attention in absorbed form, where all heads share one key of `keyDim` values whose first `valueDim` are
 * the value.
 *
 * Bindings: rows (Row), pages u32, tiles vec2u (first row, rows; one sequence each), query `[tokens, heads · valueDim]`, rope_query?
 * `[tokens, heads · (keyDim − valueDim)]` (latent), keys u32, values? u32, sinks? `[heads]`;
 * out (write): `[tokens, heads · valueDim]`, or with `splits` > 1 the parts that `attentionMerge` joins:
 * `[splits, tokens, heads, valueDim + 4]` (unnormalised sum, then maximum and weight).
 * Workgroup: `queries` tokens by `headsPerTile` heads that share a key; groups: head tiles in x, token tiles in y, splits of the
 * keys in z. Needs nothing. Must equal `groupedQueryAttention` and `latentAttention` of backend/reference.
 */

import { type CacheRow, cacheRowOf } from '../../../model/spec/cachePrecision.ts';
import type { AttentionSpec } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/engineProtocol.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { pageTokens, readCache, rowStruct } from './cacheCode.ts';

const threads = 128;

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly latent: boolean;
  readonly cacheRow: CacheRow;
  readonly sinks: boolean;
  readonly slidingWindow?: number;
  readonly softmaxScale: number;
}

export function attentionShape(spec: AttentionSpec): AttentionShape {
  if (spec.kind === 'latent') {
    const { numAttentionHeads, keyValueRank, ropeHeadDim, softmaxScale } = spec;
    const keyDim = keyValueRank + ropeHeadDim;
    return {
      heads: numAttentionHeads,
      kvHeads: 1,
      keyDim,
      valueDim: keyValueRank,
      latent: true,
      cacheRow: cacheRowOf(spec),
      sinks: false,
      softmaxScale,
    };
  }
  const { numAttentionHeads, numKeyValueHeads, headDim, sinks, slidingWindow, softmaxScale } = spec;
  return {
    heads: numAttentionHeads,
    kvHeads: numKeyValueHeads,
    keyDim: headDim,
    valueDim: headDim,
    latent: false,
    cacheRow: cacheRowOf(spec),
    sinks,
    ...(slidingWindow === undefined ? {} : { slidingWindow }),
    softmaxScale,
  };
}

export interface AttentionTile {
  readonly headsPerTile: number;
  /** Query tokens of one sequence that share the keys a workgroup loads. */
  readonly queries: number;
  /** Keys loaded at once. */
  readonly keys: number;
}

/** Largest tile within 16 rows and 28 KiB of workgroup memory. */
export function attentionTile({ heads, kvHeads, keyDim }: AttentionShape, tokens: number): AttentionTile {
  const rows = keyDim > 128 ? 4 : 16;
  const group = heads / kvHeads;
  const headsPerTile = largestDivisor(group, rows);
  return {
    headsPerTile,
    queries: Math.max(1, Math.min(tokens, Math.floor(rows / headsPerTile))),
    keys: keyDim > 128 ? 8 : 16,
  };
}

function largestDivisor(value: number, most: number): number {
  let divisor = Math.min(value, most);
  while (value % divisor !== 0) divisor--;
  return divisor;
}

const rowsOf = ({ headsPerTile, queries }: AttentionTile): number => headsPerTile * queries;

export function attentionKernel(
  shape: AttentionShape,
  tile: AttentionTile,
  splits: number,
  precision: CachePrecision,
): KernelSource {
  const { heads, kvHeads, keyDim, valueDim, latent } = shape;
  const m = rowsOf(tile);
  const tilesPerKey = heads / kvHeads / tile.headsPerTile;
  const sums = Math.ceil((m * valueDim) / 4 / threads);
  const sumIndices = Array.from({ length: sums }, (_, i) => i);
  const keyQuads = keyDim / 4;
  const valueQuads = valueDim / 4;
  const buffers = declareBuffers([
    read('rows', 'Row'),
    read('pages', 'u32'),
    read('tiles', 'vec2u'),
    read('query', 'vec4f'),
    ...(latent ? [read('rope_query', 'vec4f')] : []),
    read('keys', 'u32'),
    ...(latent ? [] : [read('values', 'u32')]),
    ...(shape.sinks && splits === 1 ? [read('sinks')] : []),
    write('out', 'vec4f'),
  ]);
  const code = /* wgsl */ `
${rowStruct}
${buffers.code}
const M = ${m}u;
const KEYS = ${tile.keys}u;
var<workgroup> q: array<vec4f, ${m * keyQuads}>;
var<workgroup> block: array<vec4f, ${tile.keys * Math.max(keyQuads, valueQuads)}>;
var<workgroup> scores: array<f32, ${m * tile.keys}>;
var<workgroup> maximum: array<f32, ${m}>;
var<workgroup> weight: array<f32, ${m}>;
var<workgroup> rescale: array<f32, ${m}>;
${readCache('keys', precision, shape.cacheRow)}
${latent ? '' : readCache('values', precision, shape.cacheRow)}
fn row_of(i: u32, tile: vec2u) -> u32 { return tile.x + i / ${tile.headsPerTile}u; }
${accumulateCode(shape, tile.keys)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tile = tiles[group.y];
  let kv_head = group.x / ${tilesPerKey}u;
  let first_head = group.x * ${tile.headsPerTile}u;
${queryCode(shape, tile)}
  if (thread < M) { maximum[thread] = -3.0e38; weight[thread] = 0.0; }
  let first_position = rows[tile.x].position;
  let table = rows[tile.x].table;
  let last = first_position + tile.y;
  let oldest = ${shape.slidingWindow === undefined ? '0u' : `max(first_position + 1u, ${shape.slidingWindow}u) - ${shape.slidingWindow}u`};
  // Splits share the visible blocks evenly; a split without any leaves its maximum at the lowest value.
  let first_block = oldest / KEYS;
  let blocks = (last + KEYS - 1u) / KEYS - first_block;
  let each = (blocks + groups.z - 1u) / groups.z;
  let end_block = first_block + min((group.z + 1u) * each, blocks);
  ${sumIndices.map((i) => `var sum${i} = vec4f();`).join(' ')}
  for (var b = first_block + group.z * each; b < end_block; b++) {
${blockCode(shape, tile)}
    ${sumIndices.map((i) => `sum${i} = accumulate(thread + ${i * threads}u, sum${i});`).join('\n    ')}
  }
  workgroupBarrier();
  ${sumIndices.map((i) => `finish(thread + ${i * threads}u, sum${i}, tile, first_head, group.z);`).join('\n  ')}
}
${storeCode(shape, tile, splits)}
`;
  return { label: `attention ${heads}/${kvHeads}x${keyDim} s${splits}`, code, bindings: buffers.bindings };
}

/** The tile's queries, one row a query and head. */
function queryCode({ heads, keyDim, valueDim, latent }: AttentionShape, tile: AttentionTile): string {
  const [keyQuads, valueQuads] = [keyDim / 4, valueDim / 4];
  return /* wgsl */ `  for (var i = thread; i < ${rowsOf(tile) * keyQuads}u; i += ${threads}u) {
    let r = i / ${keyQuads}u;
    let quad = i % ${keyQuads}u;
    let row = min(row_of(r, tile), tile.x + tile.y - 1u);
    let head = row * ${heads}u + first_head + r % ${tile.headsPerTile}u;
    ${latent ? `if (quad >= ${valueQuads}u) { q[i] = rope_query[head * ${keyQuads - valueQuads}u + quad - ${valueQuads}u]; } else { q[i] = query[head * ${valueQuads}u + quad]; }` : `q[i] = query[head * ${keyQuads}u + quad];`}
  }`;
}

/** A block of keys, its scores, their weights, and the values in the keys' place; a latent is both. */
function blockCode({ kvHeads, keyDim, valueDim, latent, ...shape }: AttentionShape, tile: AttentionTile): string {
  const [keyQuads, valueQuads] = [keyDim / 4, valueDim / 4];
  return /* wgsl */ `    let start = b * KEYS;
    let page = pages[table + start / ${pageTokens}u];
    let at = (page * ${kvHeads}u + kv_head) * ${pageTokens}u + start % ${pageTokens}u;
    workgroupBarrier();
    for (var i = thread; i < ${tile.keys * keyQuads}u; i += ${threads}u) { block[i] = read_keys(at + i / ${keyQuads}u, i % ${keyQuads}u); }
    workgroupBarrier();
    for (var i = thread; i < M * KEYS; i += ${threads}u) {
      let r = i / KEYS;
      let position = start + i % KEYS;
      let own = rows[min(row_of(r, tile), tile.x + tile.y - 1u)].position;
      var score = vec4f();
      for (var quad = 0u; quad < ${keyQuads}u; quad++) { score += q[r * ${keyQuads}u + quad] * block[(i % KEYS) * ${keyQuads}u + quad]; }
      let visible = position <= own${shape.slidingWindow === undefined ? '' : ` && position + ${shape.slidingWindow}u > own`};
      scores[i] = select(-3.0e38, dot(score, vec4f(1.0)) * ${shape.softmaxScale}, visible);
    }
    workgroupBarrier();
    if (thread < M) { fold(thread); }
    ${
      latent
        ? ''
        : `workgroupBarrier();
    for (var i = thread; i < ${tile.keys * valueQuads}u; i += ${threads}u) { block[i] = read_values(at + i / ${valueQuads}u, i % ${valueQuads}u); }`
    }
    workgroupBarrier();`;
}

/** Online softmax of one row's block of scores, and the weighted sum of its values. */
function accumulateCode({ keyDim, valueDim, latent }: AttentionShape, keys: number): string {
  const quads = valueDim / 4;
  const stride = latent ? keyDim / 4 : quads;
  return /* wgsl */ `
fn fold(r: u32) {
  var highest = maximum[r];
  for (var k = 0u; k < KEYS; k++) { highest = max(highest, scores[r * KEYS + k]); }
  let factor = exp(maximum[r] - highest);
  var total = weight[r] * factor;
  for (var k = 0u; k < KEYS; k++) {
    let score = scores[r * KEYS + k];
    let p = select(0.0, exp(score - highest), score > -1.0e38);
    scores[r * KEYS + k] = p;
    total += p;
  }
  maximum[r] = highest;
  weight[r] = total;
  rescale[r] = factor;
}
fn accumulate(i: u32, sum: vec4f) -> vec4f {
  let r = min(i / ${quads}u, M - 1u);
  let quad = i % ${quads}u;
  var result = sum * rescale[r];
  for (var k = 0u; k < ${keys}u; k++) { result += scores[r * KEYS + k] * block[k * ${stride}u + quad]; }
  return result;
}`;
}

/** Writes one vec4f of the output, normalised with the sink's share, or as a part for the merge. */
function storeCode({ heads, valueDim, sinks }: AttentionShape, tile: AttentionTile, splits: number): string {
  const quads = valueDim / 4;
  const divide = sinks
    ? /* wgsl */ `
  let sink = sinks[first_head + r % ${tile.headsPerTile}u];
  let highest = max(maximum[r], sink);
  let factor = exp(maximum[r] - highest);
  out[head * ${quads}u + quad] = sum * factor / (weight[r] * factor + exp(sink - highest));`
    : `out[head * ${quads}u + quad] = sum / weight[r];`;
  const part = /* wgsl */ `
  let at = (split * parts_stride() + head) * ${quads + 1}u;
  out[at + quad] = sum;
  if (quad == 0u) { out[at + ${quads}u] = vec4f(maximum[r], weight[r], 0.0, 0.0); }`;
  return /* wgsl */ `
fn parts_stride() -> u32 { return arrayLength(&out) / ${splits * (quads + 1)}u; }
fn finish(i: u32, sum: vec4f, tile: vec2u, first_head: u32, split: u32) {
  let r = i / ${quads}u;
  let quad = i % ${quads}u;
  let row = row_of(r, tile);
  if (r >= M || row >= tile.x + tile.y) { return; }
  let head = row * ${heads}u + first_head + r % ${tile.headsPerTile}u;
  ${splits > 1 ? part : divide}
}`;
}

/**
 * Joins the parts of split attention: Σ part · exp(max − highest) / Σ weight · exp(max − highest), the sink's share included.
 * Bindings: parts `[splits, tokens, heads, valueDim + 4]` vec4f, sinks? `[heads]`; out `[tokens, heads · valueDim]` vec4f (write).
 * Workgroup: 64 threads a head; groups: heads in x, tokens in y.
 */
export function attentionMergeKernel({ heads, valueDim, sinks }: AttentionShape, splits: number): KernelSource {
  const quads = valueDim / 4;
  const buffers = declareBuffers([read('parts', 'vec4f'), ...(sinks ? [read('sinks')] : []), write('out', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.y * ${heads}u + group.x;
  let stride = arrayLength(&parts) / ${splits * (quads + 1)}u;
  var highest = ${sinks ? 'sinks[group.x]' : '-3.0e38'};
  for (var s = 0u; s < ${splits}u; s++) { highest = max(highest, parts[(s * stride + head) * ${quads + 1}u + ${quads}u].x); }
  var total = ${sinks ? 'exp(sinks[group.x] - highest)' : '0.0'};
  for (var s = 0u; s < ${splits}u; s++) {
    let part = parts[(s * stride + head) * ${quads + 1}u + ${quads}u];
    total += part.y * exp(part.x - highest);
  }
  for (var quad = thread; quad < ${quads}u; quad += 64u) {
    var sum = vec4f();
    for (var s = 0u; s < ${splits}u; s++) {
      let at = (s * stride + head) * ${quads + 1}u;
      sum += parts[at + quad] * exp(parts[at + ${quads}u].x - highest);
    }
    out[head * ${quads}u + quad] = sum / total;
  }
}
`;
  return { label: `attentionMerge ${heads}x${valueDim} s${splits}`, code, bindings: buffers.bindings };
}
