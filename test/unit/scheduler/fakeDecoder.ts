import type {
  BackendName,
  Decoder,
  DecoderMemory,
  DeviceSampling,
  SamplingSlice,
  SequenceSlice,
  SubmittedPass,
  Tuner,
} from '../../../engine/backend/backend.ts';
import { argmax, without } from '../../../engine/backend/sampler.ts';
import type { CacheDemand, Sequence, SequenceSerializer } from '../../../engine/kv/blockCache.ts';
import { BlockPool, BlockTable } from '../../../engine/kv/blocks.ts';
import type { DecoderSpec } from '../../../engine/model/spec/spec.ts';

/** What a fake decoder was asked to do, in order. */
export interface FakeRun {
  readonly tokens: readonly number[];
  /** Tokens of the sequence before the run. */
  readonly start: number;
  /** How many sequences the run took. */
  readonly sequences: number;
}

/** Tokens of a block. */
const blockTokens = 32;

class FakeSequence implements Sequence {
  tokens: number[] = [];
  disposed = false;
  readonly table: BlockTable;
  readonly #live: Set<FakeSequence>;

  constructor(live: Set<FakeSequence>, table: BlockTable) {
    this.#live = live;
    this.table = table;
    live.add(this);
  }

  get length(): number {
    return this.tokens.length;
  }

  append(tokens: readonly number[]): void {
    this.table.prepare(this.length, this.length + tokens.length);
    this.tokens.push(...tokens);
    this.table.slide(this.length);
  }

  truncate(length: number): number {
    this.tokens.length = this.reachable(length);
    this.table.truncate(this.tokens.length);
    return this.tokens.length;
  }

  reachable(length: number): number {
    return this.table.reachable(Math.min(length, this.tokens.length));
  }

  setCheckpoints(lengths: readonly number[]): void {
    this.table.setCheckpoints(lengths);
  }

  fork(): Sequence {
    const copy = new FakeSequence(this.#live, this.table.fork());
    copy.tokens = [...this.tokens];
    return copy;
  }

  dispose(): void {
    if (this.disposed) throw new Error('A sequence was disposed twice.');
    this.disposed = true;
    this.table.truncate(0);
    this.#live.delete(this);
  }
}

export interface FakeDecoderOptions {
  readonly backend?: BackendName;
  readonly vocabularySize?: number;
  readonly contextTokens?: number;
  /** The token that follows a sequence; by default a hash of all its tokens, so that a wrong cache shows. */
  readonly follow?: (tokens: readonly number[]) => number;
  readonly maxTokensPerRun?: number;
  readonly maxSequencesPerRun?: number;
  /** Blocks of 32 tokens that all sequences hold together. */
  readonly blocks?: number;
  /** All its layers have such a window. */
  readonly slidingWindow?: number;
  /** It samples the tokens itself, up to 16 a step. */
  readonly draws?: boolean;
  /** It samples ahead while the host takes the tokens; the log has steps and steps ahead. */
  readonly samplesAhead?: boolean;
  readonly tuner?: Tuner;
  /** It has `submit`: a pass is done when this resolves. */
  readonly afterSubmit?: (batch: readonly SequenceSlice[]) => Promise<void>;
  /** `steps`: the passes of one call, if it samples the tokens itself. */
  readonly beforeRun?: (batch: readonly SequenceSlice[], steps: number) => void | Promise<void>;
}

/** The next token by default: depends on every token before it and its place. */
export function hashOf(tokens: readonly number[], vocabularySize: number): number {
  let hash = 7;
  for (const [i, token] of tokens.entries()) hash = (Math.imul(hash, 31) + token * 17 + i) >>> 0;
  return hash % vocabularySize;
}

const spec: DecoderSpec = {
  family: 'llama',
  vocabularySize: 0,
  hiddenSize: 1,
  normEpsilon: 1e-5,
  contextTokens: 0,
  tiedEmbeddings: true,
  layers: [],
};

/** A decoder whose logits give one token all the weight, computed from the tokens in the sequence. */
export class FakeDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend: BackendName;
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly maxSequencesPerRun: number;
  readonly notes = [];
  readonly runs: FakeRun[] = [];
  readonly live = new Set<FakeSequence>();
  readonly pool: BlockPool;
  /** Steps of every call of `deviceSampling.sample`, in order. */
  readonly draws: number[] = [];
  /** Steps ahead of every call. */
  readonly ahead: number[] = [];
  readonly deviceSampling?: DeviceSampling;
  readonly tuner?: Tuner;
  readonly submit?: (batch: readonly SequenceSlice[]) => Promise<SubmittedPass>;
  /** Its tokens as 32-bit numbers, in two pieces. */
  readonly serializer: SequenceSerializer = {
    format: 'fake',
    shapeOf: ({ length }) => ({ tokens: length, ranges: [[0, length]] }),
    pieceBytes: ({ tokens }) => [4, 4 * (tokens - 1)],
    save: (sequence) => this.#save(sequence),
    canAllocate: ({ tokens }) => Math.ceil(tokens / blockTokens) <= this.pool.freeBlocks,
    restore: (_, pieces) => this.#restore(pieces),
  };
  readonly #options: FakeDecoderOptions;

