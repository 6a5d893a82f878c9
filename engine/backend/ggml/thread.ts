/** The worker thread of a loaded decoder: owns ggml's tensors, its compute threads and the KV caches; or the experts of some layers. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { cachedAttentions } from '../../model/spec/spec.ts';
import { AwaitedRows, type DrawMessage, drawing } from '../processor/drawing.ts';
import { RecentRows } from '../processor/embeddingRows.ts';
import type { CacheMessage, FromThread, ThreadSlice } from '../processor/messages.ts';
import { done, failure, LayerRanges, ThreadCaches, transferred } from '../processor/threadCache.ts';
import { ComputeThreads } from './computeThreads.ts';
import { ExpertThread } from './expertThread.ts';
import { type Loaded, rotationDivisors, rotationKey } from './forward.ts';
import { addressOf, type ExpertMessage, type GgmlMessage, type GgmlModel, type Pointer } from './library.ts';
import { newGgmlRange, PassRunner, type SequenceCache } from './passRunner.ts';
import { TensorStore } from './tensorStore.ts';

type Message = CacheMessage | GgmlMessage | ExpertMessage;

class DecoderThread {
  readonly #threads: ComputeThreads;
  readonly #store: TensorStore;
  readonly #runner: PassRunner;
  readonly #caches: ThreadCaches<SequenceCache>;
  readonly #rows: AwaitedRows;
  /** Of drawn tokens, `[vocabulary]`, reused: fresh memory of this size takes longer to get than to fill. */
  readonly #logits: Float32Array;

  constructor(model: GgmlModel, port: MessagePort) {
    this.#threads = new ComputeThreads(model.libraries, model.threads);
    this.#store = new TensorStore(this.#threads, model.tensors);
    const rotations = new Map<string, Pointer>();
    for (const { rope } of cachedAttentions(model.spec)) {
      const key = rotationKey(rope);
      if (!rotations.has(key)) rotations.set(key, this.#store.vector(rotationDivisors(rope)));
    }
    const loaded: Loaded = { ggml: this.#threads.ggml, model, tensors: this.#store.tensors, rotations };
    this.#runner = new PassRunner(loaded, this.#threads);
    const newRange = newGgmlRange(addressOf);
    this.#caches = new ThreadCaches(() => new LayerRanges(model.layers, newRange));
    const { hiddenSize, vocabularySize } = model.spec;
    this.#rows = new AwaitedRows(port, new RecentRows(hiddenSize));
    this.#logits = new Float32Array(vocabularySize);
  }

  handle(message: Message): FromThread | undefined {
    switch (message.kind) {
      case 'fill':
        this.#store.fill(message.key, message.offset, message.bytes);
        return done;
      case 'run':
        return this.#keepingLengths(message.slices, () => ({
          kind: 'done',
          values: message.slices.map((slice) => this.#runner.run(this.#caches.of(slice.sequence), slice)),
        }));
      case 'draw':
        return this.#keepingLengths(message.slices, () => ({
          kind: 'done',
          values: [],
          drawn: this.#draw(message),
        }));
      case 'end':
        this.#end();
        return done;
      case 'load':
      case 'load-experts':
      case 'compute-experts':
      case 'read-fields':
        throw new Error(`A decoder's thread can't ${message.kind}.`);
      default:
        return this.#caches.handle(message);
    }
  }

  /** The sequences have their lengths of before if `compute` fails. */
  #keepingLengths(slices: readonly Pick<ThreadSlice, 'sequence'>[], compute: () => FromThread): FromThread {
    const restoreLengths = this.#caches.lengthsOf(slices);
    try {
      return compute();
    } catch (error) {
      restoreLengths();
      throw error;
    }
  }

  #draw({ slices, steps, row }: DrawMessage): number[][] {
    if (!row) throw new Error('The graph takes hidden states.');
    return slices.map((slice) => {
      const cache = this.#caches.of(slice.sequence);
      const draws = drawing(slice, steps);
      let next = draws.next();
      while (!next.done) {
        const pass = { layout: slice.layout, tokens: [next.value], logits: 'last' as const };
        const hidden = this.#rows.of(next.value, row);
        next = draws.next(this.#runner.run(cache, { ...pass, hidden }, this.#logits));
      }
      return next.value;
    });
  }

  #end(): void {
    this.#caches.clear();
    this.#runner.free();
    this.#store.free();
    this.#threads.free();
  }
}

/** ggml computes on the calling thread; meanwhile the engine's thread can react to cancellations. */
function listen(port: MessagePort): void {
  let thread: DecoderThread | ExpertThread | undefined;
  const handle = (message: Message): FromThread | undefined => {
    if (message.kind === 'load') thread = new DecoderThread(message.model, port);
    else if (message.kind === 'load-experts') thread = new ExpertThread(message.model);
    else return thread?.handle(message) ?? (message.kind === 'end' ? done : undefined);
    return done;
  };
  port.on('message', (message: Message) => {
    let answer: FromThread | undefined;
    try {
      answer = handle(message);
    } catch (error) {
      answer = failure(error);
    }
    if (answer) port.postMessage(answer, transferred(answer));
    if (message.kind === 'end') port.close();
  });
}

if (parentPort) listen(parentPort);
