/** The weights as the GPU holds them, by role. */
import { unsupported } from '../../errors.ts';
import type { DecoderSpec } from '../../model/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  GroupedQueryWeights,
  Linear,
  Weight,
} from '../../model/weights.ts';
import type { GpuMatrix, Uploader } from './upload.ts';

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
  /** `[2, headDim]`: the query's, the key's. */
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

export interface GpuLayer {
  readonly attentionNorm: GPUBuffer;
  readonly attention: GpuGroupedQuery;
  readonly feedForwardNorm: GPUBuffer;
  readonly feedForward: GpuDense;
}

export interface GpuWeights {
  readonly embedding: GpuMatrix;
  readonly layers: readonly GpuLayer[];
  readonly finalNorm: GPUBuffer;
  /** The embedding itself where tied. */
  readonly head: GpuMatrix;
}

export async function uploadWeights(weights: DecoderWeights, uploader: Uploader): Promise<GpuWeights> {
  const embedding = await uploader.matrix(weights.embedding);
  const layers: GpuLayer[] = [];
  for (const layer of weights.layers) {
    layers.push({
      attentionNorm: await uploader.vector(layer.attentionNorm),
      attention: await uploadAttention(layer.attention, uploader),
      feedForwardNorm: await uploader.vector(layer.feedForwardNorm),
      feedForward: await uploadFeedForward(layer.feedForward, uploader),
    });
  }
  return {
    embedding,
    layers,
    finalNorm: await uploader.vector(weights.finalNorm),
    head: weights.head === weights.embedding ? embedding : await uploader.matrix(weights.head),
  };
}

function uploadAttention(weights: AttentionWeights, uploader: Uploader): Promise<GpuGroupedQuery> {
  if (weights.kind === 'latent') throw unsupported('Latent attention is not computed on the GPU yet.');
  return uploadGroupedQuery(weights, uploader);
}

async function uploadGroupedQuery(weights: GroupedQueryWeights, uploader: Uploader): Promise<GpuGroupedQuery> {
  const { queryNorm, keyNorm, sinks } = weights;
  return {
    kind: 'grouped-query',
    query: await uploadLinear(weights.query, uploader),
    key: await uploadLinear(weights.key, uploader),
    value: await uploadLinear(weights.value, uploader),
    output: await uploadLinear(weights.output, uploader),
    ...(queryNorm && keyNorm && { norms: await uploader.vector(queryNorm, keyNorm) }),
    ...(sinks && { sinks: await uploader.vector(sinks) }),
  };
}

function uploadFeedForward(weights: FeedForwardWeights, uploader: Uploader): Promise<GpuDense> {
  if (weights.kind === 'experts') throw unsupported('Experts are not computed on the GPU yet.');
  return uploadDense(weights, uploader);
}

async function uploadDense({ gate, up, down }: DenseWeights, uploader: Uploader): Promise<GpuDense> {
  const matrix = async (weight: Weight) => ({ weight: await uploader.matrix(weight) });
  return { kind: 'dense', gate: await matrix(gate), up: await matrix(up), down: await matrix(down) };
}

async function uploadLinear({ weight, bias }: Linear, uploader: Uploader): Promise<GpuLinear> {
  return { weight: await uploader.matrix(weight), ...(bias && { bias: await uploader.vector(bias) }) };
}

/** What the kernels ask of a model's dimensions: heads are read four values at a time, matrix rows eight. */
export function requireDimensions(spec: DecoderSpec): void {
  if (spec.hiddenSize % 8 !== 0) throw unsupported(`A hidden size of ${spec.hiddenSize} is not a multiple of 8.`);
  for (const { attention } of spec.layers) {
    if (attention.kind === 'grouped-query' && attention.headDim % 4 !== 0) {
      throw unsupported(`Heads of ${attention.headDim} values are not a multiple of 4.`);
    }
  }
}
