/** The worker thread of a loaded decoder: owns ggml's tensors, its compute threads and the KV caches. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { cachedAttentions } from '../../model/spec/spec.ts';
import { done, messageOf, ThreadCaches, transferred } from '../processor/cacheThread.ts';
import type { CacheMessage, FromThread, ThreadSlice } from '../processor/messages.ts';
import { SequenceCache } from './cache.ts';
import { type Loaded, rotationDivisors, rotationKey } from './forward.ts';
import { addressOf, openGgml } from './library.ts';
import { PassRunner } from './passRunner.ts';
import { TensorStore } from './tensorStore.ts';
import type { GgmlMessage, GgmlModel } from './types.ts';

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
    const { windowGroups, layers } = model;
    this.#caches = new ThreadCaches(() => new SequenceCache({ windowGroups, layers, addressOf }));
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
