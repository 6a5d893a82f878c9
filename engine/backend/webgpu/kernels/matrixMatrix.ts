/**
 * y[t, row] (+)= Σ x[t, column] · W[row, column] (+ bias[row]) for many rows of x: prompts, in tiles.
 *
 * Bindings: weight, x (as `tileCode` says), bias? f32, params { tokens } (uniform); y `[tokens, outputRows]` f32 (write).
 * Workgroup: 256 threads give one tile of output rows by tokens; groups: rows in x, tokens in y.
 * Needs no features; uses subgroup matrices. Must equal `linear` of backend/reference.
 */
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { tileRows, tileThreads, tileTokens } from './matrixTiles.ts';
import { type ProductShape, widthOfX } from './matrixVector.ts';
import { tileCode } from './tiles.ts';
import { unitCode, weightCode } from './weightCode.ts';

export function matrixMatrixKernel(shape: ProductShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, rowsPerHead, firstRow = 0 } = shape;
  const tile = tileCode(
    layout.type,
    {
      weightRow: `min(first_row + r, ${layout.rows - 1}u)`,
      xRow: '(first_token + t)',
      xWidth: widthOfX(shape),
      xOffset: `(${rowsPerHead ? firstRow / rowsPerHead : 0}u + head) * (weight_COLUMNS / 4u)`,
      count: '(params.tokens - first_token)',
      store: `let row = first_row + r; if (row < end_row) { let at = (first_token + t) * ${shape.outputRows ?? layout.rows}u + ${firstRow}u + row; y[at] = value ${shape.bias ? `+ bias[${firstRow}u + row]` : ''} ${shape.accumulate ? '+ y[at]' : ''}; }`,
    },
    capabilities,
  );
  const buffers = declareBuffers([
    read('weight', 'u32'),
    ...tile.x,
    ...(shape.bias ? [read('bias')] : []),
    { name: 'params', type: 'Params', kind: 'uniform' },
    write('y'),
  ]);
  // A tile of rows is within one head, so that it multiplies one range of x.
  const rowTiles = rowsPerHead ? Math.ceil(rowsPerHead / tileRows) : 0;
  const rowStart = rowsPerHead
    ? `let head = group.x / ${rowTiles}u; let first_row = head * ${rowsPerHead}u + (group.x % ${rowTiles}u) * ${tileRows}u; let end_row = (head + 1u) * ${rowsPerHead}u;`
    : `let head = 0u; let first_row = group.x * ${tileRows}u; let end_row = ${layout.rows}u;`;
  const code = /* wgsl */ `
${tile.enables}
struct Params { tokens: u32, unused0: u32, unused1: u32, unused2: u32 }
${buffers.code}
${unitCode}
${weightCode('weight', layout, shape.blockScale)}
${tile.declarations}
@compute @workgroup_size(${tileThreads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32${tile.builtins}) {
  ${rowStart}
  let first_token = group.y * ${tileTokens}u;
  ${tile.body}
}
`;
  return { label: `matrixMatrix ${layout.type} ${layout.rows}x${layout.columns}`, code, bindings: buffers.bindings };
}

/** Workgroups for `tokens` rows of x. */
export function matrixMatrixGroups({ layout, rowsPerHead }: ProductShape, tokens: number): [number, number] {
  const rowTiles = rowsPerHead
    ? (layout.rows / rowsPerHead) * Math.ceil(rowsPerHead / tileRows)
    : Math.ceil(layout.rows / tileRows);
  return [rowTiles, Math.ceil(tokens / tileTokens)];
}
