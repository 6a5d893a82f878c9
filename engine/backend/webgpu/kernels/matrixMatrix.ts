/**
 * y[t, row] (+)= Σ x[t, column] · W[row, column] (+ bias[row]) for many rows of x: prompts, in plain f32 tiles, the floor
 * that every adapter has.
 *
 * Bindings: weight, x vec4f, bias? f32, params { tokens } (uniform); y `[tokens, outputRows]` f32 (write).
 * Workgroup: 256 threads give one tile of `tile.rows` output rows by `tile.tokens` tokens; groups: rows in x, tokens in y.
 * Needs nothing. Must equal `linear` of backend/reference.
 */

import type { TensorType } from '../../../formats/tensor.ts';
import type { KernelSource } from '../gpu.ts';
import { unitCode, unitSpan, weightCode } from '../weightCode.ts';
import { declareBuffers, read, write } from './bindings.ts';
import type { ProductShape } from './matrixVector.ts';

/** Tiles whose values and weights stay within 16 KiB and 8 KiB of workgroup memory. */
export function productTile(type: TensorType): {
  readonly rows: number;
  readonly tokens: number;
  readonly columns: number;
} {
  const columns = unitSpan(type);
  return { columns, rows: columns === 128 ? 32 : 64, tokens: columns === 32 ? 64 : 2048 / columns };
}

/** Of any type's tile. */
export const fewestTileTokens = 16;

const threads = 256;

/** The loop over tiles of columns, shared with the grouped experts' kernel: fills `sum0`, `sum1`, … with each thread's tokens (16 apart), four rows (16 apart) each. */
export function tileLoop(
  type: TensorType,
  weightRow: string,
  xStart: string,
  xCount: string,
): { declare: string; loop: string } {
  const { rows, tokens, columns } = productTile(type);
  const xQuads = (tokens * columns) / 4;
  const units = (rows * columns) / 8;
  const tokensEach = Array.from({ length: tokens / 16 }, (_, t) => t);
  return {
    declare: /* wgsl */ `
const TILE_ROWS = ${rows}u;
const TILE_TOKENS = ${tokens}u;
const ROWS_EACH = ${rows / 16}u;
var<workgroup> tile_w: array<vec4f, ${(rows * columns) / 4}>;
var<workgroup> tile_x: array<vec4f, ${xQuads}>;`,
    loop: /* wgsl */ `
  ${tokensEach.map((t) => `var sum${t} = vec4f();`).join(' ')}
  let tx = thread % 16u;
  let ty = thread / 16u;
  for (var first = 0u; first < weight_COLUMNS; first += ${columns}u) {
    for (var i = thread; i < ${xQuads}u; i += ${threads}u) {
      let t = i / ${columns / 4}u;
      let quad = first / 4u + i % ${columns / 4}u;
      var value = vec4f();
      if (t < ${xCount} && quad < weight_COLUMNS / 4u) { value = x[${xStart} + quad]; }
      tile_x[i] = value;
    }
    for (var i = thread; i < ${units}u; i += ${threads}u) {
      let r = i / ${columns / 8}u;
      let unit = first / 8u + i % ${columns / 8}u;
      let at = weight_columns(i % ${columns / 8}u);
      var w = Unit(vec4f(), vec4f());
      if (unit < weight_COLUMNS / 8u) { w = weight_unit(${weightRow}, unit); }
      tile_w[r * ${columns / 4}u + at.x] = w.a;
      tile_w[r * ${columns / 4}u + at.y] = w.b;
    }
    workgroupBarrier();
    for (var quad = 0u; quad < ${columns / 4}u; quad++) {
      ${[0, 1, 2, 3].map((r) => `let w${r} = ${r < rows / 16 ? `tile_w[(tx + ${16 * r}u) * ${columns / 4}u + quad]` : 'vec4f()'};`).join('\n      ')}
      ${tokensEach.map((t) => `{ let v = tile_x[(ty + ${16 * t}u) * ${columns / 4}u + quad]; sum${t} += vec4f(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v)); }`).join('\n      ')}
    }
    workgroupBarrier();
  }`,
  };
}

export function matrixMatrixKernel(shape: ProductShape): KernelSource {
  const { layout, rowsPerHead } = shape;
  const heads = rowsPerHead ? layout.rows / rowsPerHead : 1;
  const buffers = declareBuffers([
    read('weight', 'u32'),
    read('x', 'vec4f'),
    ...(shape.bias ? [read('bias')] : []),
    { name: 'params', type: 'Params', kind: 'uniform' },
    write('y'),
  ]);
  // A tile of rows lies within one head, so that it multiplies one stretch of x.
  const rowTiles = rowsPerHead ? Math.ceil(rowsPerHead / productTile(layout.type).rows) : 0;
  const rowStart = rowsPerHead
    ? `let head = group.x / ${rowTiles}u; let first_row = head * ${rowsPerHead}u + (group.x % ${rowTiles}u) * TILE_ROWS; let end_row = (head + 1u) * ${rowsPerHead}u;`
    : 'let head = 0u; let first_row = group.x * TILE_ROWS; let end_row = ROWS;';
  const tile = tileLoop(
    layout.type,
    'min(first_row + r, ROWS - 1u)',
    `(first_token + t) * X_WIDTH + head * (weight_COLUMNS / 4u)`,
    'params.tokens - first_token',
  );
  const code = /* wgsl */ `
struct Params { tokens: u32, unused0: u32, unused1: u32, unused2: u32 }
${buffers.code}
${unitCode}
${weightCode('weight', layout, shape.blockScale)}
const ROWS = ${layout.rows}u;
const FIRST_ROW = ${shape.firstRow ?? 0}u;
const OUTPUT_ROWS = ${shape.outputRows ?? layout.rows}u;
const X_WIDTH = ${(heads * layout.columns) / 4}u;
${tile.declare}
fn store(first_row: u32, end_row: u32, token: u32, sum: vec4f) {
  if (token >= params.tokens) { return; }
  for (var r = 0u; r < ROWS_EACH; r++) {
    let row = first_row + 16u * r;
    if (row >= end_row) { continue; }
    let at = token * OUTPUT_ROWS + FIRST_ROW + row;
    y[at] = sum[r] ${shape.bias ? '+ bias[FIRST_ROW + row]' : ''} ${shape.accumulate ? '+ y[at]' : ''};
  }
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  ${rowStart}
  let first_token = group.y * TILE_TOKENS;
  ${tile.loop}
  ${Array.from({ length: productTile(layout.type).tokens / 16 }, (_, t) => `store(first_row + tx, end_row, first_token + ty + ${16 * t}u, sum${t});`).join('\n  ')}
}
`;
  return { label: `matrixMatrix ${layout.type} ${layout.rows}x${layout.columns}`, code, bindings: buffers.bindings };
}

/** Workgroups for `tokens` rows of x. */
export function matrixMatrixGroups(shape: ProductShape, tokens: number): [number, number] {
  const tile = productTile(shape.layout.type);
  const { rowsPerHead, layout } = shape;
  const rowTiles = rowsPerHead
    ? (layout.rows / rowsPerHead) * Math.ceil(rowsPerHead / tile.rows)
    : Math.ceil(layout.rows / tile.rows);
  return [rowTiles, Math.ceil(tokens / tile.tokens)];
}
