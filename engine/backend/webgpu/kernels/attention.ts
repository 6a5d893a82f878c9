/**
 * Causal attention over cached pages by online softmax (FlashAttention; Dao et al. 2022): grouped queries with sinks and
 * windows, and latent attention in absorbed form, where all heads share one key of `keyDim` values whose first `valueDim` are
 * the value.
 *
 * Bindings: rows (Row), pages u32, tiles vec2u (first row, rows; one sequence each), query `[tokens, heads · valueDim]`, rope_query?
 * `[tokens, heads · (keyDim − valueDim)]` (latent), keys u32, values? u32, sinks? `[heads]`;
 * out (write): `[tokens, heads · valueDim]`, or with `splits` > 1 the parts that `attentionMerge` joins:
 * `[splits, tokens, heads, valueDim + 4]` (unnormalised sum, then maximum, weight and how many splits were used).
 * Workgroup: `queries` tokens by `headsPerTile` heads that share a key; groups: head tiles in x, token tiles in y, splits of the
 * keys in z, of which a short context uses only a few. Needs no features. Must equal `groupedQueryAttention` and `latentAttention` of
 * backend/reference.
 *
 * Keys are loaded into workgroup memory in blocks, each fetched while the previous one is computed; values replace the keys.
 */

import { type CachedAttentionSpec, type CacheRow, cacheRowOf } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, type SharedAccess, write } from './bindings.ts';
import { type CacheReader, cacheReader, pageTokens, rowStruct } from './cacheCode.ts';

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

export function attentionShape(spec: CachedAttentionSpec): AttentionShape {
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
  /** Keys loaded at once; divides a page. */
  readonly keys: number;
}

/** Bytes of workgroup memory; every GPU has 32 KiB. */
const mostBytes = 31 * 1024;

/** At most 16 rows, or 4 with wide keys, and as many keys as fit in the remaining memory. */
export function attentionTile(shape: AttentionShape, tokens: number): AttentionTile {
  const rows = shape.keyDim > 128 ? 4 : 16;
  const headsPerTile = largestDivisor(shape.heads / shape.kvHeads, rows);
  const queries = Math.max(1, Math.min(tokens, Math.floor(rows / headsPerTile)));
  const keys = [32, 16, 8].find((count) => workgroupBytes(shape, headsPerTile * queries, count) <= mostBytes) ?? 4;
  return { headsPerTile, queries, keys };
}

export function largestDivisor(value: number, most: number): number {
  let divisor = Math.min(value, most);
  while (value % divisor !== 0) divisor--;
  return divisor;
}

/** Rows in workgroup memory are padded by one vec4; otherwise all would start in the same bank. */
const padded = (quads: number): number => quads + 1;

function workgroupBytes({ keyDim }: AttentionShape, rows: number, keys: number): number {
  return 16 * (rows + keys) * padded(keyDim / 4) + 8 * rows * keys + 12 * rows;
}

const rowsOf = ({ headsPerTile, queries }: AttentionTile): number => headsPerTile * queries;

/** A thread for each sum of four values, within limits. */
export const threadsOf = ({ valueDim }: AttentionShape, tile: AttentionTile): number =>
  (rowsOf(tile) * valueDim) / 4 > 128 ? 256 : 128;

/**
 * Workgroups that fill a large GPU, which has 132 to 170 cores with several workgroups each. Smaller GPUs may be tuned
 * to fewer.
 */
const wantedGroups = 512;
const [fewestSplits, mostSplits] = [8, 64];

/** Workgroups that share the keys of a head when `rows` rows are decoded. A window has few keys: one workgroup reads them. */
export function attentionSplits(shape: AttentionShape, rows: number, wanted = wantedGroups): number {
  if (shape.slidingWindow !== undefined) return 1;
  const groups = (shape.heads / attentionTile(shape, rows).headsPerTile) * rows;
  const splits = 2 ** Math.ceil(Math.log2(wanted / groups));
  return Math.min(mostSplits, Math.max(fewestSplits, splits));
}

/** Fewest blocks of keys for a separate workgroup. */
const leastBlocks = 2;

