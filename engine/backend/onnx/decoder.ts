/** A decoder whose graph runs on a thread of its own. */
import { HearthError, invalidInput } from '../../errors.ts';
import type { DecoderSpec } from '../../model/spec.ts';
import type { Decoder, DecoderMemory, Sequence, SequenceSlice } from '../backend.ts';
import { CacheExtent } from './cacheExtent.ts';
import type { SpanPlan } from './plan.ts';
import { RunFailure, type ThreadClient } from './threadClient.ts';

/** Enough rows for the matrix products to reach full speed, few enough that a cancellation is soon heard. */
const maxTokensPerRun = 512;

export interface LoadedGraph {
  readonly spec: DecoderSpec;
  readonly contextTokens: number;
  readonly notes: readonly string[];
  readonly spans: readonly SpanPlan[];
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
  private readonly loaded: LoadedGraph;
  private cacheBytes = 0;
  private sequences = 0;
  private end: Promise<void> | undefined;

  constructor(loaded: LoadedGraph) {
    this.loaded = loaded;
    this.spec = loaded.spec;
    this.contextTokens = loaded.contextTokens;
    this.notes = loaded.notes;
  }

  createSequence(): OnnxSequence {
    const sequence = this.newSequence(new CacheExtent(this.loaded.spans));
    this.loaded.thread.tell({ kind: 'create', sequence: sequence.id });
    return sequence;
  }

  private newSequence(extent: CacheExtent): OnnxSequence {
    const { thread } = this.loaded;
    return new OnnxSequence(this.sequences++, thread, extent, (copy, from) => {
      const fork = this.newSequence(copy);
      thread.tell({ kind: 'fork', sequence: fork.id, from });
      return fork;
    });
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = batch.map(({ sequence, tokens, logits }) => ({ sequence: this.own(sequence), tokens, logits }));
    if (slices.length > 1) throw new Error('a run larger than maxSequencesPerRun');
    for (const { sequence, tokens } of slices) this.check(sequence.length, tokens);
    const message = slices.map(({ sequence, tokens, logits }) => ({ sequence: sequence.id, tokens, logits }));
    try {
      const { logits, extents, cacheBytes } = await this.loaded.thread.ask({ kind: 'run', slices: message });
      this.cacheBytes = cacheBytes;
      for (const [i, { sequence }] of slices.entries()) sequence.restore(extents[i]);
      return [...logits];
    } catch (error) {
      if (error instanceof RunFailure) {
        for (const [i, { sequence }] of slices.entries()) sequence.restore(error.extents[i]);
      }
      throw error;
    }
  }

  private own(sequence: Sequence): OnnxSequence {
    if (sequence instanceof OnnxSequence && sequence.belongsTo(this.loaded.thread)) return sequence;
    throw new Error('a sequence of another decoder, or one that was disposed');
  }

  private check(length: number, tokens: readonly number[]): void {
    if (tokens.length > maxTokensPerRun) throw new Error('a run larger than maxTokensPerRun');
    const needed = length + tokens.length;
    if (needed > this.contextTokens) {
      throw new HearthError(
        'context-overflow',
        `${needed} tokens do not fit the context of ${this.contextTokens}; nothing was changed. Shorten the prompt.`,
      );
    }
    const strange = tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= this.spec.vocabularySize);
    if (strange !== undefined) throw invalidInput(`Token ${strange} is not in the vocabulary.`);
  }

  /** The cache is as large as it was after the last run. */
  memory(): DecoderMemory {
    return { weightBytes: this.loaded.weightBytes, cacheBytes: this.cacheBytes };
  }

  dispose(): Promise<void> {
    this.end ??= this.loaded.thread.end().finally(this.loaded.cleanUp);
    return this.end;
  }
}

type Fork = (extent: CacheExtent, from: number) => OnnxSequence;

class OnnxSequence implements Sequence {
  readonly id: number;
  private readonly thread: ThreadClient;
  private readonly extent: CacheExtent;
  private readonly forkOf: Fork;
  private disposed = false;

  constructor(id: number, thread: ThreadClient, extent: CacheExtent, forkOf: Fork) {
    this.id = id;
    this.thread = thread;
    this.extent = extent;
    this.forkOf = forkOf;
  }

  get length(): number {
    return this.extent.length;
  }

  belongsTo(thread: ThreadClient): boolean {
    return this.thread === thread && !this.disposed;
  }

  restore(state: Parameters<CacheExtent['restore']>[0] | undefined): void {
    if (state) this.extent.restore(state);
  }

  truncate(length: number): number {
    if (length < this.length) this.thread.tell({ kind: 'truncate', sequence: this.id, length });
    return this.extent.truncate(length);
  }

  fork(): OnnxSequence {
    return this.forkOf(this.extent.copy(), this.id);
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.thread.tell({ kind: 'dispose', sequence: this.id });
  }
}
