/**
 * y[visit, row] = Σ x[column] · W[expert of visit, row, column] (+ bias[expert, row]) for the visits of a prompt, an expert's
 * together in tiles: gate and up of x `[tokens, columns]`, down of x `[tokens, topK, columns]`.
 *
 * Bindings: weight (of a stack of experts), x vec4f, bias? `[experts, rows]`, grouping u32 (of groupExperts); y
 * `[tokens, topK, rows]` (write). A stack in pieces is one dispatch a piece, each serving the experts it holds.
 * Workgroup: 256 threads give one tile of rows by visits; groups: rows in x, tiles in y, of which those that are not there
 * end at once. Needs nothing. Must equal `linear` of backend/reference.
 */
import type { KernelSource } from '../gpu.ts';
import { type BlockScaleShape, unitCode, weightCode } from '../weightCode.ts';
import type { MatrixLayout } from '../weightLayout.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { type Grouping, groupingCode, mostTiles } from './groupExperts.ts';
import { productTile, tileLoop } from './matrixMatrix.ts';

export interface ExpertTilesShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** Row of the stack that this piece starts with; whole experts. */
  readonly firstRow: number;
  /** Rows of one expert. */
  readonly rows: number;
  readonly bias: boolean;
  /** Whether x has a row a token, or a row a visit. */
  readonly input: 'tokens' | 'visits';
  readonly grouping: Grouping;
}

const threads = 256;

export function expertTilesKernel(shape: ExpertTilesShape): KernelSource {
  const { layout, rows, grouping } = shape;
  const firstExpert = shape.firstRow / rows;
  const endExpert = firstExpert + layout.rows / rows;
  const { tokens: tileTokens, rows: tileRows } = productTile(layout.type);
  if (grouping.tileTokens > tileTokens) throw new Error(`a tile of ${layout.type} has ${tileTokens} tokens`);
  const buffers = declareBuffers([
    read('weight', 'u32'),
    read('x', 'vec4f'),
    ...(shape.bias ? [read('bias')] : []),
    read('grouping', 'u32'),
    write('y'),
  ]);
  const xRow = shape.input === 'tokens' ? `(visits[t] / ${grouping.topK}u)` : 'visits[t]';
  const tile = tileLoop(
    layout.type,
    `(expert - ${firstExpert}u) * ROWS + min(first_row + r, ROWS - 1u)`,
    `${xRow} * (weight_COLUMNS / 4u)`,
    'count',
  );
  const store = Array.from({ length: tileRows / 16 }, (_, r) => {
    const bias = shape.bias ? ' + bias[expert * ROWS + row]' : '';
    return `{ let row = first_row + ${16 * r}u; if (row < ROWS) { y[visits[t] * ROWS + row] = sum[${r}]${bias}; } }`;
  });
  const code = /* wgsl */ `
${buffers.code}
${unitCode}
${weightCode('weight', layout, shape.blockScale)}
${groupingCode(grouping)}
const ROWS = ${rows}u;
var<workgroup> visits: array<u32, ${tileTokens}>;
${tile.declare}
fn store(first_row: u32, expert: u32, t: u32, sum: vec4f) {
  ${store.join('\n  ')}
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (group.y >= grouping[0]) { return; }
  let expert = grouping[FIRST_TILE + 4u * group.y];
  if (expert < ${firstExpert}u || expert >= ${endExpert}u) { return; }
  let first_visit = FIRST_VISIT + grouping[FIRST_TILE + 4u * group.y + 1u];
  let count = grouping[FIRST_TILE + 4u * group.y + 2u];
  for (var t = thread; t < count; t += ${threads}u) { visits[t] = grouping[first_visit + t]; }
  workgroupBarrier();
  let first_row = group.x * TILE_ROWS;
  ${tile.loop}
  ${Array.from({ length: tileTokens / 16 }, (_, t) => `if (ty + ${16 * t}u < count) { store(first_row + tx, expert, ty + ${16 * t}u, sum${t}); }`).join('\n  ')}
}
`;
  return {
    label: `expertTiles ${layout.type} ${rows}x${layout.columns} ${shape.input}`,
    code,
    bindings: buffers.bindings,
  };
}

export const expertTilesGroups = (
  { layout, rows, grouping }: ExpertTilesShape,
  tokens: number,
): readonly [number, number] => [Math.ceil(rows / productTile(layout.type).rows), mostTiles(grouping, tokens)];
