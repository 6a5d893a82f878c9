/** What a model is made of, in numbers: for model cards, and to judge what fits before anything is loaded. */
import type { TensorType } from '../formats/tensor.ts';
import { longestContextTokens } from './longContext.ts';
import type { Model } from './model.ts';
import {
  type AttentionSpec,
  cacheValuesPerToken,
  type DecoderSpec,
  type Family,
  type FeedForwardSpec,
} from './spec.ts';
import { listWeights, type WeightRole } from './weightList.ts';
import type { Weight } from './weights.ts';
import { columnsOf, rowsOf, weightBytesOf } from './weightViews.ts';

export interface SpecDescription {
  readonly family: Family;
  readonly parameters: number;
  /** Parameters that one token is multiplied with: chosen experts only, and not the embedding it is looked up in. */
  readonly activeParameters: number;
  readonly contextTokens: number;
  /** With YaRN on request, where the publisher documents it. */
  readonly longestContextTokens: number;
  /** Values that one token leaves in the cache, over all layers. */
  readonly cacheValuesPerToken: number;
}

export interface WeightGroup {
  readonly role: WeightRole;
  readonly type: TensorType;
  readonly parameters: number;
  readonly bytes: number;
}

export interface ModelDescription extends SpecDescription {
  readonly weightBytes: number;
  /** Bytes of weights that one token at decode makes a backend read. */
  readonly activeWeightBytes: number;
  readonly bytesByType: Readonly<Partial<Record<TensorType, number>>>;
  readonly groups: readonly WeightGroup[];
}

export function describeSpec(spec: DecoderSpec): SpecDescription {
  const { hiddenSize, vocabularySize, layers } = spec;
  const matrix = vocabularySize * hiddenSize;
  // The head is multiplied with whether or not it doubles as the embedding.
  let total = hiddenSize + (spec.tiedEmbeddings ? matrix : 2 * matrix);
  let active = hiddenSize + matrix;
  for (const { attention, feedForward } of layers) {
    const always = 2 * hiddenSize + attentionParameters(attention, hiddenSize);
    total += always + feedForwardParameters(feedForward, hiddenSize, 'all');
    active += always + feedForwardParameters(feedForward, hiddenSize, 'chosen');
  }
  return {
    family: spec.family,
    parameters: total,
    activeParameters: active,
    contextTokens: spec.contextTokens,
    longestContextTokens: longestContextTokens(spec),
    cacheValuesPerToken: layers.reduce((sum, { attention }) => sum + cacheValuesPerToken(attention), 0),
  };
}

export function describeModel({ spec, weights }: Pick<Model, 'spec' | 'weights'>): ModelDescription {
  const described = describeSpec(spec);
  const groups = new Map<string, WeightGroup>();
  for (const { role, weight } of listWeights(weights)) {
    const key = `${role} ${weight.type}`;
    const { parameters = 0, bytes = 0 } = groups.get(key) ?? {};
    groups.set(key, {
      role,
      type: weight.type,
      parameters: parameters + elementsOf(weight),
      bytes: bytes + weightBytesOf(weight) + blockScaleBytes(weight),
    });
  }
  const list = [...groups.values()];
  const bytesByType: Partial<Record<TensorType, number>> = {};
  for (const { type, bytes } of list) bytesByType[type] = (bytesByType[type] ?? 0) + bytes;
  return {
    ...described,
    weightBytes: list.reduce((sum, { bytes }) => sum + bytes, 0),
    activeWeightBytes: list.reduce((sum, { role, bytes }) => sum + bytes * activeShare(spec, role), 0),
    bytesByType,
    groups: list,
  };
}

function activeShare(spec: DecoderSpec, role: WeightRole): number {
  if (role === 'embedding') return 0;
  if (role !== 'routed-experts') return 1;
  const experts = spec.layers.map(({ feedForward }) => feedForward).find(({ kind }) => kind === 'experts');
  return experts?.kind === 'experts' ? experts.expertsPerToken / experts.numExperts : 1;
}

function attentionParameters(attention: AttentionSpec, hidden: number): number {
  if (attention.kind === 'latent') {
    const { numAttentionHeads: heads, queryRank, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim } = attention;
    const queryWidth = heads * (nopeHeadDim + ropeHeadDim);
    const query = queryRank === undefined ? hidden * queryWidth : (hidden + 1 + queryWidth) * queryRank;
    const down = hidden * (keyValueRank + ropeHeadDim) + keyValueRank;
    return query + down + keyValueRank * heads * (nopeHeadDim + valueHeadDim) + heads * valueHeadDim * hidden;
  }
  const { numAttentionHeads, numKeyValueHeads, headDim, bias, qkNorm, sinks } = attention;
  const queryWidth = numAttentionHeads * headDim;
  const qkvWidth = queryWidth + 2 * numKeyValueHeads * headDim;
  const biases = (bias.qkv ? qkvWidth : 0) + (bias.output ? hidden : 0);
  return hidden * (qkvWidth + queryWidth) + biases + (qkNorm ? 2 * headDim : 0) + (sinks ? numAttentionHeads : 0);
}

function feedForwardParameters(feedForward: FeedForwardSpec, hidden: number, which: 'all' | 'chosen'): number {
  if (feedForward.kind === 'dense') return 3 * hidden * feedForward.intermediateSize;
  const { numExperts, expertsPerToken, intermediateSize, router, bias, sharedIntermediateSize } = feedForward;
  const expert = 3 * hidden * intermediateSize + (bias ? 2 * intermediateSize + hidden : 0);
  const routing = numExperts * (hidden + (bias ? 1 : 0) + (router.kind === 'sigmoid-grouped' ? 1 : 0));
  const shared = 3 * hidden * (sharedIntermediateSize ?? 0);
  return expert * (which === 'all' ? numExperts : expertsPerToken) + routing + shared;
}

function elementsOf({ shape }: Weight): number {
  return rowsOf(shape) * columnsOf(shape);
}

/** Scales of FP8 blocks lie apart from the values, in f32. */
function blockScaleBytes({ shape, blockScale }: Weight): number {
  if (!blockScale) return 0;
  const matrices = rowsOf(shape.slice(0, -1));
  const rows = Math.ceil((shape.at(-2) ?? 1) / blockScale.blockRows);
  return 4 * matrices * rows * Math.ceil(columnsOf(shape) / blockScale.blockColumns);
}
