/** Lists every weight that a spec requires, by role and shape, without a file: to count parameters and plan memory. */
import type {
  AttentionSpec,
  DecoderSpec,
  ExpertsSpec,
  FeedForwardSpec,
  GroupedQueryAttentionSpec,
  LatentAttentionSpec,
} from '../spec/spec.ts';
import type { AttentionWeights, DecoderWeights, DenseWeights, FeedForwardWeights, Linear, Weight } from './weights.ts';

// The weights of an opened decoder by role, in order of computation: for load progress and model cards.

export type WeightRole = 'embedding' | 'attention' | 'feed-forward' | 'routed-experts' | 'norm' | 'head';

export interface ListedWeight {
  readonly role: WeightRole;
  readonly weight: Weight;
}

/** A tied matrix is listed once, as the head. */
export function listWeights(weights: DecoderWeights): ListedWeight[] {
  const tied = weights.head === weights.embedding;
  return [
    ...(tied ? [] : [{ role: 'embedding', weight: weights.embedding } as const]),
    ...weights.layers.flatMap((layer) => [
      { role: 'norm', weight: layer.attentionNorm } as const,
      ...attentionWeights(layer.attention),
      ...as('norm', layer.attentionPostNorm, layer.feedForwardNorm),
      ...feedForwardWeights(layer.feedForward),
      ...as('norm', layer.feedForwardPostNorm),
    ]),
    { role: 'norm', weight: weights.finalNorm },
    { role: 'head', weight: weights.head },
  ];
}

function attentionWeights(attention: AttentionWeights): ListedWeight[] {
  if (attention.kind === 'latent') {
    const { queryDown, queryNorm, queryUp, keyValueDown, keyValueNorm, keyUp, valueUp, output } = attention;
    return [
      ...as('attention', queryDown, queryUp, keyValueDown, keyUp.weight, valueUp, output),
      ...as('norm', queryNorm, keyValueNorm),
    ];
  }
  const { query, key, value, output, queryNorm, keyNorm, sinks } = attention;
  return [
    ...[query, key, value, output].flatMap((linear) => linearAs('attention', linear)),
    ...as('attention', sinks),
    ...as('norm', queryNorm, keyNorm),
  ];
}

function feedForwardWeights(feedForward: FeedForwardWeights): ListedWeight[] {
  if (feedForward.kind === 'dense') return denseWeights(feedForward);
  const { router, selectionBias, gate, up, down, shared } = feedForward;
  return [
    ...linearAs('feed-forward', router),
    ...as('feed-forward', selectionBias),
    ...[gate, up, down].flatMap((linear) => linearAs('routed-experts', linear)),
    ...(shared ? denseWeights(shared) : []),
  ];
}

function denseWeights({ gate, up, down }: DenseWeights): ListedWeight[] {
  return as('feed-forward', gate, up, down);
}

function linearAs(role: WeightRole, { weight, bias }: Linear): ListedWeight[] {
  return as(role, weight, bias);
}

function as(role: WeightRole, ...weights: readonly (Weight | undefined)[]): ListedWeight[] {
  return weights.flatMap((weight) => (weight ? [{ role, weight }] : []));
}

export interface SpecTensor {
  readonly role: WeightRole;
  /** Parts that quantisers treat differently. `vector`: a norm, bias or sinks; for experts one row each. */
  readonly part: 'matrix' | 'value' | 'down' | 'router' | 'selection-bias' | 'vector';
  readonly shape: readonly number[];
  /** Absent for tensors outside the layers. */
  readonly layer?: number;
}

type LayerTensor = Omit<SpecTensor, 'layer'>;

/** A tied matrix is listed once, as the head, like in `listWeights`. */
export function specTensors({ vocabularySize, hiddenSize, tiedEmbeddings, layers }: DecoderSpec): SpecTensor[] {
  const matrix = { part: 'matrix', shape: [vocabularySize, hiddenSize] } as const;
  const norm = vector('norm', hiddenSize);
  return [
    ...(tiedEmbeddings ? [] : [{ role: 'embedding', ...matrix } as const]),
    ...layers.flatMap(({ attention, feedForward, postNorms }, layer) => {
      const norms = postNorms ? [norm, norm] : [norm];
      const blocks = [...attentionTensors(attention, hiddenSize), ...feedForwardTensors(feedForward, hiddenSize)];
      return [...norms, ...norms, ...blocks].map((tensor) => ({ ...tensor, layer }));
    }),
    norm,
    { role: 'head', ...matrix },
  ];
}

