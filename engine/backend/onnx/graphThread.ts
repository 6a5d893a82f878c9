/** The worker thread of a loaded decoder: owns the ONNX Runtime session and the KV caches. */

import { type MessagePort, parentPort } from 'node:worker_threads';
import { InferenceSession } from 'onnxruntime-node';
import { GraphRun } from './graphRun.ts';
import type { KeyValueCache } from './keyValueCache.ts';
import type { FromThread, ThreadGraph, ThreadSlice, ToThread } from './messages.ts';
import { matmulMs } from './threads.ts';

export class GraphThread {
  readonly #session: InferenceSession;
  readonly #graphRun: GraphRun;
  readonly #caches = new Map<number, KeyValueCache>();

  private constructor(session: InferenceSession, graphRun: GraphRun) {
    this.#session = session;
    this.#graphRun = graphRun;
  }

  static async load({ model, weightsDirectory, threads, inputs }: ThreadGraph): Promise<GraphThread> {
    const session = await InferenceSession.create(model, {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      // A failure is thrown as well; the runtime would write it to stderr beside.
      logSeverityLevel: 4,
      // The graph is built as it should run: the optimiser would take a tenth of the load time and find nothing.
      graphOptimizationLevel: 'disabled',
      extra: { session: { model_external_initializers_file_folder_path: weightsDirectory } },
    });
    return new GraphThread(session, new GraphRun(session, inputs));
  }

  async handle(message: Exclude<ToThread, { kind: 'load' | 'measure' }>): Promise<FromThread | undefined> {
    switch (message.kind) {
      case 'create':
        this.#caches.set(message.sequence, this.#created(message.from));
        return undefined;
      case 'change':
        this.#cache(message.sequence).arrange(message.layout, message.length);
        return undefined;
      case 'dispose':
        this.#cache(message.sequence).dispose();
        this.#caches.delete(message.sequence);
        return undefined;
      case 'run':
        return this.#run(message.slices);
      case 'save':
        return { kind: 'done', values: [], saved: this.#cache(message.sequence).saved(message.layer, message.layout) };
      case 'restore': {
        const cache = this.#cache(message.sequence);
        cache.restore(message.layer, message.layout, message.bytes);
        cache.length = message.length;
        return { kind: 'done', values: [] };
      }
      case 'end':
        this.#caches.clear();
        await this.#session.release();
        return { kind: 'done', values: [] };
    }
  }

  #created(from: number | undefined): KeyValueCache {
    return from === undefined ? this.#graphRun.emptyCache() : this.#cache(from).fork();
  }

  async #run(slices: readonly ThreadSlice[]): Promise<FromThread> {
    const before = slices.map(({ sequence }) => this.#cache(sequence).length);
    const values: Float32Array[] = [];
    try {
      for (const { sequence, layout, tokens, logits } of slices) {
        values.push(await this.#graphRun.run(this.#cache(sequence), layout, tokens, logits));
      }
    } catch (error) {
      for (const [i, { sequence }] of slices.entries()) this.#cache(sequence).length = before[i] ?? 0;
      return { kind: 'failed', message: messageOf(error) };
    }
    return { kind: 'done', values };
  }

  #cache(sequence: number): KeyValueCache {
    const cache = this.#caches.get(sequence);
    if (!cache) throw new Error(`Unknown sequence ${sequence}.`);
    return cache;
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

// onnxruntime-node computes on the thread that calls `session.run`. It has a thread of its own, so that the engine can
// react to cancellations meanwhile.

function listen(port: MessagePort): void {
  let thread: GraphThread | undefined;
  // Messages are handled in order.
  let previous: Promise<void> = Promise.resolve();
  const handle = async (message: ToThread): Promise<FromThread | undefined> => {
    if (message.kind === 'measure') return { kind: 'done', values: [Float32Array.of(await matmulMs(message.threads))] };
    if (message.kind !== 'load') return thread?.handle(message);
    thread = await GraphThread.load(message.graph);
    return { kind: 'done', values: [] };
  };
  port.on('message', (message: ToThread) => {
    previous = previous.then(async () => {
      const answer = await handle(message).catch(
        (error: unknown): FromThread => ({ kind: 'failed', message: messageOf(error) }),
      );
      if (answer) port.postMessage(answer, transferred(answer));
      if (message.kind === 'end') port.close();
    });
  });
}

/** Buffers to transfer instead of copying. */
function transferred(answer: FromThread): ArrayBuffer[] {
  if (answer.kind === 'failed') return [];
  const { values, saved } = answer;
  return [...values, ...(saved ? [saved] : [])].map(({ buffer }) => buffer as ArrayBuffer);
}

if (parentPort) listen(parentPort);
