/** The worker thread of a loaded decoder: owns ggml's tensors, its compute threads and the KV caches. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { cachedAttentions } from '../../model/spec/spec.ts';
import type { CacheMessage, FromThread, ThreadSlice } from '../processor/messages.ts';
import { done, LayerRanges, messageOf, ThreadCaches, transferred } from '../processor/threadCache.ts';
import { type Loaded, rotationDivisors, rotationKey } from './forward.ts';
import {
  addressOf,
  type DeclaredTensor,
  float32,
  type Ggml,
  type GgmlMessage,
  type GgmlModel,
  int32,
  openGgml,
  type Pointer,
} from './library.ts';
import { newGgmlRange, PassRunner, type SequenceCache } from './passRunner.ts';

// The memory of the weights.

interface Stored {
  readonly tensor: Pointer;
  readonly byteLength: number;
  /** Of a matrix that is interleaved once all of it is there. */
  collected?: Uint8Array;
  readonly isRepacked: boolean;
}

class TensorStore {
  readonly tensors: ReadonlyMap<string, Pointer>;
  readonly #ggml: Ggml;
  readonly #backend: Pointer;
  readonly #context: Pointer;
  readonly #stored = new Map<string, Stored>();
  readonly #buffers: Pointer[] = [];
  /** Buffers in which a matrix lies as some of the kernels read it. */
  readonly #repacking: readonly Pointer[];

  constructor(ggml: Ggml, backend: Pointer, declared: readonly DeclaredTensor[]) {
    this.#ggml = ggml;
    this.#backend = backend;
    this.#repacking = ggml.repackedBuffers(ggml.ggml_backend_get_device(backend));
    // Each tensor, a vector for each rotation, and four for each kind of buffer to ask what an operator supports.
    const count = (4 + 8 * this.#repacking.length) * declared.length + 64;
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
      this.#place(repacked, bufferType);
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

// The thread.

/** `sizeof(struct ggml_threadpool_params)` and to spare. */
const threadpoolParameterBytes = 1024;

class ComputeThread {
  readonly #loaded: Loaded;
  readonly #store: TensorStore;
  readonly #runner: PassRunner;
  readonly #backend: bigint | null;
  readonly #pool: bigint | null;
  readonly #caches: ThreadCaches<SequenceCache>;

  constructor(model: GgmlModel) {
    const ggml = openGgml(model.libraries);
    this.#backend = ggml.ggml_backend_cpu_init();
    const parameters = new Uint8Array(threadpoolParameterBytes);
    ggml.ggml_threadpool_params_init(parameters, model.threads);
    this.#pool = ggml.ggml_threadpool_new(parameters);
    ggml.ggml_backend_cpu_set_n_threads(this.#backend, model.threads);
    ggml.ggml_backend_cpu_set_threadpool(this.#backend, this.#pool);
    // Attention otherwise sums in another order, and in another precision, for one token, for a few and for 64 or more: a prompt's logits
    // would depend on how it was cut into passes. It is as fast without.
    ggml.ggml_backend_cpu_set_use_ref(this.#backend, true);
    this.#store = new TensorStore(ggml, this.#backend, model.tensors);
    const rotations = new Map<string, bigint | null>();
    for (const { rope } of cachedAttentions(model.spec)) {
      const key = rotationKey(rope);
      if (!rotations.has(key)) rotations.set(key, this.#store.vector(rotationDivisors(rope)));
    }
    this.#loaded = { ggml, model, tensors: this.#store.tensors, rotations };
    this.#runner = new PassRunner(this.#loaded, this.#backend);
    const newRange = newGgmlRange(addressOf);
    this.#caches = new ThreadCaches(() => new LayerRanges(model.layers, newRange));
  }

  handle(message: CacheMessage | Exclude<GgmlMessage, { kind: 'load' }>): FromThread | undefined {
    switch (message.kind) {
      case 'fill':
        this.#store.fill(message.key, message.offset, message.bytes);
        return done;
      case 'run':
        return this.#run(message.slices);
      case 'end':
        this.#end();
        return done;
      default:
        return this.#caches.handle(message);
    }
  }

  #run(slices: readonly ThreadSlice[]): FromThread {
    const restoreLengths = this.#caches.lengthsOf(slices);
    try {
      return { kind: 'done', values: slices.map((slice) => this.#runner.run(this.#caches.of(slice.sequence), slice)) };
    } catch (error) {
      restoreLengths();
      throw error;
    }
  }

  #end(): void {
    const { ggml } = this.#loaded;
    this.#caches.clear();
    this.#runner.free();
    this.#store.free();
    ggml.ggml_backend_free(this.#backend);
    ggml.ggml_threadpool_free(this.#pool);
  }
}

/** ggml computes on the thread that asks it to; the engine's own goes on reacting to cancellations meanwhile. */
function listen(port: MessagePort): void {
  let thread: ComputeThread | undefined;
  const handle = (message: CacheMessage | GgmlMessage): FromThread | undefined => {
    if (message.kind !== 'load') return thread?.handle(message) ?? (message.kind === 'end' ? done : undefined);
    thread = new ComputeThread(message.model);
    return done;
  };
  port.on('message', (message: CacheMessage | GgmlMessage) => {
    let answer: FromThread | undefined;
    try {
      answer = handle(message);
    } catch (error) {
      answer = { kind: 'failed', message: messageOf(error) };
    }
    if (answer) port.postMessage(answer, transferred(answer));
    if (message.kind === 'end') port.close();
  });
}

if (parentPort) listen(parentPort);
