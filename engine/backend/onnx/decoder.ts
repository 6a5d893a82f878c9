/** The decoder of this backend. Its graph runs on a worker thread. */
import type { HearthError } from '../../errors.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import {
  type CacheDemand,
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  fullContexts,
  type Sequence,
  type SequenceSerializer,
  type SequenceSlice,
} from '../backend.ts';
import { usualContextTokens } from '../memoryPlan.ts';
import { CacheBudget, CachedRanges, columnsFor, type SequenceBlocks } from './cachedRanges.ts';
import { bytesOf, type LayerCacheSpec, rowsOf, type WindowGroup } from './graphInputs.ts';
import type { CacheState } from './messages.ts';
import { OnnxSerializer } from './sequenceSerializer.ts';
import { RunFailure, type ThreadClient } from './threadClient.ts';

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
  readonly serializer: SequenceSerializer;
  readonly #graph: LoadedGraph;
  readonly #budget: CacheBudget;
  /** One usual context: what the list of models says that the model needs. */
  readonly #idleLimitBytes: number;
  #sequences = 0;
  #end: Promise<void> | undefined;

  constructor(graph: LoadedGraph) {
    this.#graph = graph;
    this.spec = graph.spec;
    this.contextTokens = graph.contextTokens;
    this.notes = graph.notes;
    const { windowGroups, layers, contextTokens, cacheBudgetBytes } = graph;
    const tokenBytes = layers.reduce((sum, layer) => sum + bytesOf(layer), 0);
    const capacityBytes = Math.min(cacheBudgetBytes, fullContexts * columnsFor(contextTokens) * tokenBytes);
    this.#idleLimitBytes = columnsFor(Math.min(contextTokens, usualContextTokens)) * tokenBytes;
    this.#budget = new CacheBudget(windowGroups.length, layers, capacityBytes);
    this.serializer = new OnnxSerializer(graph, this.#budget, {
      create: () => this.createSequence(),
      own: (sequence) => this.#own(sequence),
    });
  }

  createSequence(): OnnxSequence {
    const sequence = this.#newSequence(new CachedRanges(this.#graph.windowGroups), this.#budget.newSequence());
    this.#graph.thread.tell({ kind: 'create', sequence: sequence.id });
    return sequence;
  }

  #newSequence(ranges: CachedRanges, blocks: SequenceBlocks): OnnxSequence {
    const { thread } = this.#graph;
    return new OnnxSequence(this.#sequences++, thread, { ranges, blocks }, (copy, from) => {
      const fork = this.#newSequence(copy.ranges, copy.blocks);
      thread.tell({ kind: 'fork', sequence: fork.id, from });
      return fork;
    });
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = checkedBatch(batch, this, (sequence) => this.#ownOf(sequence));
    const message = slices.map(({ sequence, tokens, logits }) => ({ sequence: sequence.id, tokens, logits }));
    if (await this.#graph.weightsChanged()) throw await this.#graph.damage(true);
    try {
      const { values: logits, caches } = await this.#graph.thread.ask({ kind: 'run', slices: message });
      for (const [i, { sequence }] of slices.entries()) sequence.restore(caches[i]);
      if (!logits.every(isNumeric)) throw await this.#graph.damage(false);
      return [...logits];
    } catch (error) {
      if (error instanceof RunFailure) {
        for (const [i, { sequence }] of slices.entries()) sequence.restore(error.caches[i]);
      }
      throw error;
    }
  }

  #ownOf(sequence: Sequence): OnnxSequence | undefined {
    return sequence instanceof OnnxSequence && sequence.belongsTo(this.#graph.thread) ? sequence : undefined;
  }

  #own(sequence: Sequence): OnnxSequence {
    const own = this.#ownOf(sequence);
    if (own) return own;
    throw new Error('The sequence was disposed or belongs to another decoder.');
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    const needed = demands.reduce((sum, { sequence, tokens }) => sum + this.#own(sequence).bytesFor(tokens), 0);
    return this.#budget.usedBytes + needed <= this.#budget.capacityBytes;
  }

  memory(): DecoderMemory {
    const { usedBytes: cacheBytes, capacityBytes: cacheCapacityBytes } = this.#budget;
    const { weightBytes, layers } = this.#graph;
    const [layer] = layers;
    const cacheBytesPerValue = layer ? bytesOf(layer) / rowsOf(layer) : 0;
    const idleLimitBytes = this.#idleLimitBytes;
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

/** The decoder's copy of the thread's cache state. */
interface Mirror {
  readonly ranges: CachedRanges;
  readonly blocks: SequenceBlocks;
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
    return this.#mirror.ranges.length;
  }

  belongsTo(thread: Thread): boolean {
    return this.#thread === thread && !this.#disposed;
  }

  /** Adopts the state that the thread reports after a forward pass. */
  restore(state: CacheState | undefined): void {
    if (!state) return;
    const { ranges, blocks } = this.#mirror;
    const wrote = state.length !== this.length;
    ranges.restore(state);
    if (wrote) blocks.replace(state.columns, ranges);
  }

  bytesFor(tokens: number): number {
    return this.#mirror.blocks.bytesFor(this.#mirror.ranges, tokens);
  }

  /** First cached position, for each window group. */
  get starts(): readonly number[] {
    return this.#mirror.ranges.starts;
  }

  truncate(length: number): number {
    if (length >= this.length) return this.length;
    this.#thread.tell({ kind: 'truncate', sequence: this.id, length });
    const { ranges, blocks } = this.#mirror;
    const reached = ranges.reachable(length);
    blocks.rewind(ranges, reached);
    ranges.truncate(reached);
    blocks.retainCheckpoints(ranges.checkpoints);
    return reached;
  }

  reachable(length: number): number {
    return this.#mirror.ranges.reachable(length);
  }

  setCheckpoints(lengths: readonly number[]): void {
    this.#thread.tell({ kind: 'checkpoints', sequence: this.id, lengths });
    const { ranges, blocks } = this.#mirror;
    ranges.setCheckpoints(lengths);
    blocks.retainCheckpoints(ranges.checkpoints);
  }

  fork(): OnnxSequence {
    const { ranges, blocks } = this.#mirror;
    return this.#forkOf({ ranges: ranges.copy(), blocks: blocks.fork() }, this.id);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#mirror.blocks.dispose();
    this.#thread.tell({ kind: 'dispose', sequence: this.id });
  }
}
