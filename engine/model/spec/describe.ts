/** Parameter counts and sizes of a model: for model cards, and for judging what fits before loading. */
import { unsupported } from '../../errors.ts';
import type { TensorType } from '../../formats/tensor.ts';
import { elementCountOf } from '../../formats/tensor.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Model } from '../open.ts';
import { listWeights, specTensors, type WeightRole } from '../weights/specTensors.ts';
import type { Weight } from '../weights/weights.ts';
import { columnsOf, rowsOf, weightBytesOf } from '../weights/weightViews.ts';
import { yarnMscale } from './rope.ts';
import {
  type AttentionSpec,
  cacheBytesPerValue,
  cacheValuesPerToken,
  type DecoderSpec,
  type Family,
  type FeedForwardSpec,
  type LayerSpec,
  stateValues,
} from './spec.ts';

export interface SpecDescription {
  readonly family: Family;
  readonly parameters: number;
  /** Parameters used in matmuls for one token: the chosen experts only, and not the embedding. */
  readonly activeParameters: number;
  readonly contextTokens: number;
  /** With YaRN on request, if the publisher documents it. */
  readonly longestContextTokens: number;
  /** Cached elements of one token in all layers. */
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
  /** Bytes of weights read to decode one token. */
  readonly activeWeightBytes: number;
  readonly bytesByType: Readonly<Partial<Record<TensorType, number>>>;
  readonly groups: readonly WeightGroup[];
}

export function describeSpec(spec: DecoderSpec): SpecDescription {
  let [parameters, activeParameters] = [0, 0];
  for (const { role, shape } of specTensors(spec)) {
    const count = elementCountOf(shape);
    parameters += count;
    activeParameters += activePart(spec, role, count);
  }
  return {
    family: spec.family,
    parameters,
    activeParameters,
    contextTokens: spec.contextTokens,
    longestContextTokens: longestContextTokens(spec),
    cacheValuesPerToken: spec.layers.reduce((sum, { attention }) => sum + cacheValuesPerToken(attention), 0),
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
    activeWeightBytes: activeBytesOf(spec, list),
    bytesByType,
    groups: list,
  };
}

/** Bytes of `groups` read to decode one token. */
export function activeBytesOf(spec: DecoderSpec, groups: readonly WeightGroup[]): number {
  return groups.reduce((sum, { role, bytes }) => sum + activePart(spec, role, bytes), 0);
}

/**
 * The share of `amount` used for one token. Embedding rows are looked up, not multiplied; a tied matrix counts as the
 * head.
 */
function activePart(spec: DecoderSpec, role: WeightRole, amount: number): number {
  if (role === 'embedding') return 0;
  if (role !== 'routed-experts') return amount;
  const experts = spec.layers.map(({ feedForward }) => feedForward).find(({ kind }) => kind === 'experts');
  return experts?.kind === 'experts' ? (amount * experts.expertsPerToken) / experts.numExperts : amount;
}

/** Routed experts of all layers; undefined: there are none. */
export function routedExperts(spec: DecoderSpec, groups: readonly WeightGroup[]) {
  const own = groups.filter(({ role }) => role === 'routed-experts');
  const bytes = own.reduce((sum, group) => sum + group.bytes, 0);
  if (bytes === 0) return undefined;
  const layers = spec.layers.filter(({ feedForward }) => feedForward.kind === 'experts').length;
  return { bytes, bytesPerToken: activeBytesOf(spec, own), layers };
}

function elementsOf({ shape }: Weight): number {
  return rowsOf(shape) * columnsOf(shape);
}

/** FP8 block scales are stored separately from the values, as f32. */
function blockScaleBytes({ shape, blockScale }: Weight): number {
  if (!blockScale) return 0;
  const matrices = rowsOf(shape.slice(0, -1));
  const rows = Math.ceil((shape.at(-2) ?? 1) / blockScale.blockRows);
  return 4 * matrices * rows * Math.ceil(columnsOf(shape) / blockScale.blockColumns);
}

// YaRN on request, for models whose publisher documents a longer context than the configuration enables.

/**
 * Qwen validated factors up to 4 (131,072 tokens) with "original_max_position_embeddings": 32768 (QwenLM/Qwen3
 * docs/source/inference/transformers.md; the same text in Qwen2.5's model cards). The 40,960 positions in Qwen3's
 * configuration are 32,768 plus 8,192 for the answer.
 */