export function attentionKernel(
  shape: AttentionShape,
  tile: AttentionTile,
  splits: number,
  precision: CachePrecision,
): KernelSource {
  const { heads, kvHeads, keyDim, valueDim, latent } = shape;
  const [m, threads, keyQuads] = [rowsOf(tile), threadsOf(shape, tile), keyDim / 4];
  const sums = Array.from({ length: Math.ceil((m * valueDim) / 4 / threads) }, (_, i) => i);
  const keys = cacheReader('keys', precision, shape.cacheRow);
  const values = latent ? undefined : cacheReader('values', precision, shape.cacheRow);
  const buffers = declareBuffers([
    read('rows', 'Row'),
    read('pages', 'u32'),
    read('tiles', 'vec2u'),
    read('query', 'vec4f'),
    ...(latent ? [read('rope_query', 'vec4f')] : []),
    read('keys', keys.element),
    ...(values ? [read('values', values.element)] : []),
    ...(shape.sinks && splits === 1 ? [read('sinks')] : []),
    write('out', 'vec4f'),
  ]);
  const staged = { tile, threads, stride: padded(keyQuads) };
  const keyItems = stage('keys', keys, keyDim, staged);
  const valueItems = values && stage('values', values, valueDim, staged);
  const code = /* wgsl */ `
${rowStruct}
${buffers.code}
const M = ${m}u;
const KEYS = ${tile.keys}u;
var<workgroup> q: array<vec4f, ${m * padded(keyQuads)}>;
var<workgroup> block: array<vec4f, ${tile.keys * padded(keyQuads)}>;
var<workgroup> scores: array<vec4f, ${(m * tile.keys) / 4}>;
var<workgroup> shares: array<vec4f, ${(m * tile.keys) / 4}>;
// Alternates between the blocks so far and those including this one.
var<workgroup> maximum: array<f32, ${2 * m}>;
var<workgroup> rescale: array<f32, ${m}>;
${keys.code}
${values ? values.code : ''}
fn row_of(i: u32, tile: vec2u) -> u32 { return tile.x + i / ${tile.headsPerTile}u; }
${shareCode(threads)}
${accumulateCode(shape)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tile = tiles[group.y];
  let kv_head = group.x / ${heads / kvHeads / tile.headsPerTile}u;
  let first_head = group.x * ${tile.headsPerTile}u;
${queryCode(shape, tile, threads)}
  if (thread < M) { maximum[thread] = -3.0e38; }
  let first_position = rows[tile.x].position;
  let table = rows[tile.x].table;
  let last = first_position + tile.y;
  let oldest = ${shape.slidingWindow === undefined ? '0u' : `max(first_position + 1u, ${shape.slidingWindow}u) - ${shape.slidingWindow}u`};
  // Splits share the visible blocks evenly.
  let first_block = oldest / KEYS;
  let blocks = (last + KEYS - 1u) / KEYS - first_block;
  let used = clamp(blocks / ${leastBlocks}u, 1u, ${splits}u);
  if (group.z >= used) { return; }
  let each = (blocks + used - 1u) / used;
  let begin = first_block + min(group.z * each, blocks);
  let end = first_block + min((group.z + 1u) * each, blocks);
  ${sums.map((i) => `var sum${i} = vec4f(); var weight${i} = 0.0;`).join(' ')}
  var turn = 0u;
  ${keyItems.declare}
  if (begin < end) { let at = place(begin, table, kv_head); ${keyItems.fetch} }
  for (var b = begin; b < end; b++) {
    let start = b * KEYS;
    let at = place(b, table, kv_head);
    ${valueItems ? `${valueItems.declare} ${valueItems.fetch}` : ''}
    workgroupBarrier();
    ${keyItems.store}
    workgroupBarrier();
${scoreCode(shape, threads)}
    workgroupBarrier();
    share(thread, turn);
    ${valueItems ? valueItems.store : ''}
    turn = M - turn;
    workgroupBarrier();
    if (b + 1u < end) { let at = place(b + 1u, table, kv_head); ${keyItems.fetch} }
    ${sums.map((i) => `{ let next = accumulate(thread + ${i * threads}u, sum${i}, weight${i}); sum${i} = next.sum; weight${i} = next.weight; }`).join('\n    ')}
  }
  workgroupBarrier();
  ${sums.map((i) => `finish(thread + ${i * threads}u, sum${i}, weight${i}, turn, tile, first_head, group.z, used);`).join('\n  ')}
}
${placeCode(kvHeads)}
${storeCode(shape, tile, splits)}
`;
  return {
    label: `attention ${heads}/${kvHeads}x${keyDim} s${splits}`,
    code,
    bindings: buffers.bindings,
    multipliesPerStep: (m * tile.keys * (keyDim + valueDim)) / threads,
  };
}

