/** The decoder of this backend. Its graph runs on a worker thread. */

import { Worker } from 'node:worker_threads';
import { HearthError } from '../../errors.ts';
import { BlockCache, type BlockStorage, type CachedSequence } from '../../kv/blockCache.ts';
import { type BlockGroup, blocksFor } from '../../kv/blocks.ts';
import type { CacheDemand, Sequence, SequenceSerializer } from '../../kv/sequence.ts';
import { cacheBytesPerToken, type DecoderSpec, processorPrecision } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import { checkedBatch, type Decoder, type DecoderMemory, fullContexts, type SequenceSlice } from '../backend.ts';
import { type ModelNeeds, usualContextTokens } from '../memoryPlan.ts';
import {
  bytesOf,
  type CacheLayout,
  type FromThread,
  type LayerCacheSpec,
  rowsOf,
  type ToThread,
  type WindowGroup,
} from './messages.ts';

/** Enough rows for matmuls to reach full speed. More would need memory for attention scores and delay cancellations. */
const maxTokensPerRun = 256;

export interface LoadedGraph {
  readonly spec: DecoderSpec;
  readonly contextTokens: number;
  /** KV-cache budget of all sequences in bytes. */
  readonly cacheBudgetBytes: number;
  readonly notes: readonly string[];
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  readonly weightBytes: number;
  readonly thread: ThreadClient;
  /** Whether another program wrote into the file that holds the weights. */
  readonly weightsChanged: () => Promise<boolean>;
  /** The error to throw if it did, or for logits that are not finite. */
  readonly damage: (changed: boolean) => Promise<HearthError>;
  /** Removes temporary files of this decoder. */
  readonly cleanUp: () => Promise<void>;
}

export class OnnxDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'onnx';
  readonly contextTokens: number;
  readonly maxTokensPerRun = maxTokensPerRun;
  readonly maxSequencesPerRun = 1;
  readonly notes: readonly string[];
  readonly #graph: LoadedGraph;
  readonly #cache: BlockCache;
  #end: Promise<void> | undefined;

  constructor(graph: LoadedGraph) {
    this.#graph = graph;
    this.spec = graph.spec;
    this.contextTokens = graph.contextTokens;
    this.notes = graph.notes;
    this.#cache = new BlockCache(storageOf(graph), graph.contextTokens);
  }

  get serializer(): SequenceSerializer {
    return this.#cache;
  }

  createSequence(): Sequence {
    return this.#cache.create();
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    if (await this.#graph.weightsChanged()) throw await this.#graph.damage(true);
    this.#cache.prepare(slices.map(({ sequence, tokens }) => ({ sequence, tokens: tokens.length })));
    const { values } = await this.#graph.thread.ask({
      kind: 'run',
      slices: slices.map(({ sequence, tokens, logits }) => {
        return { sequence: sequence.id, layout: layoutOf(sequence), tokens, logits };
      }),
    });
    for (const { sequence, tokens } of slices) sequence.advance(tokens.length);
    if (!values.every(isNumeric)) throw await this.#graph.damage(false);
    return [...values];
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    return this.#cache.hasRoom(demands);
  }

  memory(): DecoderMemory {
    const { usedBytes: cacheBytes, storage } = this.#cache;
    const { weightBytes, layers } = this.#graph;
    const [layer] = layers;
    const cacheBytesPerValue = layer ? bytesOf(layer) / rowsOf(layer) : 0;
    const { groups, capacityBytes: cacheCapacityBytes } = storage;
    const tokenBytes = groups.reduce((sum, { blockBytes }) => sum + blockBytes / blockTokens, 0);
    // One usual context: what the list of models says that the model needs.
    const idleLimitBytes = allocatedTokens(Math.min(this.contextTokens, usualContextTokens)) * tokenBytes;
    return { weightBytes, cacheBytes, cacheCapacityBytes, cacheBytesPerValue, idleLimitBytes };
  }

  dispose(): Promise<void> {
    this.#end ??= this.#graph.thread.end().finally(this.#graph.cleanUp);
    return this.#end;
  }
}

function isNumeric(logits: Float32Array): boolean {
  for (const logit of logits) if (!Number.isFinite(logit)) return false;
  return true;
}

/** Tokens of a block: columns are allocated in such steps. */
const blockTokens = 64;

/** Tokens that are allocated for a sequence of so many. */
export const allocatedTokens = (tokens: number): number =>
  blockTokens * blocksFor(tokens, { blockTokens, contiguous: true });

interface CacheOptions extends Pick<LoadedGraph, 'windowGroups' | 'layers' | 'contextTokens' | 'cacheBudgetBytes'> {
  readonly thread: Pick<ThreadClient, 'ask' | 'tell'>;
}

