/** The worker thread of a loaded decoder: owns the ONNX Runtime session and the KV caches. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { InferenceSession } from 'onnxruntime-node';
import { type DrawMessage, type DrawSlice, drawing } from '../processor/drawing.ts';
import type { CacheMessage, FromThread, ThreadSlice } from '../processor/messages.ts';
import { done, failure, ThreadCaches, transferred } from '../processor/threadCache.ts';
import { type GraphInputs, GraphRun, matmulMs } from './graphRun.ts';
import type { KeyValueCache } from './keyValueCache.ts';

/** Messages to the thread in addition to those about caches (processor/messages.ts). Both are answered. */
export type OnnxMessage =
  /** Times a matmul with this many threads, in milliseconds. */
  { readonly kind: 'measure'; readonly threads: number } | { readonly kind: 'load'; readonly graph: ThreadGraph };

export interface ThreadGraph {
  /** An ONNX ModelProto whose weights lie in `weightsDirectory`. */
  readonly model: Uint8Array;
  readonly weightsDirectory: string;
  readonly threads: number;
  readonly inputs: GraphInputs;
}

export class GraphThread {
  readonly #session: InferenceSession;
  readonly #graphRun: GraphRun;
  readonly #caches: ThreadCaches<KeyValueCache>;

  private constructor(session: InferenceSession, graphRun: GraphRun) {
    this.#session = session;
    this.#graphRun = graphRun;
    this.#caches = new ThreadCaches(() => graphRun.emptyCache());
  }

  static async load({ model, weightsDirectory, threads, inputs }: ThreadGraph): Promise<GraphThread> {
    const session = await InferenceSession.create(model, {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      // Failures are thrown; the runtime would also write them to stderr.
      logSeverityLevel: 4,
      // The graph is already optimal: the optimiser would take a tenth of the load time and find nothing.
      graphOptimizationLevel: 'disabled',
      extra: { session: { model_external_initializers_file_folder_path: weightsDirectory } },
    });
    return new GraphThread(session, new GraphRun(session, inputs));
  }

  async handle(message: CacheMessage): Promise<FromThread | undefined> {
    switch (message.kind) {
      case 'run':
        return this.#run(message.slices);
      case 'draw':
        return this.#draw(message);
      case 'end':
        this.#caches.clear();
        await this.#session.release();
        return done;
      default:
        return this.#caches.handle(message);
    }
  }

  async #run(slices: readonly ThreadSlice[]): Promise<FromThread> {
    const run = (slice: ThreadSlice) => this.#graphRun.run(this.#caches.of(slice.sequence), slice);
    const values = await this.#eachKeepingLengths(slices, run);
    for (const { sequence, layout } of slices) this.#caches.of(sequence).keepStates(layout);
    return { kind: 'done', values };
  }

  async #draw({ slices, steps }: DrawMessage): Promise<FromThread> {
    const drawn = await this.#eachKeepingLengths(slices, (slice) => this.#drawSlice(slice, steps));
    return { kind: 'done', values: [], drawn };
  }

  /** One slice after the other. The sequences have their lengths of before if one fails. */
  async #eachKeepingLengths<Slice extends { readonly sequence: number }, Result>(
    slices: readonly Slice[],
    compute: (slice: Slice) => Promise<Result>,
  ): Promise<Result[]> {
    const restoreLengths = this.#caches.lengthsOf(slices);
    const results: Result[] = [];
    try {
      for (const slice of slices) results.push(await compute(slice));
    } catch (error) {
      restoreLengths();
      throw error;
    }
    return results;
  }

  async #drawSlice(slice: DrawSlice, steps: number): Promise<number[]> {
    const { layout } = slice;
    const cache = this.#caches.of(slice.sequence);
    const draws = drawing(slice, steps);
    let next = draws.next();
    while (!next.done) {
      next = draws.next(await this.#graphRun.run(cache, { layout, tokens: [next.value], logits: 'last' }));
    }
    return next.value;
  }
}

// onnxruntime-node computes on the thread that calls `session.run`, so it gets a separate thread, and the engine can
// react to cancellations meanwhile.

function listen(port: MessagePort): void {
  let thread: GraphThread | undefined;
  // Messages are handled in order.
  let previous: Promise<void> = Promise.resolve();
  const handle = async (message: CacheMessage | OnnxMessage): Promise<FromThread | undefined> => {
    if (message.kind === 'measure') return { kind: 'done', values: [Float32Array.of(await matmulMs(message.threads))] };
    if (message.kind !== 'load') return thread?.handle(message);
    thread = await GraphThread.load(message.graph);
    return done;
  };
  port.on('message', (message: CacheMessage | OnnxMessage) => {
    previous = previous.then(async () => {
      const answer = await handle(message).catch((error: unknown): FromThread => failure(error));
      if (answer) port.postMessage(answer, transferred(answer));
      if (message.kind === 'end') port.close();
    });
  });
}

if (parentPort) listen(parentPort);