const vector = (role: WeightRole, ...shape: readonly number[]): LayerTensor => ({ role, part: 'vector', shape });

function attentionTensors(attention: AttentionSpec, hidden: number): LayerTensor[] {
  return attention.kind === 'latent' ? latentTensors(attention, hidden) : groupedQueryTensors(attention, hidden);
}

function groupedQueryTensors(attention: GroupedQueryAttentionSpec, hidden: number): LayerTensor[] {
  const { numAttentionHeads, numKeyValueHeads, headDim, bias, qkNorm, sinks } = attention;
  const role = 'attention';
  const [queryWidth, keyWidth] = [numAttentionHeads * headDim, numKeyValueHeads * headDim];
  return [
    { role, part: 'matrix', shape: [queryWidth, hidden] },
    { role, part: 'matrix', shape: [keyWidth, hidden] },
    { role, part: 'value', shape: [keyWidth, hidden] },
    { role, part: 'matrix', shape: [hidden, queryWidth] },
    ...(bias.qkv ? [queryWidth, keyWidth, keyWidth].map((width) => vector(role, width)) : []),
    ...(bias.output ? [vector(role, hidden)] : []),
    ...(qkNorm ? [vector('norm', headDim), vector('norm', headDim)] : []),
    ...(sinks ? [vector(role, numAttentionHeads)] : []),
  ];
}

function latentTensors(attention: LatentAttentionSpec, hidden: number): LayerTensor[] {
  const { numAttentionHeads: heads, queryRank, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim } = attention;
  const queryWidth = heads * (nopeHeadDim + ropeHeadDim);
  const matrix = (...shape: readonly number[]): LayerTensor => ({ role: 'attention', part: 'matrix', shape });
  return [
    ...(queryRank === undefined ? [] : [matrix(queryRank, hidden), vector('norm', queryRank)]),
    matrix(queryWidth, queryRank ?? hidden),
    matrix(keyValueRank + ropeHeadDim, hidden),
    vector('norm', keyValueRank),
    // One matrix holds the key and value up-projections of all heads (kv_b_proj).
    matrix(heads * (nopeHeadDim + valueHeadDim), keyValueRank),
    matrix(hidden, heads * valueHeadDim),
  ];
}

function feedForwardTensors(feedForward: FeedForwardSpec, hidden: number): LayerTensor[] {
  return feedForward.kind === 'dense'
    ? gatedTensors('feed-forward', [], feedForward.intermediateSize, hidden)
    : expertTensors(feedForward, hidden);
}

function expertTensors(spec: ExpertsSpec, hidden: number): LayerTensor[] {
  const { numExperts, intermediateSize, router, bias, sharedIntermediateSize } = spec;
  const biases = [intermediateSize, intermediateSize, hidden];
  return [
    { role: 'feed-forward', part: 'router', shape: [numExperts, hidden] },
    ...(bias ? [vector('feed-forward', numExperts)] : []),
    ...(router.kind === 'sigmoid-grouped' ? [selectionBias(numExperts)] : []),
    ...gatedTensors('routed-experts', [numExperts], intermediateSize, hidden),
    ...(bias ? biases.map((width) => vector('routed-experts', numExperts, width)) : []),
    ...(sharedIntermediateSize === undefined ? [] : gatedTensors('feed-forward', [], sharedIntermediateSize, hidden)),
  ];
}

const selectionBias = (experts: number): LayerTensor => ({
  role: 'feed-forward',
  part: 'selection-bias',
  shape: [experts],
});

function gatedTensors(role: WeightRole, stack: readonly number[], intermediate: number, hidden: number): LayerTensor[] {
  return [
    { role, part: 'matrix', shape: [...stack, intermediate, hidden] },
    { role, part: 'matrix', shape: [...stack, intermediate, hidden] },
    { role, part: 'down', shape: [...stack, hidden, intermediate] },
  ];
}