/** The first row of the cache with a block of `KEYS` keys. */
export const placeCode = (kvHeads: number): string => /* wgsl */ `
fn place(block: u32, table: u32, kv_head: u32) -> u32 {
  let page = pages[table + block * KEYS / ${pageTokens}u];
  return (page * ${kvHeads}u + kv_head) * ${pageTokens}u + (block * KEYS) % ${pageTokens}u;
}`;

/** Reads of the loops over a key's values, and over a block's keys. */
export function attentionAccesses({ keyDim, valueDim }: AttentionShape, { keys }: AttentionTile): SharedAccess[] {
  const [stride, valueQuads] = [16 * padded(keyDim / 4), valueDim / 4];
  return [
    { name: 'keys', address: (thread) => (thread % keys) * stride },
    { name: 'queries', address: (thread) => Math.floor(thread / keys) * stride },
    { name: 'values', address: (thread) => 16 * (thread % valueQuads) },
  ];
}

interface Staged {
  readonly tile: AttentionTile;
  readonly threads: number;
  readonly stride: number;
}

/** WGSL for a block of cache rows: declarations, fetching from row `at` on, storing in `block`. */
function stage(name: string, reader: CacheReader, width: number, { tile, threads, stride }: Staged) {
  const each = width / 4 / reader.quads;
  const count = tile.keys * each;
  const items = Array.from({ length: Math.ceil(count / threads) }, (_, i) => ({
    name: `${name}_item${i}`,
    index: `(thread + ${i * threads}u)`,
    guard: (i + 1) * threads > count ? `if (thread + ${i * threads}u < ${count}u) ` : '',
  }));
  const quads = Array.from({ length: reader.quads }, (_, i) => i);
  return {
    declare: items.map((item) => `var ${item.name}: ${reader.item};`).join(' '),
    fetch: items
      .map(
        (item) =>
          `${item.guard}{ ${item.name} = fetch_${name}(at + ${item.index} / ${each}u, ${item.index} % ${each}u); }`,
      )
      .join(' '),
    store: items
      .map((item) => {
        const at = `let to = (${item.index} / ${each}u) * ${stride}u + ${reader.quads}u * (${item.index} % ${each}u);`;
        const stores = quads.map((quad) => `block[to + ${quad}u] = ${reader.quad(item.name, quad)};`);
        return `${item.guard}{ ${at} ${stores.join(' ')} }`;
      })
      .join('\n    '),
  };
}

/** The tile's queries, one row a query and head. */
function queryCode({ heads, keyDim, valueDim, latent }: AttentionShape, tile: AttentionTile, threads: number): string {
  const [keyQuads, valueQuads] = [keyDim / 4, valueDim / 4];
  const value = latent
    ? `if (quad >= ${valueQuads}u) { q[at] = rope_query[head * ${keyQuads - valueQuads}u + quad - ${valueQuads}u]; } else { q[at] = query[head * ${valueQuads}u + quad]; }`
    : `q[at] = query[head * ${keyQuads}u + quad];`;
  return /* wgsl */ `  for (var i = thread; i < ${rowsOf(tile) * keyQuads}u; i += ${threads}u) {
    let r = i / ${keyQuads}u;
    let quad = i % ${keyQuads}u;
    let row = min(row_of(r, tile), tile.x + tile.y - 1u);
    let head = row * ${heads}u + first_head + r % ${tile.headsPerTile}u;
    let at = r * ${padded(keyQuads)}u + quad;
    ${value}
  }`;
}

/** Scores of the block's keys; the lowest value for masked ones. */
function scoreCode({ keyDim, ...shape }: AttentionShape, threads: number): string {
  const quads = keyDim / 4;
  return /* wgsl */ `    for (var i = thread; i < M * KEYS; i += ${threads}u) {
      let r = i / KEYS;
      let position = start + i % KEYS;
      let own = rows[min(row_of(r, tile), tile.x + tile.y - 1u)].position;
      var score = vec4f();
      for (var quad = 0u; quad < ${quads}u; quad++) { score += q[r * ${padded(quads)}u + quad] * block[(i % KEYS) * ${padded(quads)}u + quad]; }
      let visible = position <= own${shape.slidingWindow === undefined ? '' : ` && position + ${shape.slidingWindow}u > own`};
      scores[i / 4u][i % 4u] = select(-3.0e38, dot(score, vec4f(1.0)) * ${shape.softmaxScale}, visible);
    }`;
}

