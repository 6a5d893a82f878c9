/**
 * A decoder whose layers are on several devices. Each stage is a decoder of consecutive layers with their part of the
 * KV cache; hidden states, `[tokens, hidden]` f32, cross from one to the next. Embeddings are read from the file, row
 * by row.
 */
import {
  type CacheDemand,
  reachableByAll,
  requireOwn,
  type Sequence,
  type SequenceSerializer,
  type SequenceShape,
} from '../../kv/blockCache.ts';
import { noRoomFor } from '../../kv/blocks.ts';
import { cacheValuesPerToken, type DecoderSpec } from '../../model/spec/spec.ts';
import type { DecoderWeights, Weight } from '../../model/weights/weights.ts';
import {
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  demandsOf,
  type OwnSlice,
  type SequenceSlice,
  type SubmittedPass,
  type Tuner,
} from '../backend.ts';
import { embed } from '../reference/forward.ts';
import type { LayerRange } from './index.ts';

/** Stands for a weight that another stage has. */
const absentWeight: Weight = { name: 'absent', shape: [0, 8], type: 'F32', readRows: async () => new Uint8Array() };

/** Spec and weights of some layers; the stage with the last layer has the final norm and the head. */
export function stageOf(spec: DecoderSpec, weights: DecoderWeights, { first, end }: LayerRange) {
  const isLast = end === spec.layers.length;
  return {
    spec: { ...spec, stage: isLast ? 'last' : 'inner', layers: spec.layers.slice(first, end) } satisfies DecoderSpec,
    weights: {
      embedding: absentWeight,
      layers: weights.layers.slice(first, end),
      finalNorm: isLast ? weights.finalNorm : absentWeight,
      head: isLast ? weights.head : absentWeight,
    } satisfies DecoderWeights,
  };
}

class SplitSequence implements Sequence {
  readonly parts: readonly Sequence[];
  readonly #owner: Set<SplitSequence>;

  constructor(owner: Set<SplitSequence>, parts: readonly Sequence[]) {
    this.parts = parts;
    this.#owner = owner;
    owner.add(this);
  }

  get length(): number {
    return Math.min(...this.parts.map(({ length }) => length));
  }

  truncate(length: number): number {
    const reached = this.reachable(length);
    for (const part of this.parts) part.truncate(reached);
    return reached;
  }

  reachable(length: number): number {
    return reachableByAll(this.parts, Math.min(length, this.length));
  }

  setCheckpoints(lengths: readonly number[]): void {
    for (const part of this.parts) part.setCheckpoints(lengths);
  }

  fork(): SplitSequence {
    return new SplitSequence(
      this.#owner,
      this.parts.map((part) => part.fork()),
    );
  }

  dispose(): void {
    if (!this.#owner.delete(this)) return;
    for (const part of this.parts) part.dispose();
  }
}

export interface SplitParts {
  readonly spec: DecoderSpec;
  readonly embedding: Weight;
  /** In order of computation. */
  readonly stages: readonly Decoder[];
  /** Placement of the layers, for the model card. */
  readonly notes: readonly string[];
}

export class SplitDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'split';
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly maxSequencesPerRun: number;
  readonly notes: readonly string[];
  readonly serializer: SequenceSerializer;
  /** Tuner of the last stage, which is on the fastest card. */
  readonly tuner?: Tuner;
  /** The last stage computes this pass while the first ones start the next. */
  readonly submit?: (batch: readonly SequenceSlice[]) => Promise<SubmittedPass>;
  readonly #stages: readonly Decoder[];
  readonly #embedding: Weight;
  readonly #sequences = new Set<SplitSequence>();

