/** The weights of this backend: f32 matrices. Routed experts are dequantised when a token needs them. */
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  ExpertsWeights,
  FeedForwardWeights,
  GatedDeltaWeights,
  GroupedQueryWeights,
  LatentWeights,
  LayerNorms,
  Linear,
  Weight,
} from '../../model/weights/weights.ts';
import { loadNorms } from '../../model/weights/weights.ts';
import { columnsOf, readValues, rowsOf } from '../../model/weights/weightViews.ts';
import type { Matrix } from './linear.ts';

// Dequantised experts, least recently used evicted first: a large model's experts don't all fit in memory.

const maxBytes = 1024 * 1024 * 1024;

class ExpertCache {
  /** Least recently used first. */
  readonly #networks = new Map<string, GatedNetwork>();
  bytes = 0;

  async get(key: string, expand: () => Promise<GatedNetwork>): Promise<GatedNetwork> {
    const network = this.#networks.get(key) ?? (await expand());
    if (!this.#networks.delete(key)) this.bytes += bytesOf(network);
    this.#networks.set(key, network);
    for (const [oldKey, old] of this.#networks) {
      if (this.bytes <= maxBytes || oldKey === key) break;
      this.#networks.delete(oldKey);
      this.bytes -= bytesOf(old);
    }
    return network;
  }
}

function bytesOf({ gate, up, down }: GatedNetwork): number {
  return [gate, up, down].reduce((sum, { weight }) => sum + weight.values.byteLength, 0);
}

export interface DenseLinear {
  readonly weight: Matrix;
  readonly bias?: Float32Array;
}

export interface GroupedQueryLayer {
  readonly kind: 'grouped-query';
  readonly query: DenseLinear;
  readonly key: DenseLinear;
  readonly value: DenseLinear;
  readonly output: DenseLinear;
  readonly gate?: DenseLinear;
  readonly queryNorm?: Float32Array;
  readonly keyNorm?: Float32Array;
  readonly sinks?: Float32Array;
}

export interface LatentLayer {
  readonly kind: 'latent';
  readonly queryDown?: Matrix;
  readonly queryNorm?: Float32Array;
  readonly queryUp: Matrix;
  readonly keyValueDown: Matrix;
  readonly keyValueNorm: Float32Array;
  /** `[heads, nope, keyValueRank]` */
  readonly keyUp: Float32Array;
  /** `[heads, value, keyValueRank]` */
  readonly valueUp: Float32Array;
  readonly output: Matrix;
}

export interface GatedDeltaLayer {
  readonly kind: 'gated-delta';
  readonly query: Matrix;
  readonly key: Matrix;
  readonly value: Matrix;
  readonly gate: Matrix;
  readonly beta: Matrix;
  readonly decay: Matrix;
  readonly decayBias: Float32Array;
  readonly decayRate: Float32Array;
  readonly convolution: Matrix;
  readonly norm: Float32Array;
  readonly output: Matrix;
}

export type AttentionLayer = GroupedQueryLayer | LatentLayer | GatedDeltaLayer;

export interface GatedNetwork {
  readonly kind: 'dense';
  readonly gate: DenseLinear;
  readonly up: DenseLinear;
  readonly down: DenseLinear;
}

export interface PlainNetwork {
  readonly kind: 'plain';
  readonly up: DenseLinear;
  readonly down: DenseLinear;
}

export interface ExpertsLayer {
  readonly kind: 'experts';
  readonly router: DenseLinear;
  readonly selectionBias?: Float32Array;
  readonly shared?: GatedNetwork;
  readonly sharedGate?: Matrix;
  expert(index: number): Promise<GatedNetwork>;
}

export interface ReferenceLayer extends LayerNorms<Float32Array> {
  readonly attention: AttentionLayer;
  readonly feedForward: GatedNetwork | PlainNetwork | ExpertsLayer;
}

export interface ReferenceWeights {
  readonly spec: DecoderSpec;
  /** Rows are read when tokens need them. */
  readonly embedding: Weight;
  readonly layers: readonly ReferenceLayer[];
  readonly finalNorm: Float32Array;
  /** Absent for an embedding model and for an inner stage. */
  readonly head?: Matrix;
  readonly experts: ExpertCache;
}

/** Reads one weight as f32. Reports progress and throws on cancellation. */
export type ReadWeight = (weight: Weight) => Promise<Float32Array>;

export async function loadDecoder(
  spec: DecoderSpec,
  weights: DecoderWeights,
  read: ReadWeight,
): Promise<ReferenceWeights> {
  const layers: ReferenceLayer[] = [];
  const experts = new ExpertCache();
  for (const layer of weights.layers) {
    layers.push({
      ...(await loadNorms(layer, read)),
      attention: await loadAttention(layer.attention, read),
      feedForward: await loadFeedForward(layer.feedForward, read, experts),
    });
  }
  return {
    spec,
    embedding: weights.embedding,
    layers,
    finalNorm: await read(weights.finalNorm),
    ...(!spec.headless && spec.stage !== 'inner' && { head: await matrix(weights.head, read) }),
    experts,
  };
}

function loadAttention(attention: AttentionWeights, read: ReadWeight): Promise<AttentionLayer> {
  if (attention.kind === 'gated-delta') return loadGatedDelta(attention, read);
  return attention.kind === 'latent' ? loadLatent(attention, read) : loadGroupedQuery(attention, read);
}

async function loadGroupedQuery(weights: GroupedQueryWeights, read: ReadWeight): Promise<GroupedQueryLayer> {
  return {
    kind: 'grouped-query',
    query: await loadLinear(weights.query, read),
    key: await loadLinear(weights.key, read),
    value: await loadLinear(weights.value, read),
    output: await loadLinear(weights.output, read),
    ...(weights.gate && { gate: await loadLinear(weights.gate, read) }),
    ...(weights.queryNorm && { queryNorm: await read(weights.queryNorm) }),
    ...(weights.keyNorm && { keyNorm: await read(weights.keyNorm) }),
    ...(weights.sinks && { sinks: await read(weights.sinks) }),
  };
}

async function loadGatedDelta(weights: GatedDeltaWeights, read: ReadWeight): Promise<GatedDeltaLayer> {
  return {
    kind: 'gated-delta',
    query: await matrix(weights.query, read),
    key: await matrix(weights.key, read),
    value: await matrix(weights.value, read),
    gate: await matrix(weights.gate, read),
    beta: await matrix(weights.beta, read),
    decay: await matrix(weights.decay, read),
    decayBias: await read(weights.decayBias),
    decayRate: await read(weights.decayRate),
    convolution: await matrix(weights.convolution, read),
    norm: await read(weights.norm),
    output: await matrix(weights.output, read),
  };
}

async function loadLatent(weights: LatentWeights, read: ReadWeight): Promise<LatentLayer> {
  const keyUp = await read(weights.keyUp.weight);
  return {
    kind: 'latent',
    ...(weights.queryDown && { queryDown: await matrix(weights.queryDown, read) }),
    ...(weights.queryNorm && { queryNorm: await read(weights.queryNorm) }),
    queryUp: await matrix(weights.queryUp, read),
    keyValueDown: await matrix(weights.keyValueDown, read),
    keyValueNorm: await read(weights.keyValueNorm),
    keyUp: weights.keyUp.transposed ? transposeEach(keyUp, weights.keyUp.weight.shape) : keyUp,
    valueUp: await read(weights.valueUp),
    output: await matrix(weights.output, read),
  };
}

async function loadFeedForward(
  weights: FeedForwardWeights,
  read: ReadWeight,
  experts: ExpertCache,
): Promise<ReferenceLayer['feedForward']> {
  if (weights.kind === 'plain') {
    return { kind: 'plain', up: await loadLinear(weights.up, read), down: await loadLinear(weights.down, read) };
  }
  return weights.kind === 'dense' ? loadDense(weights, read) : loadExperts(weights, read, experts);
}

async function loadDense({ gate, up, down }: DenseWeights, read: ReadWeight): Promise<GatedNetwork> {
  return {
    kind: 'dense',
    gate: { weight: await matrix(gate, read) },
    up: { weight: await matrix(up, read) },
    down: { weight: await matrix(down, read) },
  };
}

async function loadExperts(weights: ExpertsWeights, read: ReadWeight, cache: ExpertCache): Promise<ExpertsLayer> {
  const { gate, up, down } = weights;
  const expand = async (index: number): Promise<GatedNetwork> => ({
    kind: 'dense',
    gate: await oneExpert(gate, index),
    up: await oneExpert(up, index),
    down: await oneExpert(down, index),
  });
  return {
    kind: 'experts',
    router: await loadLinear(weights.router, read),
    ...(weights.selectionBias && { selectionBias: await read(weights.selectionBias) }),
    ...(weights.shared && { shared: await loadDense(weights.shared, read) }),
    ...(weights.sharedGate && { sharedGate: await matrix(weights.sharedGate, read) }),
    expert: (index) => cache.get(`${gate.weight.name} ${index}`, () => expand(index)),
  };
}

/** Matrix `index` of `[experts, out, in]`, row `index` of `[experts, out]`. */
async function oneExpert({ weight, bias }: Linear, index: number): Promise<DenseLinear> {
  const rows = weight.shape.at(-2) ?? 1;
  const values = await readValues(weight, index * rows, rows);
  return {
    weight: { rows, columns: columnsOf(weight.shape), values },
    ...(bias && { bias: await readValues(bias, index, 1) }),
  };
}

async function loadLinear({ weight, bias }: Linear, read: ReadWeight): Promise<DenseLinear> {
  return { weight: await matrix(weight, read), ...(bias && { bias: await read(bias) }) };
}

async function matrix(weight: Weight, read: ReadWeight): Promise<Matrix> {
  return { rows: rowsOf(weight.shape), columns: columnsOf(weight.shape), values: await read(weight) };
}

/** `[n, a, b]` to `[n, b, a]` */
function transposeEach(values: Float32Array, [n = 1, a = 1, b = 1]: readonly number[]): Float32Array {
  const transposed = new Float32Array(values.length);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < a; j++) {
      for (let k = 0; k < b; k++) transposed[(i * b + k) * a + j] = values[(i * a + j) * b + k] ?? 0;
    }
  }
  return transposed;
}
