/** The chosen experts of a prompt: its visits are grouped by expert, multiplied in tiles, and summed for each token. */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { tileCode, tileRows, tileThreads, tileTokens } from './matrixTiles.ts';
import { type BlockScaleShape, unitCode, weightCode } from './weightCode.ts';

export interface Grouping {
  readonly numExperts: number;
  readonly topK: number;
  /** At most a tile's. */
  readonly tileTokens: number;
  /** Number of tokens that the buffer is made for. */
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

/**
 * The (token, slot) visits of a prompt sorted by expert, and the tiles that `expertTiles` computes: up to `tileTokens`
 * visits of one expert each. The order within an expert is arbitrary; no result depends on it.
 *
 * Bindings: chosen `[tokens, topK]` u32, params { tokens } (uniform); grouping u32 (write): number of tiles, three unused,
 * tiles `[mostTiles]` of { expert, first, count, unused }, order `[tokens · topK]` of visits (token · topK + slot).
 * Workgroup: 256 threads; groups: one. Needs no features.
 */
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
  // From here on: the position of the expert's next visit.
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

export interface ExpertTilesShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** First row of the stack in this piece, which has whole experts. */
  readonly firstRow: number;
  /** Rows of one expert. */
  readonly rows: number;
  readonly bias: boolean;
  /** Whether x has a row for each token or for each visit. */
  readonly input: 'tokens' | 'visits';
  readonly grouping: Grouping;
}

/**
 * y[visit, row] = Σ x[column] · W[expert of visit, row, column] (+ bias[expert, row]) for the visits (token, slot) of a prompt,
 * grouped by expert into tiles: gate and up of x `[tokens, columns]`, down of x `[tokens, topK, columns]`.
 *
 * Bindings: weight (of a stack of experts), x (as `tileCode` says), bias? `[experts, rows]`, grouping u32 (of groupExperts); y
 * `[tokens, topK, rows]` (write). A stack in pieces is one dispatch a piece, each serving the experts it holds.
 * Workgroup: 256 threads give one tile of rows by visits; groups: rows in x, tiles in y, unused tiles
 * return at once. Needs no features; uses subgroup matrices. Must equal `linear` of backend/reference.
 */
export function expertTilesKernel(shape: ExpertTilesShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, rows, grouping } = shape;
  const firstExpert = shape.firstRow / rows;
  const endExpert = firstExpert + layout.rows / rows;
  const tokens = Math.max(tileTokens, grouping.tileTokens);
  const tile = tileCode(
    layout.type,
    {
      weightRow: `((expert - ${firstExpert}u) * ${rows}u + min(first_row + r, ${rows - 1}u))`,
      xRow: shape.input === 'tokens' ? `(visits[t] / ${grouping.topK}u)` : 'visits[t]',
      tokens,
      columns: layout.columns,
      xWidth: layout.columns,
      xOffset: '0u',
      count: 'count',
      store: `let row = first_row + r; if (row < ${rows}u) { y[visits[t] * ${rows}u + row] = value ${shape.bias ? `+ bias[expert * ${rows}u + row]` : ''}; }`,
    },
    capabilities,
  );
  const buffers = declareBuffers([
    read('weight', 'u32'),
    ...tile.x,
    ...(shape.bias ? [read('bias')] : []),
    read('grouping', 'u32'),
    write('y'),
  ]);
  const code = /* wgsl */ `
${tile.enables}
${buffers.code}
${unitCode}
${weightCode('weight', layout, shape.blockScale)}
${groupingCode(grouping)}
var<workgroup> visits: array<u32, ${tokens}>;
${tile.declarations}
@compute @workgroup_size(${tileThreads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32${tile.builtins}) {
  if (group.y >= grouping[0]) { return; }
  let expert = grouping[FIRST_TILE + 4u * group.y];
  if (expert < ${firstExpert}u || expert >= ${endExpert}u) { return; }
  let first_visit = FIRST_VISIT + grouping[FIRST_TILE + 4u * group.y + 1u];
  let count = grouping[FIRST_TILE + 4u * group.y + 2u];
  for (var t = thread; t < count; t += ${tileThreads}u) { visits[t] = grouping[first_visit + t]; }
  workgroupBarrier();
  let first_row = group.x * ${tileRows}u;
  ${tile.body}
}
`;
  return {
    label: `expertTiles ${layout.type} ${rows}x${layout.columns} ${shape.input}`,
    code,
    bindings: buffers.bindings,
    multipliesPerStep: tile.multipliesPerStep,
  };
}

export const expertTilesGroups = ({ rows, grouping }: ExpertTilesShape, tokens: number): readonly [number, number] => [
  Math.ceil(rows / tileRows),
  mostTiles(grouping, tokens),
];

/**
 * y[t] (+)= Σ over slots of weight · x[t, slot]: adds the outputs of a prompt's experts to the residual stream.
 *
 * Bindings: x `[tokens, topK, width]` vec4f, weights `[tokens, topK]`, y `[tokens, width]` vec4f (write). Workgroup: 64
 * threads, four values each; groups: width in x, tokens in y. Needs no features. Must equal the sum in `expertNetworks` of
 * backend/reference.
 */
export function combineExpertsKernel(width: number, topK: number, accumulate: boolean): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('x', 'vec4f'), read('weights'), write('y', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${quads}u) { return; }
  var sum = ${accumulate ? `y[at.y * ${quads}u + at.x]` : 'vec4f()'};
  for (var visit = at.y * ${topK}u; visit < (at.y + 1u) * ${topK}u; visit++) { sum += weights[visit] * x[visit * ${quads}u + at.x]; }
  y[at.y * ${quads}u + at.x] = sum;
}
`;
  return { label: `combineExperts ${topK}x${width}`, code, bindings: buffers.bindings };
}

export const combineExpertsGroups = (width: number, tokens: number): [number, number] => [
  Math.ceil(width / 256),
  tokens,
];
