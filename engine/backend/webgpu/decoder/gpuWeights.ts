/** The weights on the GPU, by role. */
import { unsupported } from '../../../errors.ts';
import { blockLayout } from '../../../formats/tensor.ts';
import type { DecoderSpec, GatedDeltaSpec } from '../../../model/spec/spec.ts';
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
} from '../../../model/weights/weights.ts';
import { loadNorms } from '../../../model/weights/weights.ts';
import { columnsOf, rowsOf, transposedWeight } from '../../../model/weights/weightViews.ts';
import { longestKey } from '../kernels/gatedDelta.ts';
import type { OutsideExperts } from './outsideExperts.ts';
import type { GpuMatrix, Uploader } from './weightLayout.ts';

export interface GpuLinear {
  readonly weight: GpuMatrix;
  /** f32 */
  readonly bias?: GPUBuffer;
}

export interface GpuGroupedQuery {
  readonly kind: 'grouped-query';
  readonly query: GpuLinear;
  readonly key: GpuLinear;
  readonly value: GpuLinear;
  readonly output: GpuLinear;
  readonly gate?: GpuLinear;
  /** Query, key and value biases in one buffer: `[heads + 2 kvHeads, headDim]` */
  readonly biases?: GPUBuffer;
  /** `[2, headDim]`: for query and key. */
  readonly norms?: GPUBuffer;
  /** `[heads]` */
  readonly sinks?: GPUBuffer;
}

export interface GpuDense {
  readonly kind: 'dense';
  readonly gate: GpuLinear;
  readonly up: GpuLinear;
  readonly down: GpuLinear;
}

export interface GpuPlain {
  readonly kind: 'plain';
  readonly up: GpuLinear;
  readonly down: GpuLinear;
}

export interface GpuLatent {
  readonly kind: 'latent';
  readonly queryDown?: GpuLinear;
  readonly queryNorm?: GPUBuffer;
  readonly queryUp: GpuLinear;
  readonly keyValueDown: GpuLinear;
  readonly keyValueNorm: GPUBuffer;
  /** `[heads, keyValueRank, nope]`: projects a query into the latent space. */
  readonly keyUp: GpuLinear;
  /** `[heads, value, keyValueRank]` */
  readonly valueUp: GpuLinear;
  readonly output: GpuLinear;
}

export interface GpuGatedDelta {
  readonly kind: 'gated-delta';
  readonly query: GpuLinear;
  readonly key: GpuLinear;
  readonly value: GpuLinear;
  readonly gate: GpuLinear;
  readonly beta: GpuLinear;
  readonly decay: GpuLinear;
  /** `[2, valueHeads]`: the decay's rate and its bias. */
  readonly factors: GPUBuffer;
  /** `[channels, convolutionTokens]` */
  readonly convolution: GPUBuffer;
  /** `[valueHeadDim]` */
  readonly norm: GPUBuffer;
  readonly output: GpuLinear;
}

type GpuAttention = GpuGroupedQuery | GpuLatent | GpuGatedDelta;

export interface GpuExperts {
  readonly kind: 'experts';
  readonly router: GpuLinear;
  readonly selectionBias?: GPUBuffer;
  readonly gate: GpuLinear;
  readonly up: GpuLinear;
  readonly down: GpuLinear;
  readonly shared?: GpuDense;
  readonly sharedGate?: GpuLinear;
  /**
   * Its matrices are not on the card (outsideExperts.ts). They are sent when tokens have chosen them; or only for
   * prompts, and the CPU computes the other passes.
   */
  readonly outside?: 'sent' | 'computed';
}

export interface GpuLayer extends LayerNorms<GPUBuffer> {
  readonly attention: GpuAttention;
  readonly feedForward: GpuDense | GpuPlain | GpuExperts;
}

export interface GpuWeights {
  readonly embedding: GpuMatrix;
  readonly layers: readonly GpuLayer[];
  readonly finalNorm: GPUBuffer;
  /** The embedding itself if tied. */
  readonly head: GpuMatrix;
}

/** Creates the buffers of every weight; `Uploader.upload` fills them. */
export async function placeWeights(
  weights: DecoderWeights,
  uploader: Uploader,
  outside?: OutsideExperts,
): Promise<GpuWeights> {
  const embedding = await uploader.matrix(weights.embedding);
  const layers: GpuLayer[] = [];
  for (const [index, layer] of weights.layers.entries()) {
    layers.push({
      ...(await loadNorms(layer, (norm) => uploader.vector(norm))),
      attention: await placeAttention(layer.attention, uploader),
      feedForward: await placeFeedForward(layer.feedForward, uploader, { index, outside }),
    });
  }
  return {
    embedding,
    layers,
    finalNorm: await uploader.vector(weights.finalNorm),
    head: weights.head === weights.embedding ? embedding : await uploader.matrix(weights.head),
  };
}