  constructor({ spec, embedding, stages, notes }: SplitParts) {
    const least = (of: (stage: Decoder) => number): number => Math.min(...stages.map(of));
    this.spec = spec;
    this.#embedding = embedding;
    this.#stages = stages;
    this.contextTokens = least(({ contextTokens }) => contextTokens);
    this.maxTokensPerRun = least(({ maxTokensPerRun }) => maxTokensPerRun);
    this.maxSequencesPerRun = least(({ maxSequencesPerRun }) => maxSequencesPerRun);
    this.notes = [...notes, ...new Set(stages.flatMap((stage) => stage.notes))];
    const last = stages.at(-1);
    if (last?.tuner) this.tuner = last.tuner;
    const submitLast = last?.submit?.bind(last);
    if (submitLast) {
      this.submit = (batch) => this.#whole(batch, async (slices) => submitLast(await this.#throughOthers(slices)));
    }
    this.serializer = new SplitSerializer(stages, {
      own: (sequence) => requireOwn(this.#own(sequence)),
      made: (parts) => new SplitSequence(this.#sequences, parts),
    });
  }

  createSequence(): SplitSequence {
    return new SplitSequence(
      this.#sequences,
      this.#stages.map((stage) => stage.createSequence()),
    );
  }

  run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    return this.#whole(batch, async (slices, last) => last.run(await this.#throughOthers(slices)));
  }

  /**
   * Computes a pass in all stages, the last one by `body`.
   * @throws HearthError `out-of-memory`, `context-overflow` (nothing has changed), and errors of the stages.
   */
  async #whole<Result>(
    batch: readonly SequenceSlice[],
    body: (slices: readonly OwnSlice<SplitSequence>[], last: Decoder) => Promise<Result>,
  ): Promise<Result> {
    const slices = checkedBatch(batch, this, (sequence) => this.#own(sequence));
    const demands = demandsOf(slices);
    if (!this.canAllocate(demands)) throw noRoomFor(demands);
    const last = this.#stages.at(-1);
    if (!last) throw new Error('A model has at least one stage.');
    const before = slices.map(({ sequence }) => sequence.length);
    try {
      return await body(slices, last);
    } catch (error) {
      // Stages must not hold different numbers of tokens.
      for (const [i, { sequence }] of slices.entries()) sequence.truncate(before[i] ?? 0);
      throw error;
    }
  }

  /** Runs all stages but the last. @returns its batch */
  async #throughOthers(slices: readonly OwnSlice<SplitSequence>[]): Promise<SequenceSlice[]> {
    let hidden = await Promise.all(slices.map(({ tokens }) => embed(this.spec, this.#embedding, tokens)));
    const batchOf = (index: number): SequenceSlice[] =>
      slices.map(({ sequence, tokens, logits }, i) => {
        const states = hidden[i] ?? new Float32Array();
        return { sequence: partOf(sequence, index), tokens, hidden: states, logits };
      });
    const others = this.#stages.slice(0, -1);
    for (const [index, stage] of others.entries()) {
      hidden = await stage.run(batchOf(index).map((slice) => ({ ...slice, logits: 'all' })));
    }
    return batchOf(others.length);
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    return this.#stages.every((stage, index) =>
      stage.canAllocate(
        demands.map(({ sequence, tokens }) => ({ sequence: partOf(requireOwn(this.#own(sequence)), index), tokens })),
      ),
    );
  }

  memory(): DecoderMemory {
    const all = this.#stages.map((stage) => stage.memory());
    const sum = (of: (memory: DecoderMemory) => number): number => all.reduce((total, memory) => total + of(memory), 0);
    // KV-cache bytes of one token in each stage.
    const tokenBytes = this.#stages.map(({ spec }, i) => valuesPerToken(spec) * (all[i]?.cacheBytesPerValue ?? 0));
    const allTokenBytes = tokenBytes.reduce((total, bytes) => total + bytes, 0);
    // A stage with only recurrent layers caches nothing per token.
    const idleLimits = all.flatMap(({ idleLimitBytes }, i) => {
      const own = tokenBytes[i] ?? 0;
      return idleLimitBytes === undefined || own === 0 ? [] : [(idleLimitBytes / own) * allTokenBytes];
    });
    return {
      weightBytes: sum(({ weightBytes }) => weightBytes),
      cacheBytes: sum(({ cacheBytes }) => cacheBytes),
      cacheCapacityBytes: sum(({ cacheCapacityBytes }) => cacheCapacityBytes),
      cacheBytesPerValue: allTokenBytes / valuesPerToken(this.spec),
      ...(idleLimits.length > 0 && { idleLimitBytes: Math.min(...idleLimits) }),
    };
  }

  async dispose(): Promise<void> {
    this.#sequences.clear();
    await Promise.all(this.#stages.map((stage) => stage.dispose()));
  }

  #own(sequence: Sequence): SplitSequence | undefined {
    return sequence instanceof SplitSequence && this.#sequences.has(sequence) ? sequence : undefined;
  }
}

const valuesPerToken = ({ layers }: DecoderSpec): number =>
  layers.reduce((sum, { attention }) => sum + cacheValuesPerToken(attention), 0);

function partOf({ parts }: SplitSequence, stage: number): Sequence {
  const part = parts[stage];
  if (!part) throw new Error(`The sequence has no part for stage ${stage}.`);
  return part;
}

interface SplitSequences {
  readonly own: (sequence: Sequence) => SplitSequence;
  readonly made: (parts: readonly Sequence[]) => SplitSequence;
}

/** The stages' ranges and pieces, one stage after the other. */
class SplitSerializer implements SequenceSerializer {
  readonly format: string;
  readonly #serializers: readonly SequenceSerializer[];
  /** Window groups of each stage. */
  readonly #groups: readonly number[];
  readonly #sequences: SplitSequences;

  constructor(stages: readonly Decoder[], sequences: SplitSequences) {
    this.#serializers = stages.map(({ serializer }) => serializer);
    this.#sequences = sequences;
    this.format = stages
      .map(({ spec, backend, serializer }) => `${spec.layers.length} layers by ${backend}: ${serializer.format}`)
      .join('; ');
    this.#groups = stages.map((stage) => {
      const sequence = stage.createSequence();
      const { ranges } = stage.serializer.shapeOf(sequence);
      sequence.dispose();
      return ranges.length;
    });
  }

  shapeOf(sequence: Sequence): SequenceShape {
    const own = this.#sequences.own(sequence);
    const shapes = this.#serializers.map((serializer, stage) => serializer.shapeOf(partOf(own, stage)));
    return { tokens: own.length, ranges: shapes.flatMap(({ ranges }) => ranges) };
  }

  #shapes({ tokens, ranges }: SequenceShape): SequenceShape[] {
    let at = 0;
    return this.#groups.map((count, stage) => {
      const isLast = stage === this.#groups.length - 1;
      const own = ranges.slice(at, isLast ? undefined : at + count);
      at += count;
      return { tokens, ranges: own };
    });
  }

  pieceBytes(shape: SequenceShape): number[] {
    const shapes = this.#shapes(shape);
    return this.#serializers.flatMap((serializer, stage) => serializer.pieceBytes(shapes[stage] ?? shape));
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const own = this.#sequences.own(sequence);
    for (const [stage, serializer] of this.#serializers.entries()) yield* serializer.save(partOf(own, stage));
  }

  canAllocate(shape: SequenceShape): boolean {
    const shapes = this.#shapes(shape);
    return this.#serializers.every((serializer, stage) => serializer.canAllocate(shapes[stage] ?? shape));
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const shapes = this.#shapes(shape);
    const iterator = pieces[Symbol.asyncIterator]();
    const parts: Sequence[] = [];
    try {
      for (const [stage, serializer] of this.#serializers.entries()) {
        const own = shapes[stage] ?? shape;
        const isLast = stage === this.#serializers.length - 1;
        // The last stage takes all remaining pieces and refuses surplus ones.
        const count = isLast ? Number.POSITIVE_INFINITY : serializer.pieceBytes(own).length;
        parts.push(await serializer.restore(own, next(iterator, count)));
      }
      return this.#sequences.made(parts);
    } catch (error) {
      for (const part of parts) part.dispose();
      throw error;
    } finally {
      await iterator.return?.();
    }
  }
}

async function* next(iterator: AsyncIterator<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) {
    const { done, value } = await iterator.next();
    if (done) return;
    yield value;
  }
}
