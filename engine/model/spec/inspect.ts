/** Explains a spec and its memory needs, to compare models before loading them. */
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import { cacheBytesPerValue } from './cachePrecision.ts';
import { activeBytesOf, describeSpec, type WeightGroup, yarnOnRequest } from './describe.ts';
import {
  type AttentionSpec,
  cacheValuesPerToken,
  type DecoderSpec,
  type Family,
  type FeedForwardSpec,
  type LayerSpec,
} from './spec.ts';

/** Layers with equal specs, wherever they are in the model. */
export interface LayersOf<Spec> {
  readonly layers: number;
  readonly spec: Spec;
}

export interface InspectedWeights {
  readonly groups: readonly WeightGroup[];
  readonly bytes: number;
  /** Read to decode one token. */
  readonly bytesPerToken: number;
}

export interface ContextMemory {
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
    /** Layers with a sliding window, once the window is full. */
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
  const { vocabularySize, hiddenSize, normEpsilon, tiedEmbeddings, contextTokens, layers } = spec;
  const { family, parameters, activeParameters, longestContextTokens } = describeSpec(spec);
  const yarn = yarnOnRequest(spec);
  const perValue = cacheBytesPerValue(spec, precision);
  const bytes = groups.reduce((sum, group) => sum + group.bytes, 0);
  const [growing, sliding] = [layers.filter((layer) => !windowOf(layer)), layers.filter(windowOf)];
  return {
    family,
    parameters,
    activeParameters,
    vocabularySize,
    hiddenSize,
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
