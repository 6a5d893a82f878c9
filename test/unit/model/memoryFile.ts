/** A tensor file that tests build in memory. */
import { invalidInput, notFound } from '../../../engine/errors.ts';
import type { TensorFile, TensorInfo, TensorType } from '../../../engine/formats/tensor.ts';
import { byteLengthOf } from '../../../engine/formats/tensor.ts';

export interface MemoryTensor {
  readonly type: TensorType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export class MemoryFile implements TensorFile {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly contents: ReadonlyMap<string, MemoryTensor>;
  closed = false;

  constructor(contents: ReadonlyMap<string, MemoryTensor>) {
    this.contents = contents;
    this.tensors = new Map(
      [...contents].map(([name, { type, shape }]) => [
        name,
        { name, type, shape, byteLength: byteLengthOf(type, shape) },
      ]),
    );
  }

  async read(name: string, byteOffset = 0, byteLength?: number): Promise<Uint8Array> {
    const bytes = this.contents.get(name)?.bytes;
    if (!bytes) throw notFound(name);
    const end = byteOffset + (byteLength ?? bytes.length - byteOffset);
    if (byteOffset < 0 || end > bytes.length) throw invalidInput(`${name}: ${byteOffset} to ${end} of ${bytes.length}`);
    return bytes.slice(byteOffset, end);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

export function floats(shape: readonly number[], values: ArrayLike<number>): MemoryTensor {
  return { type: 'F32', shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}

/** 0, 1, 2, … */
export function counting(shape: readonly number[]): MemoryTensor {
  return floats(shape, [...new Array(shape.reduce((a, b) => a * b, 1)).keys()]);
}

/** Every tensor of an opened file. */
export async function contentsOf(file: TensorFile): Promise<Map<string, MemoryTensor>> {
  const contents = new Map<string, MemoryTensor>();
  for (const [name, { type, shape }] of file.tensors) contents.set(name, { type, shape, bytes: await file.read(name) });
  return contents;
}

/** Byte for byte; quicker than a deep comparison by orders of magnitude. */
export function sameBytes(a: ArrayBufferView, b: ArrayBufferView | undefined): boolean {
  const bytes = (view: ArrayBufferView) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return b !== undefined && Buffer.compare(bytes(a), bytes(b)) === 0;
}