/** The cache on the graph thread. */
export function storageOf(graph: CacheOptions): BlockStorage {
  const { thread, windowGroups, contextTokens, cacheBudgetBytes } = graph;
  const layers = graph.layers.map((layer) => ({ group: layer.group, blockBytes: blockTokens * bytesOf(layer) }));
  const groups = windowGroups.map(({ slidingWindow }, index): BlockGroup => {
    const blockBytes = layers.reduce((sum, layer) => sum + (layer.group === index ? layer.blockBytes : 0), 0);
    return { slidingWindow, blockTokens, blockBytes, contiguous: true };
  });
  const tokenBytes = groups.reduce((sum, { blockBytes }) => sum + blockBytes / blockTokens, 0);
  return {
    format: graph.layers[0]?.type === 'float16' ? 'f16 ranges of 64' : 'f32 ranges of 64',
    groups,
    layers,
    capacityBytes: Math.min(cacheBudgetBytes, fullContexts * allocatedTokens(contextTokens) * tokenBytes),
    async read(sequence, layer) {
      const layout = layoutOf(sequence, Math.ceil(sequence.length / blockTokens));
      const { saved } = await thread.ask({ kind: 'save', sequence: sequence.id, layer, layout });
      if (!saved) throw new Error('The graph thread returned no data.');
      return saved;
    },
    async write(sequence, layer, bytes) {
      const { id, length } = sequence;
      const message = { kind: 'restore', sequence: id, layer, layout: layoutOf(sequence), length, bytes } as const;
      await thread.ask(message, [bytes.buffer as ArrayBuffer]);
    },
    created: ({ id }, from) => thread.tell({ kind: 'create', sequence: id, from: from?.id }),
    changed: (sequence) =>
      thread.tell({ kind: 'change', sequence: sequence.id, layout: layoutOf(sequence), length: sequence.length }),
    disposed: ({ id }) => thread.tell({ kind: 'dispose', sequence: id }),
  };
}

/** The ranges of a sequence, as far as they hold the first `blocks` blocks. Default: with spare ones. */
export const layoutOf = ({ tables }: CachedSequence, blocks = Number.POSITIVE_INFINITY): CacheLayout =>
  tables.map(({ ranges }) =>
    ranges
      .filter(([first]) => first < blocks)
      .map(([first, end]) => ({ first: first * blockTokens, columns: (Math.min(end, blocks) - first) * blockTokens })),
  );

// Memory that a model needs on the CPU.

/** The runtime, and activations of the longest chunk. */
const scratchBytes = 400e6;

/** Windowed layers count in full: their checkpoints grow with the context as well. */
export function hostNeeds(spec: DecoderSpec, weightBytes: number, asked?: CachePrecision): ModelNeeds {
  const attentions = spec.layers.map(({ attention }) => attention);
  const tokenBytes = cacheBytesPerToken(attentions, processorPrecision(asked));
  return {
    weightBytes,
    scratchBytes,
    cacheBytes: (tokens) => allocatedTokens(tokens) * tokenBytes,
    longestTokens: spec.contextTokens,
  };
}

// The decoder's side of the graph thread.

/** In builds, the thread is a bundle of its own beside the engine's. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? './graphThread.ts' : './onnxWorker.mjs', import.meta.url);

type Done = Extract<FromThread, { kind: 'done' }>;

interface Waiting {
  readonly resolve: (answer: Done) => void;
  readonly reject: (error: Error) => void;
}

function runFailure(message: string): HearthError {
  const memory = /bad_alloc|allocat|out of memory/i.test(message);
  return new HearthError(
    memory ? 'out-of-memory' : 'unsupported',
    memory
      ? `The forward pass ran out of memory (${message}). Choose a smaller model or context.`
      : `ONNX Runtime failed: ${message}`,
  );
}

export class ThreadClient {
  readonly #worker = new Worker(workerFile, { name: 'hearth-onnx' });
  readonly #waiting: Waiting[] = [];
  #failure: Error | undefined;

  constructor() {
    this.#worker.on('message', (answer: FromThread) => this.#settle(answer));
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new HearthError('device-lost', 'The compute thread has exited.')));
    // A pending answer keeps the process alive; an idle model doesn't.
    this.#worker.unref();
  }

  /** Sends a message that isn't answered. */
  tell(message: ToThread): void {
    if (!this.#failure) this.#worker.postMessage(message);
  }

  /** @param transfer buffers that move to the thread. */
  ask(message: ToThread, transfer: readonly ArrayBuffer[] = []): Promise<Done> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#waiting.push({ resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage(message, transfer);
    });
  }

  /** Frees the graph and the caches. */
  async end(): Promise<void> {
    if (!this.#failure) await this.ask({ kind: 'end' });
  }

  #settle(answer: FromThread): void {
    const waiting = this.#waiting.shift();
    if (this.#waiting.length === 0) this.#worker.unref();
    if (answer.kind === 'done') waiting?.resolve(answer);
    else waiting?.reject(runFailure(answer.message));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
