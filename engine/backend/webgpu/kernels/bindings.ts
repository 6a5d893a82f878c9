/** Declares a kernel's storage buffers in order, so that the WGSL and the bind group layout cannot disagree. */

import type { GpuCapabilities } from '../device/adapter.ts';
import type { BindingKind } from '../device/gpu.ts';

export interface BufferDeclaration {
  readonly name: string;
  /** WGSL element type of a runtime array, or for uniforms the struct's name. */
  readonly type: string;
  readonly kind: BindingKind;
}

export const read = (name: string, type = 'f32'): BufferDeclaration => ({ name, type, kind: 'read' });
export const write = (name: string, type = 'f32'): BufferDeclaration => ({ name, type, kind: 'write' });

const access = { read: 'storage, read', write: 'storage, read_write', uniform: 'uniform' } as const;

export function declareBuffers(buffers: readonly BufferDeclaration[]): { code: string; bindings: BindingKind[] } {
  const lines = buffers.map(({ name, type, kind }, binding) => {
    const wgslType = kind === 'uniform' ? type : `array<${type}>`;
    return `@group(0) @binding(${binding}) var<${access[kind]}> ${name}: ${wgslType};`;
  });
  return { code: lines.join('\n'), bindings: buffers.map(({ kind }) => kind) };
}

/** The threads' accesses to workgroup memory in a kernel's inner loop; `npm run test:kernels` counts bank conflicts. */
export interface SharedAccess {
  readonly name: string;
  /** Byte offset at which a thread reads 16 bytes. */
  readonly address: (thread: number) => number;
}

// Sums over a workgroup: with subgroups if the adapter has them, otherwise through workgroup memory.

/**
 * WGSL `fn reduce(thread, s0, s1, …)` of `count` vec4f: afterwards `totals[i]` is Σ over all `threads` of `si`, seen by every
 * thread. Separate values, not an array: compilers keep them in registers.
 * Workgroup memory: `count · (threads / smallest subgroup + 1)` vec4f, or `threads + count` without subgroups.
 */
export function reductionCode(count: number, threads: number, capabilities: GpuCapabilities): string {
  const names = Array.from({ length: count }, (_, i) => `s${i}`);
  const body = capabilities.subgroups
    ? bySubgroups(names, threads, Math.min(capabilities.subgroups.min, threads))
    : byMemory(names, threads);
  return /* wgsl */ `
var<workgroup> totals: array<vec4f, ${count}>;
${body.declare}
fn reduce(thread: u32, ${names.map((name) => `${name}: vec4f`).join(', ')}) {
${body.code}
}`;
}

function bySubgroups(names: readonly string[], threads: number, smallest: number): { declare: string; code: string } {
  const count = names.length;
  const slots = threads / smallest;
  // Core WGSL has no subgroup id, so the slot is that of the subgroup's first thread; larger subgroups leave gaps.
  return {
    declare: `var<workgroup> partial: array<vec4f, ${slots * count}>;`,
    code: /* wgsl */ `
  for (var i = thread; i < ${slots * count}u; i += ${threads}u) { partial[i] = vec4f(); }
  workgroupBarrier();
  let leader = subgroupBroadcastFirst(thread);
  let slot = (leader / ${smallest}u) * ${count}u;
${names.map((name, i) => `  let sum_${name} = subgroupAdd(${name}); if (thread == leader) { partial[slot + ${i}u] = sum_${name}; }`).join('\n')}
  workgroupBarrier();
  for (var i = thread; i < ${count}u; i += ${threads}u) {
    var total = vec4f();
    for (var s = 0u; s < ${slots}u; s++) { total += partial[s * ${count}u + i]; }
    totals[i] = total;
  }
  workgroupBarrier();`,
  };
}

function byMemory(names: readonly string[], threads: number): { declare: string; code: string } {
  return {
    declare: `var<workgroup> partial: array<vec4f, ${threads}>;
fn reduce_one(thread: u32, value: vec4f, slot: u32) {
  partial[thread] = value;
  workgroupBarrier();
  for (var step = ${threads / 2}u; step > 0u; step /= 2u) {
    if (thread < step) { partial[thread] += partial[thread + step]; }
    workgroupBarrier();
  }
  if (thread == 0u) { totals[slot] = partial[0]; }
  workgroupBarrier();
}`,
    code: names.map((name, i) => `  reduce_one(thread, ${name}, ${i}u);`).join('\n'),
  };
}

/** The `enable` line that reductions need. */
export const subgroupsEnable = (capabilities: GpuCapabilities): string =>
  capabilities.subgroups ? 'enable subgroups;' : '';
