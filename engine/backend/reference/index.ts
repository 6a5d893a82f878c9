/**
 * The reference backend: plain TypeScript, f32 values with float64 sums, no optimisations that obscure it. The other
 * backends are tested against it. Start reading at forward.ts.
 */
import { HearthError, showBytes, throwIfAborted } from '../../errors.ts';
import type { CacheDemand, SequenceSerializer } from '../../kv/blockCache.ts';
import {
  type AttentionSpec,
  cacheValuesPerToken,
  convolutionChannels,
  type DecoderSpec,
} from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights, Weight } from '../../model/weights/weights.ts';
import { readValues, rowsOf, weightBytesOf } from '../../model/weights/weightViews.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import {
  type Backend,
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  fullContexts,
  type LoadOptions,
  type SequenceSlice,
} from '../backend.ts';
import { hostMemory, type MemoryPlan, type MemoryPool, type ModelNeeds, planMemory } from '../memoryPlan.ts';
import { ReferenceSequence, ReferenceSerializer } from './cache.ts';
import { forward } from './forward.ts';
import { linear } from './linear.ts';
import { loadDecoder, type ReferenceWeights } from './weights.ts';

const maxTokensPerRun = 1024;
const maxSequencesPerRun = 64;

export const referenceBackend: Backend = {
  name: 'reference',
  async load(spec, weights, options) {
    const tokenBytes = cacheBytesOfToken(spec);
    const needs: ModelNeeds = {
      weightBytes: residentBytes(spec, weights),
      scratchBytes: 0,
      cacheBytes: (tokens) => tokens * tokenBytes,
      longestTokens: spec.contextTokens,
    };
    const host = hostMemory();
    requireMemory(needs, host);
    const memory = planMemory(needs, host, options.contextTokens);
    const loadedWeights = await loadDecoder(spec, weights, countingReader(spec, weights, options));
    return new ReferenceDecoder(loadedWeights, needs.weightBytes, { ...options, ...memory });
  },
};

class ReferenceDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'reference';
  readonly contextTokens: number;
  readonly maxTokensPerRun = maxTokensPerRun;
  readonly maxSequencesPerRun = maxSequencesPerRun;
  /** f32 holds every stored value exactly; only the KV cache may lose precision. */
  readonly notes: readonly string[];
  readonly serializer: SequenceSerializer;
  readonly #weights: ReferenceWeights;
  readonly #precision: CachePrecision;
  readonly #weightBytes: number;
  readonly #tokenBytes: number;
  readonly #cacheCapacityBytes: number;
  readonly #sequences = new Set<ReferenceSequence>();

  constructor(weights: ReferenceWeights, weightBytes: number, options: LoadOptions & MemoryPlan) {
    const { contextTokens, cacheBudgetBytes, cachePrecision = 'f32' } = options;
    this.#precision = cachePrecision;
    this.notes = {
      f32: [],
      f16: ['The KV cache is rounded to f16.'],
      q8: ['The KV cache is rounded to 8 bits, with one scale for 32 values.'],
    }[cachePrecision];
    this.spec = weights.spec;
    this.#weights = weights;
    this.#weightBytes = weightBytes;
    this.contextTokens = contextTokens;
    this.#tokenBytes = cacheBytesOfToken(weights.spec);
    this.#cacheCapacityBytes = Math.min(cacheBudgetBytes, fullContexts * contextTokens * this.#tokenBytes);
    this.serializer = new ReferenceSerializer(
      this,
      cachePrecision === 'f32' ? 'f32 by token' : `${cachePrecision} as f32 by token`,
      (tokens) => this.#usedBytes() + tokens * this.#tokenBytes <= this.#cacheCapacityBytes,
    );
  }

  createSequence(): ReferenceSequence {
    return ReferenceSequence.empty(this.#sequences, this.spec, this.#precision);
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = checkedBatch(batch, this, (sequence) =>
      sequence instanceof ReferenceSequence && this.#sequences.has(sequence) ? sequence : undefined,
    );
    const hidden = await forward(this.#weights, slices);
    const { hiddenSize } = this.spec;
    let row = 0;
    return slices.map(({ sequence, tokens, logits }) => {
      const end = row + tokens.length;
      const first = logits === 'all' ? row : logits === 'last' && tokens.length > 0 ? end - 1 : end;
      sequence.length += tokens.length;
      row = end;
      const rows = hidden.subarray(first * hiddenSize, end * hiddenSize);
      return this.#weights.head ? linear(rows, this.#weights.head) : rows.slice();
    });
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    const tokensOf = new Map(demands.map(({ sequence, tokens }) => [sequence, tokens]));
    const tokens = [...this.#sequences].reduce((sum, sequence) => sum + (tokensOf.get(sequence) ?? 0), 0);
    return this.#usedBytes() + tokens * this.#tokenBytes <= this.#cacheCapacityBytes;
  }

  #usedBytes(): number {
    return [...this.#sequences].reduce((sum, { length }) => sum + length * this.#tokenBytes, 0);
  }

  memory(): DecoderMemory {
    const cacheBytes = [...this.#sequences].reduce((sum, sequence) => sum + sequence.bytes, 0);
    const weightBytes = this.#weightBytes + this.#weights.experts.bytes;
    return { weightBytes, cacheBytes, cacheCapacityBytes: this.#cacheCapacityBytes, cacheBytesPerValue: 4 };
  }

  async dispose(): Promise<void> {
    this.#sequences.clear();
  }
}

const cacheBytesOfToken = ({ layers }: DecoderSpec): number =>
  layers.reduce((sum, { attention }) => sum + 4 * rowValues(attention), 0);

/** Cached values of a token. For a gated delta net: the rows from which its state is computed. */
const rowValues = (attention: AttentionSpec): number =>
  attention.kind === 'gated-delta'
    ? convolutionChannels(attention) + 2 * attention.numValueHeads
    : cacheValuesPerToken(attention);

/** Bytes of the weights that stay in memory as f32: all except the embedding and the routed experts. */
function residentBytes(spec: DecoderSpec, weights: DecoderWeights): number {
  return residentWeights(spec, weights).reduce(
    (sum, { shape }) => sum + shape.reduce((product, n) => product * n, 4),
    0,
  );
}

function residentWeights({ headless }: DecoderSpec, weights: DecoderWeights): Weight[] {
  return listWeights(weights)
    .filter(({ role }) => role !== 'embedding' && role !== 'routed-experts' && !(headless && role === 'head'))
    .map(({ weight }) => weight);
}

/** The weights are allocated at once, so they must fit the available memory. */
function requireMemory({ weightBytes }: ModelNeeds, { availableBytes }: MemoryPool): void {
  if (weightBytes <= availableBytes) return;
  throw new HearthError(
    'out-of-memory',
    `The reference backend needs ${showBytes(weightBytes)} for weights as 32-bit floats, but only ${showBytes(availableBytes)} are free. Use another backend.`,
  );
}

function countingReader(
  spec: DecoderSpec,
  weights: DecoderWeights,
  { onProgress, signal }: LoadOptions,
): (weight: Weight) => Promise<Float32Array> {
  const totalBytes = residentWeights(spec, weights).reduce((sum, weight) => sum + weightBytesOf(weight), 0);
  let doneBytes = 0;
  return async (weight) => {
    throwIfAborted(signal);
    const values = await readValues(weight, 0, rowsOf(weight.shape));
    doneBytes += weightBytesOf(weight);
    onProgress?.({ doneBytes, totalBytes });
    return values;
  };
}
