/** A decoder whose graph runs on a thread of its own. */
import type { DecoderSpec } from '../../model/spec/spec.ts';
import {
  type CacheDemand,
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  fullContexts,
  type Sequence,
  type SequenceSlice,
  type SequenceStorage,
} from '../backend.ts';
import { CacheExtent, CacheLedger, type CacheShares, roomFor } from './cacheExtent.ts';
import { bytesOf, type LayerCachePlan, rowsOf, type SpanPlan } from './layerPlan.ts';
import type { CacheState } from './messages.ts';
import { OnnxStorage } from './sequenceStorage.ts';
import { RunFailure, type ThreadClient } from './threadClient.ts';

/** Enough rows for matmuls to reach full speed; more would take memory for their scores, and hear a cancellation later. */
const maxTokensPerRun = 256;

export interface LoadedGraph {
  readonly spec: DecoderSpec;
  readonly contextTokens: number;
  /** For keys and values of all sequences. */
  readonly cacheBudgetBytes: number;
  readonly notes: readonly string[];
  readonly spans: readonly SpanPlan[];
  readonly layers: readonly LayerCachePlan[];
  readonly weightBytes: number;
  readonly thread: ThreadClient;
  /** Removes what lies on the disk for this decoder alone. */
  readonly cleanUp: () => Promise<void>;
}

export class OnnxDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'onnx';
  readonly contextTokens: number;
  readonly maxTokensPerRun = maxTokensPerRun;
  readonly maxSequencesPerRun = 1;
  readonly notes: readonly string[];
  readonly storage: SequenceStorage;
  readonly #loaded: LoadedGraph;
  readonly #ledger: CacheLedger;
  #sequences = 0;
  #end: Promise<void> | undefined;

  constructor(loaded: LoadedGraph) {
    this.#loaded = loaded;
    this.spec = loaded.spec;
    this.contextTokens = loaded.contextTokens;
    this.notes = loaded.notes;
    const { spans, layers, contextTokens, cacheBudgetBytes } = loaded;
    const tokenBytes = layers.reduce((sum, layer) => sum + bytesOf(layer), 0);
    const capacityBytes = Math.min(cacheBudgetBytes, fullContexts * roomFor(contextTokens) * tokenBytes);
    this.#ledger = new CacheLedger(spans.length, layers, capacityBytes);
    this.storage = new OnnxStorage(loaded, this.#ledger, {
      create: () => this.createSequence(),
      own: (sequence) => this.#own(sequence),
    });
  }

  createSequence(): OnnxSequence {
    const sequence = this.#newSequence(new CacheExtent(this.#loaded.spans), this.#ledger.open());
    this.#loaded.thread.tell({ kind: 'create', sequence: sequence.id });
    return sequence;
  }

  #newSequence(extent: CacheExtent, shares: CacheShares): OnnxSequence {
    const { thread } = this.#loaded;
    return new OnnxSequence(this.#sequences++, thread, { extent, shares }, (copy, from) => {
      const fork = this.#newSequence(copy.extent, copy.shares);
      thread.tell({ kind: 'fork', sequence: fork.id, from });
      return fork;
    });
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = checkedBatch(batch, this, (sequence) => this.#ownOf(sequence));
    const message = slices.map(({ sequence, tokens, logits }) => ({ sequence: sequence.id, tokens, logits }));
    try {
      const { values: logits, caches } = await this.#loaded.thread.ask({ kind: 'run', slices: message });
      for (const [i, { sequence }] of slices.entries()) sequence.restore(caches[i]);
      return [...logits];
    } catch (error) {
      if (error instanceof RunFailure) {
        for (const [i, { sequence }] of slices.entries()) sequence.restore(error.caches[i]);
      }
      throw error;
    }
  }

  #ownOf(sequence: Sequence): OnnxSequence | undefined {
    return sequence instanceof OnnxSequence && sequence.belongsTo(this.#loaded.thread) ? sequence : undefined;
  }

  #own(sequence: Sequence): OnnxSequence {
    const own = this.#ownOf(sequence);
    if (own) return own;
    throw new Error('a sequence of another decoder, or one that was disposed');
  }

  hasRoom(demands: readonly CacheDemand[]): boolean {
    const needed = demands.reduce((sum, { sequence, tokens }) => sum + this.#own(sequence).bytesFor(tokens), 0);
    return this.#ledger.usedBytes + needed <= this.#ledger.capacityBytes;
  }

  memory(): DecoderMemory {
    const { usedBytes: cacheBytes, capacityBytes: cacheCapacityBytes } = this.#ledger;
    const { weightBytes, layers } = this.#loaded;
    const [layer] = layers;
    const cacheBytesPerValue = layer ? bytesOf(layer) / rowsOf(layer) : 0;
    return { weightBytes, cacheBytes, cacheCapacityBytes, cacheBytesPerValue };
  }

  dispose(): Promise<void> {
    this.#end ??= this.#loaded.thread.end().finally(this.#loaded.cleanUp);
    return this.#end;
  }
}

/** What is known here of the caches in the thread. */
interface Mirror {
  readonly extent: CacheExtent;
  readonly shares: CacheShares;
}

type Thread = Pick<ThreadClient, 'tell'>;

type Fork = (copy: Mirror, from: number) => OnnxSequence;

export class OnnxSequence implements Sequence {
  readonly id: number;
  readonly #thread: Thread;
  readonly #mirror: Mirror;
  readonly #forkOf: Fork;
  #disposed = false;

  constructor(id: number, thread: Thread, mirror: Mirror, forkOf: Fork) {
    this.id = id;
    this.#thread = thread;
    this.#mirror = mirror;
    this.#forkOf = forkOf;
  }

  get length(): number {
    return this.#mirror.extent.length;
  }

  belongsTo(thread: Thread): boolean {
    return this.#thread === thread && !this.#disposed;
  }

  /** Takes over what the thread says after a run. */
  restore(state: CacheState | undefined): void {
    if (!state) return;
    const { extent, shares } = this.#mirror;
    const wrote = state.length !== this.length;
    extent.restore(state);
    if (wrote) shares.written(state.columns, extent);
  }

  bytesFor(tokens: number): number {
    return this.#mirror.shares.bytesFor(this.#mirror.extent, tokens);
  }

  /** First position held, for each span. */
  get starts(): readonly number[] {
    return this.#mirror.extent.starts;
  }

  truncate(length: number): number {
    if (length >= this.length) return this.length;
    this.#thread.tell({ kind: 'truncate', sequence: this.id, length });
    const { extent, shares } = this.#mirror;
    const reached = extent.reachable(length);
    shares.rewound(extent, reached);
    extent.truncate(reached);
    shares.keepOnly(extent.kept);
    return reached;
  }

  reachable(length: number): number {
    return this.#mirror.extent.reachable(length);
  }

  mark(lengths: readonly number[]): void {
    this.#thread.tell({ kind: 'mark', sequence: this.id, lengths });
    const { extent, shares } = this.#mirror;
    extent.mark(lengths);
    shares.keepOnly(extent.kept);
  }

  fork(): OnnxSequence {
    const { extent, shares } = this.#mirror;
    return this.#forkOf({ extent: extent.copy(), shares: shares.fork() }, this.id);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#mirror.shares.dispose();
    this.#thread.tell({ kind: 'dispose', sequence: this.id });
  }
}