  constructor(options: FakeDecoderOptions = {}) {
    this.#options = options;
    this.backend = options.backend ?? 'reference';
    this.pool = new BlockPool({
      blockTokens,
      blockBytes: blockTokens,
      blocks: options.blocks ?? 10_000,
      slidingWindow: options.slidingWindow,
    });
    this.contextTokens = options.contextTokens ?? 256;
    this.maxTokensPerRun = options.maxTokensPerRun ?? 64;
    this.maxSequencesPerRun = options.maxSequencesPerRun ?? 1;
    const sample = this.#sample.bind(this);
    const { samplesAhead = false, afterSubmit, tuner } = options;
    if (tuner) this.tuner = tuner;
    if (options.draws) this.deviceSampling = { maxSteps: 16, samplesAhead, supports: () => true, sample };
    if (afterSubmit) {
      this.submit = async (batch) => {
        await options.beforeRun?.(batch, 1);
        for (const slice of batch) this.#step(slice, batch.length);
        return { done: afterSubmit(batch) };
      };
    }
    this.spec = { ...spec, vocabularySize: options.vocabularySize ?? 50, contextTokens: this.contextTokens };
  }

  createSequence(): Sequence {
    return new FakeSequence(this.live, new BlockTable(this.pool));
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    await this.#options.beforeRun?.(batch, 1);
    return batch.map((slice) => this.#step(slice, batch.length));
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    const needed = demands.reduce((sum, { sequence, tokens }) => {
      if (!(sequence instanceof FakeSequence)) throw new Error("another decoder's sequence");
      return sum + sequence.table.blocksNeeded(sequence.length, sequence.length + tokens);
    }, 0);
    return needed <= this.pool.freeBlocks;
  }

  memory(): DecoderMemory {
    const { usedBlocks, freeBlocks } = this.pool;
    const cacheCapacityBytes = (usedBlocks + freeBlocks) * blockTokens;
    return { weightBytes: 0, cacheBytes: usedBlocks * blockTokens, cacheCapacityBytes, cacheBytesPerValue: 1 };
  }

  async dispose(): Promise<void> {
    this.live.clear();
  }

  async *#save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    if (!(sequence instanceof FakeSequence)) throw new Error("another decoder's sequence");
    const ids = new Uint8Array(Uint32Array.from(sequence.tokens).buffer);
    yield ids.subarray(0, 4);
    yield ids.subarray(4);
  }

  async #restore(pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sequence = new FakeSequence(this.live, new BlockTable(this.pool));
    try {
      for await (const piece of pieces) sequence.append([...new Uint32Array(piece.slice().buffer)]);
      return sequence;
    } catch (error) {
      sequence.dispose();
      throw error;
    }
  }

  /** Greedy whatever the rules, except for forbidden tokens. */
  async #sample(slices: readonly SamplingSlice[], steps: number, ahead = 0): Promise<number[][]> {
    this.draws.push(steps);
    this.ahead.push(ahead);
    for (const { sequence, uniforms } of slices) {
      if (sequence.length + steps + ahead > this.contextTokens) throw new Error('The fake context has no room ahead.');
      if (uniforms.length < steps + ahead) throw new Error('Too few random numbers.');
    }
    const batch = slices.map(({ sequence, token }) => ({ sequence, tokens: [token], logits: 'last' as const }));
    await this.#options.beforeRun?.(batch, steps);
    return slices.map(({ sequence, token, stopIds, forbidden }) => {
      const sampled: number[] = [];
      for (let next = token; sampled.length < steps && !stopIds.has(sampled.at(-1) ?? -1); ) {
        const logits = this.#step({ sequence, tokens: [next], logits: 'last' }, slices.length);
        next = argmax(without(logits, forbidden));
        sampled.push(next);
      }
      return sampled;
    });
  }

  #step({ sequence, tokens, logits }: SequenceSlice, sequences: number): Float32Array {
    if (!(sequence instanceof FakeSequence) || sequence.disposed) throw new Error('A sequence was used after its end.');
    if (sequence.length + tokens.length > this.contextTokens) throw new Error('The fake context is full.');
    this.runs.push({ tokens: [...tokens], start: sequence.length, sequences });
    const { vocabularySize } = this.spec;
    const firstRow = logits === 'all' ? 0 : logits === 'last' ? tokens.length - 1 : tokens.length;
    const rows = new Float32Array((tokens.length - firstRow) * vocabularySize).fill(-20);
    for (const [i, token] of tokens.entries()) {
      sequence.append([token]);
      if (i < firstRow) continue;
      const follow = this.#options.follow ?? ((all) => hashOf(all, vocabularySize));
      rows[(i - firstRow) * vocabularySize + follow(sequence.tokens)] = 20;
    }
    return rows;
  }
}
