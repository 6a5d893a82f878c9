/**
 * y[m, row] = Σ x[m, column] · W[row, column] (+ bias) for 1 to 16 rows of x: decode, small batches, draft verification.
 *
 * Bindings: weight (read, u32 words in `MatrixLayout`), x `[m, columns]` f32 as vec4 (read), y `[m, rows]` f32 (write).
 * Workgroup: `threads`, which share the columns of `rowsPerGroup` output rows. Needs nothing; uses subgroups when they
 * are there. Must equal `linear` of backend/reference.
 */
import type { GpuCapabilities } from '../adapter.ts';
import type { KernelSource } from '../gpu.ts';
import { type BlockScaleShape, weightCode } from '../weightCode.ts';
import type { MatrixLayout } from '../weightLayout.ts';

export interface MatrixVectorShape {
  readonly layout: MatrixLayout;
  readonly blockScale?: BlockScaleShape;
  /** Rows of x, 1 to 16. */
  readonly tokens: number;
}

export const rowsPerGroup = 4;
const threads = 64;

export function matrixVectorKernel(shape: MatrixVectorShape, capabilities: GpuCapabilities): KernelSource {
  const { layout, tokens } = shape;
  const sums = rowsPerGroup * tokens;
  const code = /* wgsl */ `
${capabilities.subgroups ? 'enable subgroups;' : ''}
@group(0) @binding(0) var<storage, read> weight: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
${weightCode(layout, shape.blockScale)}
const ROWS = ${layout.rows}u;
const UNITS = ${layout.columns / 8}u;
${reduction(sums, threads, capabilities)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first_row = (group.y * groups.x + group.x) * ${rowsPerGroup}u;
  var sum: array<f32, ${sums}>;
  for (var unit = thread; unit < UNITS; unit += ${threads}u) {
    let columns = unit_columns(unit);
    for (var r = 0u; r < ${rowsPerGroup}u; r++) {
      let w = weight_unit(min(first_row + r, ROWS - 1u), unit);
      for (var m = 0u; m < ${tokens}u; m++) {
        let at = m * (COLUMNS / 4u);
        sum[r * ${tokens}u + m] += dot(w.a, x[at + columns.x]) + dot(w.b, x[at + columns.y]);
      }
    }
  }
  reduce(&sum, thread);
  if (thread < ${sums}u) {
    let row = first_row + thread / ${tokens}u;
    if (row < ROWS) { y[(thread % ${tokens}u) * ROWS + row] = totals[thread]; }
  }
}
`;
  return {
    label: `matrixVector ${layout.type} ${layout.rows}x${layout.columns}x${tokens}`,
    code,
    bindings: ['read', 'read', 'write'],
  };
}

/** Sums `count` values over the workgroup's threads into `totals`, by subgroups where there are any. */
export function reduction(count: number, threads: number, capabilities: GpuCapabilities): string {
  if (capabilities.subgroups) {
    const most = Math.ceil(threads / capabilities.subgroups.min);
    return /* wgsl */ `
var<workgroup> partial: array<f32, ${most * count}>;
var<workgroup> totals: array<f32, ${count}>;
fn reduce(sum: ptr<function, array<f32, ${count}>>, thread: u32) {
  for (var i = thread; i < ${most * count}u; i += ${threads}u) { partial[i] = 0.0; }
  workgroupBarrier();
  // Subgroup ids are not in WGSL's core; a subgroup's first thread claims its slot by its own index.
  for (var i = 0u; i < ${count}u; i++) {
    let value = subgroupAdd((*sum)[i]);
    let leader = subgroupBroadcastFirst(thread);
    if (thread == leader) { partial[(leader / ${capabilities.subgroups.min}u) * ${count}u + i] = value; }
  }
  workgroupBarrier();
  for (var i = thread; i < ${count}u; i += ${threads}u) {
    var total = 0.0;
    for (var s = 0u; s < ${most}u; s++) { total += partial[s * ${count}u + i]; }
    totals[i] = total;
  }
  workgroupBarrier();
}`;
  }
  return /* wgsl */ `
var<workgroup> partial: array<f32, ${threads}>;
var<workgroup> totals: array<f32, ${count}>;
fn reduce(sum: ptr<function, array<f32, ${count}>>, thread: u32) {
  for (var i = 0u; i < ${count}u; i++) {
    partial[thread] = (*sum)[i];
    workgroupBarrier();
    for (var step = ${threads / 2}u; step > 0u; step /= 2u) {
      if (thread < step) { partial[thread] += partial[thread + step]; }
      workgroupBarrier();
    }
    if (thread == 0u) { totals[i] = partial[0]; }
    workgroupBarrier();
  }
}`;
}
