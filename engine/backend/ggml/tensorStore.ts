/** The memory of the weights on the compute thread. */
import type { ComputeThreads } from './computeThreads.ts';
import type { DeclaredTensor, Ggml, Pointer } from './library.ts';
import { float32, int8, int32 } from './types.ts';

interface Stored {
  readonly tensor: Pointer;
  readonly type: number;
  readonly buffer: Pointer;
  readonly byteLength: number;
  /** The bytes received so far of a matrix that is interleaved once it is complete. */
  collected?: Uint8Array;
  readonly isRepacked: boolean;
  /** The same memory as a tensor of bytes, created on request. */
  bytes?: Pointer;
}

/** `[blockBytes, blocks]` i8 */
interface StoredBlocks {
  readonly tensor: Pointer;
  readonly blockBytes: number;
  readonly blocks: number;
}

export class TensorStore {
  readonly tensors: ReadonlyMap<string, Pointer>;
  readonly #ggml: Ggml;
  readonly #backend: Pointer;
  readonly #context: Pointer;
  readonly #stored = new Map<string, Stored>();
  readonly #buffers: Pointer[] = [];
  /** Buffer types with the layouts of special kernels. */
  readonly #repacking: readonly Pointer[];

  constructor({ ggml, backend }: ComputeThreads, declared: readonly DeclaredTensor[]) {
    this.#ggml = ggml;
    this.#backend = backend;
    this.#repacking = ggml.repackedBuffers(ggml.ggml_backend_get_device(backend));
    // Each tensor and its bytes, a vector for each rotation, and four tensors for each buffer type to test which
    // operators it supports.
    const count = (5 + 8 * this.#repacking.length) * declared.length + 64;
    const bytes = count * ggml.ggml_tensor_overhead();
    this.#context = ggml.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
    for (const tensor of declared) this.#stored.set(tensor.key, this.#allocated(tensor));
    this.tensors = new Map(Array.from(this.#stored, ([key, { tensor }]) => [key, tensor]));
  }

  #allocated({ type, sizes, use }: DeclaredTensor): Stored {
    const tensor = this.#new(type, sizes);
    const byteLength = this.#ggml.ggml_nbytes(tensor);
    const repacking = (use === 'matrix' || use === 'experts') && type !== float32 ? this.#repacking : [];
    for (const bufferType of repacking) {
      const repacked = this.#new(type, sizes);
      const buffer = this.#place(repacked, bufferType);
      if (this.#isSupported(repacked, sizes, use))
        return { tensor: repacked, type, buffer, byteLength, isRepacked: true };
      this.#ggml.ggml_backend_buffer_free(this.#buffers.pop() ?? null);
    }
    const buffer = this.#place(tensor, this.#ggml.ggml_backend_cpu_buffer_type());
    return { tensor, type, buffer, byteLength, isRepacked: false };
  }

  #new(type: number, [first = 1, second = 1, third]: readonly number[]): Pointer {
    const { ggml_new_tensor_2d, ggml_new_tensor_3d } = this.#ggml;
    return third === undefined
      ? ggml_new_tensor_2d(this.#context, type, first, second)
      : ggml_new_tensor_3d(this.#context, type, first, second, third);
  }

  #place(tensor: Pointer, bufferType: Pointer): Pointer {
    const { ggml_backend_buft_alloc_buffer, ggml_backend_buft_get_alloc_size, ...ggml } = this.#ggml;
    const bytes = ggml_backend_buft_get_alloc_size(bufferType, tensor);
    const buffer = ggml_backend_buft_alloc_buffer(bufferType, bytes);
    if (buffer === null) throw new Error(`out of memory: ${bytes} bytes could not be allocated`);
    this.#buffers.push(buffer);
    ggml.ggml_backend_tensor_alloc(buffer, tensor, ggml.ggml_backend_buffer_get_base(buffer));
    return buffer;
  }

  #isSupported(matrix: Pointer, [width = 1]: readonly number[], use: DeclaredTensor['use']): boolean {
    const { ggml_backend_supports_op, ggml_mul_mat, ggml_mul_mat_id } = this.#ggml;
    const input = this.#new(float32, use === 'experts' ? [width, 1, 1] : [width, 1]);
    const product =
      use === 'experts'
        ? ggml_mul_mat_id(this.#context, matrix, input, this.#new(int32, [1, 1]))
        : ggml_mul_mat(this.#context, matrix, input);
    return ggml_backend_supports_op(this.#backend, product);
  }

  /** Adds a vector that is not one of the model's tensors. */
  vector(values: Float32Array): Pointer {
    const tensor = this.#ggml.ggml_new_tensor_1d(this.#context, float32, values.length);
    this.#place(tensor, this.#ggml.ggml_backend_cpu_buffer_type());
    this.#ggml.ggml_backend_tensor_set(tensor, values, 0, values.byteLength);
    return tensor;
  }

  /** Called with the pieces of a tensor in order. */
  fill(key: string, offset: number, bytes: Uint8Array): void {
    const stored = this.#stored.get(key);
    if (!stored) throw new Error(`Unknown tensor ${key}.`);
    const { tensor, byteLength, isRepacked } = stored;
    if (!isRepacked || bytes.byteLength === byteLength) {
      this.#ggml.ggml_backend_tensor_set(tensor, bytes, offset, bytes.byteLength);
      return;
    }
    stored.collected ??= new Uint8Array(byteLength);
    stored.collected.set(bytes, offset);
    if (offset + bytes.byteLength < byteLength) return;
    this.#ggml.ggml_backend_tensor_set(tensor, stored.collected, 0, byteLength);
    delete stored.collected;
  }

  /** The blocks of a tensor that is not interleaved. */
  bytesOf(key: string): StoredBlocks {
    const stored = this.#stored.get(key);
    if (!stored || stored.isRepacked) throw new Error(`${key} is not here as it is in the file.`);
    const { ggml_backend_buffer_get_base, ggml_backend_tensor_alloc, ggml_type_size } = this.#ggml;
    const blockBytes = ggml_type_size(stored.type);
    const blocks = stored.byteLength / blockBytes;
    if (stored.bytes === undefined) {
      stored.bytes = this.#new(int8, [blockBytes, blocks]);
      ggml_backend_tensor_alloc(stored.buffer, stored.bytes, ggml_backend_buffer_get_base(stored.buffer));
    }
    return { tensor: stored.bytes, blockBytes, blocks };
  }

  free(): void {
    for (const buffer of this.#buffers.splice(0)) this.#ggml.ggml_backend_buffer_free(buffer);
    this.#ggml.ggml_free(this.#context);
  }
}
