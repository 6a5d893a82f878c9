/** The memory of a model's weights, on the thread. */
import type { Ggml, Pointer } from './library.ts';
import { type DeclaredTensor, float32, int32 } from './types.ts';

interface Stored {
  readonly tensor: Pointer;
  readonly byteLength: number;
  /** Of a matrix that is interleaved once all of it is there. */
  collected?: Uint8Array;
  readonly isRepacked: boolean;
}

export class TensorStore {
  readonly tensors: ReadonlyMap<string, Pointer>;
  readonly #ggml: Ggml;
  readonly #backend: Pointer;
  readonly #context: Pointer;
  readonly #stored = new Map<string, Stored>();
  readonly #buffers: Pointer[] = [];
  /** Buffers that interleave the rows of a matrix for the kernels of prompts; the bytes are as many. */
  readonly #repacking: Pointer;

  constructor(ggml: Ggml, backend: Pointer, declared: readonly DeclaredTensor[]) {
    this.#ggml = ggml;
    this.#backend = backend;
    this.#repacking = ggml.repackedBuffers(ggml.ggml_backend_get_device(backend));
    // Each tensor, a vector for each rotation, and three to ask what an operator supports.
    const count = 8 * declared.length + 64;
    const bytes = count * ggml.ggml_tensor_overhead();
    this.#context = ggml.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
    for (const tensor of declared) this.#stored.set(tensor.key, this.#allocated(tensor));
    this.tensors = new Map(Array.from(this.#stored, ([key, { tensor }]) => [key, tensor]));
  }

  #allocated({ type, sizes, use }: DeclaredTensor): Stored {
    const tensor = this.#new(type, sizes);
    const byteLength = this.#ggml.ggml_nbytes(tensor);
    if ((use === 'matrix' || use === 'experts') && type !== float32 && this.#repacking !== null) {
      const repacked = this.#new(type, sizes);
      this.#place(repacked, this.#repacking);
      if (this.#isSupported(repacked, sizes, use)) return { tensor: repacked, byteLength, isRepacked: true };
      this.#ggml.ggml_backend_buffer_free(this.#buffers.pop() ?? null);
    }
    this.#place(tensor, this.#ggml.ggml_backend_cpu_buffer_type());
    return { tensor, byteLength, isRepacked: false };
  }

  #new(type: number, [first = 1, second = 1, third]: readonly number[]): Pointer {
    const { ggml_new_tensor_2d, ggml_new_tensor_3d } = this.#ggml;
    return third === undefined
      ? ggml_new_tensor_2d(this.#context, type, first, second)
      : ggml_new_tensor_3d(this.#context, type, first, second, third);
  }

  #place(tensor: Pointer, bufferType: Pointer): void {
    const { ggml_backend_buft_alloc_buffer, ggml_backend_buft_get_alloc_size, ...ggml } = this.#ggml;
    const bytes = ggml_backend_buft_get_alloc_size(bufferType, tensor);
    const buffer = ggml_backend_buft_alloc_buffer(bufferType, bytes);
    if (buffer === null) throw new Error(`out of memory: ${bytes} bytes could not be allocated`);
    this.#buffers.push(buffer);
    ggml.ggml_backend_tensor_alloc(buffer, tensor, ggml.ggml_backend_buffer_get_base(buffer));
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

  /** A vector beside the model's. */
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

  free(): void {
    for (const buffer of this.#buffers.splice(0)) this.#ggml.ggml_backend_buffer_free(buffer);
    this.#ggml.ggml_free(this.#context);
  }
}
