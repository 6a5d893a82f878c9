/**
 * The (token, slot) visits of a prompt sorted by expert, and the tiles that `expertTiles` computes: up to `tileTokens` visits
 * of one expert each. Within an expert the order is that of chance, which no result depends on.
 *
 * Bindings: chosen `[tokens, topK]` u32, params { tokens } (uniform); grouping u32 (write): number of tiles, three unused,
 * tiles `[mostTiles]` of { expert, first, count, unused }, order `[tokens · topK]` of visits (token · topK + slot).
 * Workgroup: 256 threads; groups: one. Needs no features.
 */
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

export interface Grouping {
  readonly numExperts: number;
  readonly topK: number;
  /** At most a tile's. */
  readonly tileTokens: number;
  /** That the buffer is made for. */
  readonly maxTokens: number;
}

const headWords = 4;
const tileWords = 4;
const threads = 256;

/** Tiles of `tokens` at most, however they spread over experts: the second size of `expertTiles`' dispatch. */
export function mostTiles({ numExperts, topK, tileTokens }: Grouping, tokens: number): number {
  const visits = tokens * topK;
  return Math.floor(visits / tileTokens) + Math.min(numExperts, visits);
}

/** WGSL to read a `grouping`. */
export function groupingCode(grouping: Grouping): string {
  return /* wgsl */ `
const FIRST_TILE = ${headWords}u;
const FIRST_VISIT = ${headWords + tileWords * mostTiles(grouping, grouping.maxTokens)}u;`;
}

export function groupingBytes(grouping: Grouping): number {
  const { maxTokens, topK } = grouping;
  return 4 * (headWords + tileWords * mostTiles(grouping, maxTokens) + maxTokens * topK);
}

export function groupExpertsKernel(grouping: Grouping): KernelSource {
  const { numExperts, topK, tileTokens } = grouping;
  const buffers = declareBuffers([
    read('chosen', 'u32'),
    { name: 'params', type: 'Params', kind: 'uniform' },
    write('grouping', 'u32'),
  ]);
  const code = /* wgsl */ `
struct Params { tokens: u32, unused0: u32, unused1: u32, unused2: u32 }
${buffers.code}
${groupingCode(grouping)}
var<workgroup> visits: array<atomic<u32>, ${numExperts}>;
var<workgroup> count: array<u32, ${numExperts}>;
fn write_tiles(expert: u32) {
  var first = 0u;
  var tile = 0u;
  for (var other = 0u; other < expert; other++) {
    first += count[other];
    tile += (count[other] + ${tileTokens - 1}u) / ${tileTokens}u;
  }
  for (var done = 0u; done < count[expert]; done += ${tileTokens}u) {
    let at = FIRST_TILE + 4u * tile;
    grouping[at] = expert;
    grouping[at + 1u] = first + done;
    grouping[at + 2u] = min(count[expert] - done, ${tileTokens}u);
    grouping[at + 3u] = 0u;
    tile++;
  }
  if (expert == ${numExperts - 1}u) { grouping[0] = tile; }
  // From here on: where the expert's next visit goes.
  atomicStore(&visits[expert], first);
}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) thread: u32) {
  let all = params.tokens * ${topK}u;
  for (var expert = thread; expert < ${numExperts}u; expert += ${threads}u) { atomicStore(&visits[expert], 0u); }
  workgroupBarrier();
  for (var visit = thread; visit < all; visit += ${threads}u) { atomicAdd(&visits[chosen[visit]], 1u); }
  workgroupBarrier();
  for (var expert = thread; expert < ${numExperts}u; expert += ${threads}u) { count[expert] = atomicLoad(&visits[expert]); }
  workgroupBarrier();
  for (var expert = thread; expert < ${numExperts}u; expert += ${threads}u) { write_tiles(expert); }
  workgroupBarrier();
  for (var visit = thread; visit < all; visit += ${threads}u) {
    grouping[FIRST_VISIT + atomicAdd(&visits[chosen[visit]], 1u)] = visit;
  }
}
`;
  return { label: `groupExperts ${topK} of ${numExperts} by ${tileTokens}`, code, bindings: buffers.bindings };
}