const qwenOriginalContextTokens = 32_768;
const qwenShippedContextTokens = 40_960;
const largestFactor = 4;

/**
 * The spec with static YaRN scaling by `factor`. It can cost quality on short texts: use the smallest factor that
 * suffices.
 */
export function withYarn(spec: DecoderSpec, factor: number): DecoderSpec {
  if (!canStretch(spec)) throw unsupported(`YaRN isn't documented for ${spec.family} with these rotary settings.`);
  if (!(factor >= 1 && factor <= largestFactor)) {
    throw unsupported(`${spec.family} supports YaRN factors from 1 to ${largestFactor}, not ${factor}.`);
  }
  const originalContextTokens = originalContextTokensOf(spec);
  const yarn = {
    factor,
    originalContextTokens,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    attentionFactor: yarnMscale(factor),
  };
  const stretched = (attention: AttentionSpec): AttentionSpec =>
    attention.kind === 'gated-delta' ? attention : { ...attention, rope: { ...attention.rope, yarn } };
  return {
    ...spec,
    contextTokens: Math.floor(originalContextTokens * factor),
    layers: spec.layers.map((layer) => ({ ...layer, attention: stretched(layer.attention) })),
  };
}

/**
 * The spec for a context of `contextTokens`: if the model's is too short, with the smallest sufficient factor of YaRN; with longrope's short
 * factors where they suffice. transformers chooses these by the length of each pass, so that keys which were cached before a sequence outgrew
 * the original context no longer fit. Here, as in llama.cpp, the context decides once for all sequences.
 */
export function withContext(spec: DecoderSpec, contextTokens: number): DecoderSpec {
  if (contextTokens <= spec.contextTokens) return withShortFactors(spec, contextTokens);
  return withYarn(spec, contextTokens / originalContextTokensOf(spec));
}

function withShortFactors(spec: DecoderSpec, contextTokens: number): DecoderSpec {
  const shortened = (attention: AttentionSpec): AttentionSpec => {
    const { frequencyFactors, originalContextTokens = 0 } = attention.rope?.shortContext ?? {};
    if (attention.kind === 'gated-delta' || !frequencyFactors || contextTokens > originalContextTokens)
      return attention;
    return { ...attention, rope: { ...attention.rope, frequencyFactors } };
  };
  const layers = spec.layers.map((layer) => ({ ...layer, attention: shortened(layer.attention) }));
  return layers.some(({ attention }, i) => attention !== spec.layers[i]?.attention) ? { ...spec, layers } : spec;
}

/** Options for `withYarn`; undefined if YaRN isn't documented or the configuration scales already. */
export function yarnOnRequest(
  spec: DecoderSpec,
): { readonly largestFactor: number; readonly originalContextTokens: number } | undefined {
  return canStretch(spec) ? { largestFactor, originalContextTokens: originalContextTokensOf(spec) } : undefined;
}

/** The longest context that `withContext` supports. */
export function longestContextTokens(spec: DecoderSpec): number {
  const yarn = yarnOnRequest(spec);
  return Math.max(spec.contextTokens, yarn ? yarn.largestFactor * yarn.originalContextTokens : 0);
}

function canStretch(spec: DecoderSpec): boolean {
  const isQwen = spec.family === 'qwen2' || spec.family === 'qwen3' || spec.family === 'qwen3-moe';
  const isPlain = ({ attention }: LayerSpec) =>
    attention.kind !== 'gated-delta' && !attention.rope.yarn && attention.rope.linearFactor === undefined;
  return isQwen && spec.layers.every(isPlain);
}

function originalContextTokensOf(spec: DecoderSpec): number {
  return spec.contextTokens === qwenShippedContextTokens ? qwenOriginalContextTokens : spec.contextTokens;
}

// Explains a spec and its memory needs, to compare models before loading them.

/** Layers with equal specs, wherever they are in the model. */
export interface LayersOf<Spec> {
  readonly layers: number;
  readonly spec: Spec;
}

interface InspectedWeights {
  readonly groups: readonly WeightGroup[];
  readonly bytes: number;
  /** Read to decode one token. */
  readonly bytesPerToken: number;
}