function placeAttention(weights: AttentionWeights, uploader: Uploader): Promise<GpuAttention> {
  if (weights.kind === 'gated-delta') return placeGatedDelta(weights, uploader);
  return weights.kind === 'latent' ? placeLatent(weights, uploader) : placeGroupedQuery(weights, uploader);
}

async function placeGatedDelta(weights: GatedDeltaWeights, uploader: Uploader): Promise<GpuGatedDelta> {
  const matrix = async (weight: Weight) => ({ weight: await uploader.matrix(weight) });
  return {
    kind: 'gated-delta',
    query: await matrix(weights.query),
    key: await matrix(weights.key),
    value: await matrix(weights.value),
    gate: await matrix(weights.gate),
    beta: await matrix(weights.beta),
    decay: await matrix(weights.decay),
    factors: await uploader.vector(weights.decayRate, weights.decayBias),
    convolution: await uploader.vector(weights.convolution),
    norm: await uploader.vector(weights.norm),
    output: await matrix(weights.output),
  };
}

async function placeLatent(weights: LatentWeights, uploader: Uploader): Promise<GpuLatent> {
  const { queryDown, queryNorm, keyUp } = weights;
  const matrix = async (weight: Weight) => ({ weight: await uploader.matrix(weight) });
  return {
    kind: 'latent',
    ...(queryDown && { queryDown: await matrix(queryDown) }),
    ...(queryNorm && { queryNorm: await uploader.vector(queryNorm) }),
    queryUp: await matrix(weights.queryUp),
    keyValueDown: await matrix(weights.keyValueDown),
    keyValueNorm: await uploader.vector(weights.keyValueNorm),
    keyUp: await matrix(keyUp.transposed ? keyUp.weight : transposedHeads(keyUp.weight)),
    valueUp: await matrix(weights.valueUp),
    output: await matrix(weights.output),
  };
}

/** `[heads, nope, rank]` as `[heads, rank, nope]`, block scales included. */
function transposedHeads(weight: Weight): Weight {
  const transposed = transposedWeight(weight);
  const { blockScale } = weight;
  if (!blockScale) return transposed;
  const { blockRows, blockColumns } = blockScale;
  const [, rows = 1, columns = 1] = weight.shape;
  const scaleRows = Math.ceil(rows / blockRows);
  const scaleColumns = Math.ceil(columns / blockColumns);
  const read = async () => {
    const stored = await blockScale.read();
    return stored.map((_, i) => {
      const head = Math.floor(i / (scaleRows * scaleColumns));
      const column = Math.floor(i / scaleRows) % scaleColumns;
      return stored[(head * scaleRows + (i % scaleRows)) * scaleColumns + column] ?? 0;
    });
  };
  return { ...transposed, blockScale: { blockRows: blockColumns, blockColumns: blockRows, read } };
}

async function placeGroupedQuery(weights: GroupedQueryWeights, uploader: Uploader): Promise<GpuGroupedQuery> {
  const { queryNorm, keyNorm, sinks } = weights;
  const biases = [weights.query, weights.key, weights.value].flatMap(({ bias }) => (bias ? [bias] : []));
  return {
    kind: 'grouped-query',
    ...(biases.length === 3 && { biases: await uploader.vector(...biases) }),
    query: await placeLinear(weights.query, uploader),
    key: await placeLinear(weights.key, uploader),
    value: await placeLinear(weights.value, uploader),
    output: await placeLinear(weights.output, uploader),
    ...(weights.gate && { gate: await placeLinear(weights.gate, uploader) }),
    ...(queryNorm && keyNorm && { norms: await uploader.vector(queryNorm, keyNorm) }),
    ...(sinks && { sinks: await uploader.vector(sinks) }),
  };
}

interface PlacedLayer {
  readonly index: number;
  readonly outside: OutsideExperts | undefined;
}

async function placeFeedForward(
  weights: FeedForwardWeights,
  uploader: Uploader,
  layer: PlacedLayer,
): Promise<GpuLayer['feedForward']> {
  if (weights.kind === 'plain') {
    const [up, down] = [await placeLinear(weights.up, uploader), await placeLinear(weights.down, uploader)];
    return { kind: 'plain', up, down };
  }
  return weights.kind === 'dense' ? placeDense(weights, uploader) : placeExperts(weights, uploader, layer);
}

