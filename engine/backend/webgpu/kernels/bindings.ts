/** Declares a kernel's storage buffers in order, so that the WGSL and the bind group layout cannot disagree. */
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