/** Online softmax: the weight of each key's value, and the factor for earlier sums; every thread finds its row's maximum. */
const shareCode = (threads: number): string => /* wgsl */ `
fn share(thread: u32, turn: u32) {
  for (var i = thread; i < M * KEYS; i += ${threads}u) {
    let r = i / KEYS;
    var most = scores[r * (KEYS / 4u)];
    for (var k = 1u; k < KEYS / 4u; k++) { most = max(most, scores[r * (KEYS / 4u) + k]); }
    let before = maximum[turn + r];
    let highest = max(before, max(max(most.x, most.y), max(most.z, most.w)));
    let score = scores[i / 4u][i % 4u];
    shares[i / 4u][i % 4u] = select(0.0, exp(score - highest), score > -1.0e38);
    if (i % KEYS == 0u) {
      maximum[(M - turn) + r] = highest;
      rescale[r] = exp(before - highest);
    }
  }
}`;

/** Four values of a row's weighted sum, and the sum of the weights. */
function accumulateCode({ keyDim, valueDim }: AttentionShape): string {
  const quads = valueDim / 4;
  return /* wgsl */ `
struct Sum { sum: vec4f, weight: f32 }
fn accumulate(i: u32, sum: vec4f, weight: f32) -> Sum {
  let r = min(i / ${quads}u, M - 1u);
  let quad = i % ${quads}u;
  let factor = rescale[r];
  var result = sum * factor;
  var total = vec4f();
  for (var k = 0u; k < KEYS / 4u; k++) {
    let p = shares[r * (KEYS / 4u) + k];
    total += p;
    ${[0, 1, 2, 3].map((i) => `result += p[${i}] * block[(4u * k + ${i}u) * ${padded(keyDim / 4)}u + quad];`).join('\n    ')}
  }
  return Sum(result, weight * factor + dot(total, vec4f(1.0)));
}`;
}

/** Writes one vec4f of the output, normalised including the sink, or as a partial result for the merge. */
function storeCode({ heads, valueDim, sinks }: AttentionShape, tile: AttentionTile, splits: number): string {
  const quads = valueDim / 4;
  const divide = sinks
    ? /* wgsl */ `
  let sink = sinks[first_head + r % ${tile.headsPerTile}u];
  let highest = max(maximum[turn + r], sink);
  let factor = exp(maximum[turn + r] - highest);
  out[head * ${quads}u + quad] = sum * factor / (weight * factor + exp(sink - highest));`
    : `out[head * ${quads}u + quad] = sum / weight;`;
  const part = /* wgsl */ `
  let at = (split * (arrayLength(&out) / ${splits * (quads + 1)}u) + head) * ${quads + 1}u;
  out[at + quad] = sum;
  if (quad == 0u) { out[at + ${quads}u] = vec4f(maximum[turn + r], weight, f32(used), 0.0); }`;
  return /* wgsl */ `
fn finish(i: u32, sum: vec4f, weight: f32, turn: u32, tile: vec2u, first_head: u32, split: u32, used: u32) {
  let r = i / ${quads}u;
  let quad = i % ${quads}u;
  let row = row_of(r, tile);
  if (r >= M || row >= tile.x + tile.y) { return; }
  let head = row * ${heads}u + first_head + r % ${tile.headsPerTile}u;
  ${splits > 1 ? part : divide}
}`;
}

// The second half of split attention.

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
  let used = u32(parts[head * ${quads + 1}u + ${quads}u].z);
  var highest = ${sinks ? 'sinks[group.x]' : '-3.0e38'};
  for (var s = 0u; s < used; s++) { highest = max(highest, parts[(s * stride + head) * ${quads + 1}u + ${quads}u].x); }
  var total = ${sinks ? 'exp(sinks[group.x] - highest)' : '0.0'};
  for (var s = 0u; s < used; s++) {
    let part = parts[(s * stride + head) * ${quads + 1}u + ${quads}u];
    total += part.y * exp(part.x - highest);
  }
  for (var quad = thread; quad < ${quads}u; quad += 64u) {
    var sum = vec4f();
    for (var s = 0u; s < used; s++) {
      let at = (s * stride + head) * ${quads + 1}u;
      sum += parts[at + quad] * exp(parts[at + ${quads}u].x - highest);
    }
    out[head * ${quads}u + quad] = sum / total;
  }
}
`;
  return { label: `attentionMerge ${heads}x${valueDim} s${splits}`, code, bindings: buffers.bindings };
}