async function placeExperts(
  weights: ExpertsWeights,
  uploader: Uploader,
  { index, outside }: PlacedLayer,
): Promise<GpuExperts> {
  const { selectionBias, shared, sharedGate } = weights;
  const from = outside && index < outside.layers ? outside : undefined;
  const place = async (role: 'gate' | 'up' | 'down'): Promise<GpuLinear> => {
    const { weight, bias } = weights[role];
    if (!from) return placeLinear(weights[role], uploader);
    const matrix = await from.place(index, role, weight, uploader);
    return { weight: matrix, ...(bias && { bias: await uploader.vector(bias) }) };
  };
  return {
    kind: 'experts',
    router: await placeLinear(weights.router, uploader),
    ...(selectionBias && { selectionBias: await uploader.vector(selectionBias) }),
    gate: await place('gate'),
    up: await place('up'),
    down: await place('down'),
    ...(from && { outside: from.areComputed ? 'computed' : 'sent' }),
    ...(shared && { shared: await placeDense(shared, uploader) }),
    ...(sharedGate && { sharedGate: { weight: await uploader.matrix(sharedGate) } }),
  };
}

async function placeDense({ gate, up, down }: DenseWeights, uploader: Uploader): Promise<GpuDense> {
  const width = paddedWidth(rowsOf(gate.shape));
  const matrix = async (weight: Weight, rows: number, columns: number) => ({
    weight: await uploader.matrix(paddedWeight(weight, rows, columns)),
  });
  return {
    kind: 'dense',
    gate: await matrix(gate, width, columnsOf(gate.shape)),
    up: await matrix(up, width, columnsOf(up.shape)),
    down: await matrix(down, rowsOf(down.shape), width),
  };
}

/** Kernels read eight columns at a time. Networks with another width (stories260K has 172) are padded with zeros. */
export const paddedWidth = (width: number): number => Math.ceil(width / 8) * 8;

/** `[out, in]` padded with zeros to the larger `[rows, columns]`. */
function paddedWeight(weight: Weight, rows: number, columns: number): Weight {
  const stored = rowsOf(weight.shape);
  if (stored === rows && columnsOf(weight.shape) === columns) return weight;
  const { elements, bytes } = blockLayout(weight.type);
  if (elements !== 1 || weight.blockScale) {
    throw unsupported(`${weight.name}: ${weight.type} in a network whose width is not a multiple of 8.`);
  }
  const from = columnsOf(weight.shape) * bytes;
  return {
    name: weight.name,
    type: weight.type,
    shape: [rows, columns],
    async readRows(start, count) {
      const padded = new Uint8Array(count * columns * bytes);
      const held = Math.max(0, Math.min(stored - start, count));
      const own = held > 0 ? await weight.readRows(start, held) : padded;
      for (let i = 0; i < held; i++) padded.set(own.subarray(i * from, (i + 1) * from), i * columns * bytes);
      return padded;
    },
  };
}

async function placeLinear({ weight, bias }: Linear, uploader: Uploader): Promise<GpuLinear> {
  return { weight: await uploader.matrix(weight), ...(bias && { bias: await uploader.vector(bias) }) };
}

/** Requirements on dimensions: heads are read four values at a time, matrix rows eight. */
export function requireDimensions(spec: DecoderSpec): void {
  if (spec.hiddenSize % 8 !== 0) throw unsupported(`A hidden size of ${spec.hiddenSize} is not a multiple of 8.`);
  for (const { attention, feedForward } of spec.layers) {
    if (feedForward.kind !== 'dense' && feedForward.intermediateSize % 8 !== 0) {
      const network = feedForward.kind === 'experts' ? 'Experts' : 'Networks';
      throw unsupported(`${network} have width ${feedForward.intermediateSize}, which is not a multiple of 8.`);
    }
    if (attention.kind === 'gated-delta') requireDelta(attention);
    if (attention.kind === 'grouped-query' && attention.headDim % 4 !== 0) {
      throw unsupported(`Heads have ${attention.headDim} values, which is not a multiple of 4.`);
    }
  }
}

function requireDelta({ numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim }: GatedDeltaSpec): void {
  for (const width of [numKeyHeads * keyHeadDim, numValueHeads * valueHeadDim]) {
    if (width % 8 !== 0) throw unsupported(`The heads of a gated delta net have ${width} values, not a multiple of 8.`);
  }
  if (keyHeadDim > longestKey)
    throw unsupported(`The keys of a gated delta net have ${keyHeadDim} values; at most ${longestKey} are supported.`);
}