interface ContextMemory {
  readonly contextTokens: number;
  /** KV cache. */
  readonly cacheBytes: number;
  /** Weights and KV cache. Absent if the model doesn't support this context. */
  readonly bytes?: number;
}

export interface Inspection {
  readonly family: Family;
  readonly parameters: number;
  /** Parameters used in matmuls for one token. */
  readonly activeParameters: number;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly norm?: DecoderSpec['norm'];
  readonly normEpsilon: number;
  readonly tiedEmbeddings: boolean;
  readonly layers: number;
  readonly attention: readonly LayersOf<AttentionSpec>[];
  readonly feedForward: readonly LayersOf<FeedForwardSpec>[];
  /** Supported by the configuration, including the rotary settings in `attention`. */
  readonly contextTokens: number;
  /** With `yarnOnRequest`. */
  readonly longestContextTokens: number;
  readonly yarnOnRequest?: { readonly largestFactor: number; readonly originalContextTokens: number };
  readonly weights: InspectedWeights;
  readonly cache: {
    /** Default of GPU backends; the CPU backend can't go below f16. */
    readonly precision: CachePrecision;
    /** Growth a token, in layers without a sliding window. */
    readonly bytesPerToken: number;
    /** Layers with a sliding window, once the window is full, and states. */
    readonly windowBytes: number;
  };
  readonly memory: readonly ContextMemory[];
}

export function inspectSpec(
  spec: DecoderSpec,
  groups: readonly WeightGroup[],
  contexts: readonly number[],
  precision: CachePrecision = 'f16',
): Inspection {
  const { vocabularySize, hiddenSize, norm, normEpsilon, tiedEmbeddings, contextTokens, layers } = spec;
  const { family, parameters, activeParameters, longestContextTokens } = describeSpec(spec);
  const yarn = yarnOnRequest(spec);
  const perValue = cacheBytesPerValue(spec, precision);
  const bytes = groups.reduce((sum, group) => sum + group.bytes, 0);
  const isBounded = (layer: LayerSpec) => windowOf(layer) !== undefined || layer.attention.kind === 'gated-delta';
  const [growing, sliding] = [layers.filter((layer) => !isBounded(layer)), layers.filter(isBounded)];
  return {
    family,
    parameters,
    activeParameters,
    vocabularySize,
    hiddenSize,
    ...(norm && { norm }),
    normEpsilon,
    tiedEmbeddings,
    layers: layers.length,
    attention: alike(layers.map(({ attention }) => attention)),
    feedForward: alike(layers.map(({ feedForward }) => feedForward)),
    contextTokens,
    longestContextTokens,
    ...(yarn && { yarnOnRequest: yarn }),
    weights: { groups, bytes, bytesPerToken: activeBytesOf(spec, groups) },
    cache: {
      precision,
      bytesPerToken: cacheBytes({ layers: growing }, 1, perValue),
      windowBytes: cacheBytes({ layers: sliding }, Number.POSITIVE_INFINITY, perValue),
    },
    memory: contexts.map((tokens) => {
      const cached = cacheBytes(spec, tokens, perValue);
      const reached = tokens <= longestContextTokens;
      return { contextTokens: tokens, cacheBytes: cached, ...(reached && { bytes: bytes + cached }) };
    }),
  };
}

/** Bytes of the KV cache of one sequence. A layer with a sliding window counts its window at most. */
export function cacheBytes({ layers }: Pick<DecoderSpec, 'layers'>, tokens: number, bytesPerValue: number): number {
  return layers.reduce((sum, layer) => {
    if (layer.attention.kind === 'gated-delta') return sum + (tokens > 0 ? 4 * stateValues(layer.attention) : 0);
    const kept = Math.min(tokens, windowOf(layer) ?? tokens);
    return sum + kept * bytesPerValue * cacheValuesPerToken(layer.attention);
  }, 0);
}

function windowOf({ attention }: LayerSpec): number | undefined {
  return attention.kind === 'grouped-query' ? attention.slidingWindow : undefined;
}

function alike<Spec>(specs: readonly Spec[]): LayersOf<Spec>[] {
  const groups = new Map<string, { layers: number; spec: Spec }>();
  for (const spec of specs) {
    const key = JSON.stringify(spec);
    const group = groups.get(key);
    if (group) group.layers++;
    else groups.set(key, { layers: 1, spec });
  }
  return [...groups.values()];
}
