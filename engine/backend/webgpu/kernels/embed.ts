/**
 * h[t, column] = scale · E[id of row t, column]: the embedding rows of a batch.
 *
 * Bindings: weight, rows (Row), h `[tokens, hidden]` vec4f (write). Workgroup: 64 threads a token; groups: tokens in x.
 * A matrix in pieces is one dispatch a piece, each serving the ids it holds. Needs no features. Must equal the reference's
 * embedding look-up.
 */

import type { MatrixLayout } from '../decoder/weightLayout.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';
import { rowStruct } from './cacheCode.ts';
import { type BlockScaleShape, unitCode, weightCode } from './weightCode.ts';

export interface EmbedOptions {
  readonly firstRow?: number;
  readonly blockScale?: BlockScaleShape | undefined;
  readonly scale?: number | undefined;
}

export function embedKernel(layout: MatrixLayout, options: EmbedOptions = {}): KernelSource {
  const { firstRow = 0, blockScale, scale } = options;
  const factor = scale === undefined ? '' : `${scale} * `;
  const buffers = declareBuffers([read('weight', 'u32'), read('rows', 'Row'), write('h', 'vec4f')]);
  const code = /* wgsl */ `
${rowStruct}
${buffers.code}
${unitCode}
${weightCode('weight', layout, blockScale)}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let id = rows[group.x].id;
  if (id < ${firstRow}u || id >= ${firstRow + layout.rows}u) { return; }
  for (var unit = thread; unit < ${layout.columns / 8}u; unit += 64u) {
    let w = weight_unit(id - ${firstRow}u, unit);
    let columns = weight_columns(unit);
    h[group.x * ${layout.columns / 4}u + columns.x] = ${factor}w.a;
    h[group.x * ${layout.columns / 4}u + columns.y] = ${factor}w.b;
  }
}
`;
  return { label: `embed ${layout.type} ${layout.rows}x${layout.columns}`, code, bindings: buffers.bindings };
}
