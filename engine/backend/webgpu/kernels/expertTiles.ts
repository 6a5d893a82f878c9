/**
 * y[visit, row] = Σ x[column] · W[expert of visit, row, column] (+ bias[expert, row]) for the visits (token, slot) of a prompt,
 * grouped by expert into tiles: gate and up of x `[tokens, columns]`, down of x `[tokens, topK, columns]`.
 *
 * Bindings: weight (of a stack of experts), x (as `tileCode` says), bias? `[experts, rows]`, grouping u32 (of groupExperts); y
 * `[tokens, topK, rows]` (write). A stack in pieces is one dispatch a piece, each serving the experts it holds.
 * Workgroup: 256 threads give one tile of rows by visits; groups: rows in x, tiles in y, unused tiles
 * return at once. Needs no features; uses subgroup matrices. Must equal `linear` of backend/reference.
 */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { type Grouping, groupingCode, mostTiles } from './groupExperts.ts';
import { tileRows, tileThreads, tileTokens } from './matrixTiles.ts';
import { tileCode } from './tiles.ts';
import { type BlockScaleShape, unitCode, weightCode } from './weightCode.ts';

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

export function expertTilesKernel(shape: ExpertTilesShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, rows, grouping } = shape;
  const firstExpert = shape.firstRow / rows;
  const endExpert = firstExpert + layout.rows / rows;
  if (grouping.tileTokens > tileTokens) throw new Error(`a tile has ${tileTokens} tokens`);
  const tile = tileCode(
    layout.type,
    {
      weightRow: `((expert - ${firstExpert}u) * ${rows}u + min(first_row + r, ${rows - 1}u))`,
      xRow: shape.input === 'tokens' ? `(visits[t] / ${grouping.topK}u)` : 'visits[t]',
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
var<workgroup> visits: array<u32, ${tileTokens}>;
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
  };
}

export const expertTilesGroups = ({ rows, grouping }: ExpertTilesShape, tokens: number): readonly [number, number] => [
  Math.ceil(rows / tileRows),
  mostTiles(grouping, tokens),
];
