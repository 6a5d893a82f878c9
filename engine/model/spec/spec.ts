/**
 * Describes a decoder as data. A family file (llama.ts, qwen3.ts, gptOss.ts, …) converts a published config to a
 * `DecoderSpec`; every backend interprets the same spec, so a new family needs new kernels only for new mathematics.
 * Field names are those of the published configs.
 */
import { invalidInput } from '../../errors.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import { attentionFactor, inverseFrequencies } from './rope.ts';

export const families = [
  'llama',
  'qwen2',
  'qwen3',
  'qwen3-moe',
  'gpt-oss',
  'deepseek-v3',
  'glm4-moe-lite',
  'gemma3',
  'phi3',
  'glm4-moe',
  'qwen3-next',
  'qwen3.5',
  'starcoder2',
  'minimax-m2',
  'mistral3',
] as const;
export type Family = (typeof families)[number];

export interface DecoderSpec {
  readonly family: Family;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  /** Epsilon of every norm except those of latents. */
  readonly normEpsilon: number;
  /**
   * Norms over the residual stream are LayerNorms (Ba et al. 2016); absent: RMSNorms (Zhang and Sennrich 2019). Their weights are
   * `[2, hidden]`: gain, then bias.
   */
  readonly norm?: 'layer';
  /** Longest context that the checkpoint supports with its own rotary settings, in tokens. */
  readonly contextTokens: number;
  /** The head reuses the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  /**
   * Embedding models: a forward pass returns hidden states after the final norm, and no head is loaded. Absent: logits.
   */
  readonly headless?: true;
  /**
   * A stage of a model on several devices (backend/split): passes take hidden states instead of ids, and no embedding
   * is loaded. Inner stages return the hidden states after their layers. Absent: the whole model.
   */
  readonly stage?: 'inner' | 'last';
  /** Multiplies the embeddings, not the head (Gemma). */
  readonly embeddingScale?: number;
  readonly layers: readonly LayerSpec[];
}

/** Width of an output row: logits, or a hidden state. */
export function outputSize({ headless, stage, hiddenSize, vocabularySize }: DecoderSpec): number {
  return headless || stage === 'inner' ? hiddenSize : vocabularySize;
}

/** Pre-norm block: `x += attention(norm(x)); x += feedForward(norm(x))`. */
export interface LayerSpec {
  /** `x += postNorm(attention(norm(x)))`, and so for the feed-forward block (Gemma). */
  readonly postNorms?: true;
  readonly attention: AttentionSpec;
  readonly feedForward: FeedForwardSpec;
}

/** Norms over the residual stream. */
export const normsOf = ({ postNorms }: LayerSpec): number => (postNorms ? 4 : 2);

/** Mixes tokens: by attention to cached keys, or by a state that each token changes. */
export type AttentionSpec = GroupedQueryAttentionSpec | LatentAttentionSpec | GatedDeltaSpec;

export interface GroupedQueryAttentionSpec {
  readonly kind: 'grouped-query';
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  /** Which of the four projections carry a bias. */
  readonly bias: { readonly qkv: boolean; readonly output: boolean };
  /** RMSNorm over headDim of each query and key head, before RoPE (Qwen3). */
  readonly qkNorm: boolean;
  /** With `qkNorm`: one norm over all query heads together, and one over all key heads (MiniMax-M2). */
  readonly jointNorm?: true;
  /** One learned logit a query head that takes part in the softmax without a value (GPT-OSS). */
  readonly sinks: boolean;
  /** Each element of the result is multiplied by the sigmoid of one more projection of the input (Qwen3-Next). */
  readonly outputGate?: true;
  /** Query i attends to key j iff `0 <= i - j < slidingWindow`; absent: full causal attention. */
  readonly slidingWindow?: number;
  readonly rope: RopeSpec;
  readonly queryTemperature?: QueryTemperature;
  /** Scores are multiplied by this: headDim^-0.5 in every family so far. */
  readonly softmaxScale: number;
}

/** Width of the norms of queries and of keys. */
export function qkNormWidths({
  jointNorm,
  headDim,
  numAttentionHeads,
  numKeyValueHeads,
}: GroupedQueryAttentionSpec): readonly [query: number, key: number] {
  return jointNorm ? [numAttentionHeads * headDim, numKeyValueHeads * headDim] : [headDim, headDim];
}

/**
 * Rotated queries are multiplied by `1 + beta · ln(1 + ⌊position / originalContextTokens⌋)` (Nakanishi 2025, "Scalable-Softmax"; Llama 4,
 * Ministral 3), so that attention stays sharp beyond the original context. Keys are cached as they are.
 */
export interface QueryTemperature {
  readonly beta: number;
  readonly originalContextTokens: number;
}

/** Multi-head latent attention (DeepSeek-V2, section 2.1): caches one latent and one rotated key a token. */
export interface LatentAttentionSpec {
  readonly kind: 'latent';
  readonly numAttentionHeads: number;
  /** Width of the compressed query; absent: the query is projected directly. */
  readonly queryRank?: number;
  readonly keyValueRank: number;
  readonly nopeHeadDim: number;
  readonly ropeHeadDim: number;
  readonly valueHeadDim: number;
  /** Epsilon of the norms of the compressed query and of the latent. */
  readonly normEpsilon: number;
  readonly rope: RopeSpec;
  readonly softmaxScale: number;
}

/**
 * Gated delta net (Yang et al. 2024, "Gated Delta Networks"): instead of keys and values, caches a state `S` for each
 * value head, `[keyHeadDim, valueHeadDim]`, which each token decays and corrects: `S = exp(g) S + k (beta (v - exp(g)
 * Sᵀ k))ᵀ`, `output = Sᵀ q`. Its inputs q, k and v first pass a causal convolution over each channel, then SiLU; q and
 * k are then normalised to length 1.
 */
export interface GatedDeltaSpec {
  readonly kind: 'gated-delta';
  readonly numKeyHeads: number;
  readonly numValueHeads: number;
  readonly keyHeadDim: number;
  readonly valueHeadDim: number;
  /** Tokens that the convolution sees, including the current one. */
  readonly convolutionTokens: number;
  /** Key head of value head `i`: `i / (values a key)` as published, or `i % numKeyHeads` as in GGUF files of Qwen3.5. */
  readonly sharing: 'grouped' | 'tiled';
  /** A gated delta net has neither positions nor scores. */
  readonly rope?: never;
  readonly softmaxScale?: never;
}

/** Channels of the convolution: queries, keys, values. */
export const convolutionChannels = (spec: GatedDeltaSpec): number =>
  2 * spec.numKeyHeads * spec.keyHeadDim + spec.numValueHeads * spec.valueHeadDim;

/** Values of a layer's state: the delta rule's matrices, then the last inputs of the convolution. */
export const stateValues = (spec: GatedDeltaSpec): number =>
  spec.numValueHeads * spec.keyHeadDim * spec.valueHeadDim + convolutionChannels(spec) * (spec.convolutionTokens - 1);

/** Bytes of one sequence's state in all layers; always f32. */
export const stateBytesOf = ({ layers }: Pick<DecoderSpec, 'layers'>): number =>
  layers.reduce((sum, { attention }) => sum + (attention.kind === 'gated-delta' ? 4 * stateValues(attention) : 0), 0);

export const keyHeadOf = ({ sharing, numKeyHeads, numValueHeads }: GatedDeltaSpec, valueHead: number): number =>
  sharing === 'tiled' ? valueHead % numKeyHeads : Math.floor((valueHead * numKeyHeads) / numValueHeads);

/** Whether any layer keeps a state, which can't be truncated like a KV cache. */
export const isRecurrent = ({ layers }: Pick<DecoderSpec, 'layers'>): boolean =>
  layers.some(({ attention }) => attention.kind === 'gated-delta');

export interface RopeSpec {
  readonly theta: number;
  /** Rotated dimensions of a head (pairs are `dimensions / 2`). */
  readonly dimensions: number;
  /** Which elements form a pair: (i, i + d/2), or (2i, 2i + 1). */
  readonly layout: 'half-split' | 'interleaved';
  readonly yarn?: YarnSpec;
  /** Divides every position (`rope_scaling: linear`). */
  readonly linearFactor?: number;
  /**
   * Divides each inverse frequency: Llama 3 scaling, precomputed (GGUF `rope_freqs.weight`), or longrope's factors for a context beyond the
   * original one. `[dimensions / 2]`
   */
  readonly frequencyFactors?: readonly number[];
  /** longrope's factors for contexts of up to the original length (`withContext` takes them). */
  readonly shortContext?: { readonly originalContextTokens: number; readonly frequencyFactors: readonly number[] };
  /** Multiplies cos and sin (longrope). */
  readonly attentionFactor?: number;
}

/** YaRN (Peng et al. 2023), as computed by transformers' `_compute_yarn_parameters`. */
export interface YarnSpec {
  readonly factor: number;
  readonly originalContextTokens: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Round the correction range outwards to whole dimensions. GPT-OSS does not. */
  readonly truncate: boolean;
  /** Multiplies cos and sin. */
  readonly attentionFactor: number;
}

export type FeedForwardSpec = DenseSpec | PlainSpec | ExpertsSpec;

export type Activation =
  | { readonly kind: 'silu-gate' }
  /** GELU of the gate, in its tanh approximation (`gelu_pytorch_tanh`). */
  | { readonly kind: 'gelu-gate' }
  /** GPT-OSS: gate = min(gate, limit); up = clamp(up, ±limit); (up + 1) · gate · sigmoid(alpha · gate). */
  | { readonly kind: 'swiglu-clamped'; readonly alpha: number; readonly limit: number };

/** Name of the network in the literature (Shazeer 2020). */
export function activationName(activation: Activation | PlainSpec['activation']): string {
  if (activation.kind === 'gelu') return 'GELU';
  if (activation.kind === 'gelu-gate') return 'GeGLU';
  return activation.kind === 'silu-gate' ? 'SwiGLU' : `SwiGLU clamped at ${activation.limit}`;
}

export interface DenseSpec {
  readonly kind: 'dense';
  readonly intermediateSize: number;
  readonly activation: Activation;
}

/** A network without a gate: `down · gelu(up · x)`, both with biases (StarCoder2). GELU in its tanh approximation. */
export interface PlainSpec {
  readonly kind: 'plain';
  readonly intermediateSize: number;
  readonly activation: { readonly kind: 'gelu' };
}

export type RouterSpec =
  /** Softmax over the chosen logits only (GPT-OSS). */
  | { readonly kind: 'topk-then-softmax' }
  /** Softmax over all, then choose; `renormalise` makes the chosen sum to one (Qwen3 MoE). */
  | { readonly kind: 'softmax-then-topk'; readonly renormalise: boolean }
  /** Sigmoid scores with a selection bias and group limits (DeepSeek-V3, section 2.1.2). */
  | {
      readonly kind: 'sigmoid-grouped';
      readonly groups: number;
      readonly groupsUsed: number;
      readonly renormalise: boolean;
    };

export interface ExpertsSpec {
  readonly kind: 'experts';
  readonly numExperts: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  readonly router: RouterSpec;
  /** The router, and gate, up and down of every expert, carry biases (GPT-OSS). */
  readonly bias: boolean;
  readonly activation: Activation;
  /** Multiplies the routed experts' weights (DeepSeek `routed_scaling_factor`). */
  readonly routedScale: number;
  /** Width of the expert that always runs and is added unscaled; absent: none. */
  readonly sharedIntermediateSize?: number;
  /** The shared expert is multiplied by the sigmoid of a projection to one number (Qwen3-Next). */
  readonly sharedGate?: true;
}

/** Values cached for one token in one layer. */
export function cacheValuesPerToken(attention: AttentionSpec): number {
  if (attention.kind === 'gated-delta') return 0;
  return attention.kind === 'latent'
    ? attention.keyValueRank + attention.ropeHeadDim
    : 2 * attention.numKeyValueHeads * attention.headDim;
}

// Constraints between fields of a configuration.

/** @throws HearthError `invalid-input` naming the inconsistent sizes. */
export function checkedSpec(spec: DecoderSpec): DecoderSpec {
  const { normEpsilon } = spec;
  require(normEpsilon > 0 && normEpsilon <= 1, `a norm's epsilon of ${normEpsilon}`);
  for (const { attention, feedForward } of spec.layers) {
    if (attention.kind === 'gated-delta') checkGatedDelta(attention);
    else checkAttention(attention);
    if (feedForward.kind === 'experts') checkExperts(feedForward);
  }
  require(cachedAttentions(spec).length > 0, 'no layer with attention');
  // Layers share the specs of their kind.
  for (const rope of new Set(cachedAttentions(spec).map((attention) => attention.rope))) checkRope(rope);
  return spec;
}

function checkGatedDelta({ numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim, ...spec }: GatedDeltaSpec): void {
  require(spec.convolutionTokens > 1, `a convolution over ${spec.convolutionTokens} tokens`);
  require(numValueHeads % numKeyHeads === 0, `${numValueHeads} value heads on ${numKeyHeads} key heads`);
  require(keyHeadDim % 4 === 0 && valueHeadDim % 4 === 0, `heads of ${keyHeadDim} and ${valueHeadDim} elements`);
}

function checkAttention(attention: GroupedQueryAttentionSpec | LatentAttentionSpec): void {
  const { softmaxScale } = attention;
  require(softmaxScale > 0 && softmaxScale < Number.POSITIVE_INFINITY, `a softmax scale of ${softmaxScale}`);
  const { dimensions, frequencyFactors, shortContext } = attention.rope;
  const headDim = attention.kind === 'latent' ? attention.ropeHeadDim : attention.headDim;
  require(Number.isInteger(headDim), `a head of ${headDim} elements`);
  require(dimensions % 2 === 0 && dimensions <= headDim, `rotating ${dimensions} of a head's ${headDim} elements`);
  for (const factors of [frequencyFactors, shortContext?.frequencyFactors]) {
    require(factors === undefined ||
      factors.length === dimensions / 2, `${factors?.length} rotary factors for ${dimensions / 2} pairs`);
  }
  if (attention.kind === 'grouped-query') {
    const { numAttentionHeads, numKeyValueHeads, queryTemperature } = attention;
    if (queryTemperature) {
      require(queryTemperature.beta > 0, `a query temperature of ${queryTemperature.beta}`);
      // The ONNX backend multiplies cos and sin by it.
      require(dimensions === headDim, `a query temperature with ${dimensions} of ${headDim} elements rotated`);
    }
    require(numAttentionHeads % numKeyValueHeads ===
      0, `${numAttentionHeads} query heads on ${numKeyValueHeads} key-value heads`);
  }
}

function checkRope(rope: RopeSpec): void {
  require(rope.theta > 0 && attentionFactor(rope) > 0, `a rotary base of ${rope.theta}`);
  const frequency = inverseFrequencies(rope).find((value) => !Number.isFinite(value));
  require(frequency === undefined, `a rotary frequency of ${frequency}`);
}

function checkExperts({ numExperts, expertsPerToken, router, ...spec }: ExpertsSpec): void {
  require(Number.isFinite(spec.routedScale), `experts scaled by ${spec.routedScale}`);
  require(Number.isInteger(
    spec.sharedIntermediateSize ?? 1,
  ), `a shared expert of ${spec.sharedIntermediateSize} elements`);
  require(expertsPerToken <= numExperts, `choosing ${expertsPerToken} of ${numExperts} experts`);
  if (router.kind !== 'sigmoid-grouped') return;
  const { groups, groupsUsed } = router;
  require(numExperts % groups === 0, `${numExperts} experts in ${groups} groups`);
  require(groupsUsed <= groups &&
    expertsPerToken <=
      (numExperts / groups) * groupsUsed, `choosing ${expertsPerToken} experts from ${groupsUsed} of ${groups} groups`);
}

function require(condition: boolean, relation: string): void {
  if (!condition) throw invalidInput(`The configuration is inconsistent: ${relation}.`);
}

// KV-cache precisions and their sizes.

/** The precision that the CPU backend uses for a requested one. */
export const processorPrecision = (asked: CachePrecision = 'f16'): 'f32' | 'f16' => (asked === 'f32' ? 'f32' : 'f16');

export type CachedAttentionSpec = Exclude<AttentionSpec, GatedDeltaSpec>;

/** Attention of the layers that cache keys and values. */
export const cachedAttentions = ({ layers }: Pick<DecoderSpec, 'layers'>): CachedAttentionSpec[] =>
  layers.flatMap(({ attention }) => (attention.kind === 'gated-delta' ? [] : [attention]));

/** One row of the KV cache: the key or value of one head, or a latent with its rotated key. */
export interface CacheRow {
  /** Elements; a multiple of four. */
  readonly width: number;
  /** Elements of a `q8` block. No block spans a latent and its rotated key. */
  readonly block: number;
}

export function cacheRowOf(attention: CachedAttentionSpec): CacheRow {
  if (attention.kind === 'grouped-query') return { width: attention.headDim, block: blockOf(attention.headDim) };
  const { keyValueRank: rank, ropeHeadDim: rope } = attention;
  return { width: rank + rope, block: blockOf(rank, rope) };
}

const blockOf = (...widths: readonly number[]): number =>
  [32, 16, 8].find((block) => widths.every((width) => width % block === 0)) ?? 4;

export function cacheRowBytes({ width, block }: CacheRow, precision: CachePrecision): number {
  return precision === 'q8' ? width + (4 * width) / block : width * (precision === 'f16' ? 2 : 4);
}

/** Rows that a token adds to one layer. */
const cacheRowsPerToken = (attention: CachedAttentionSpec): number =>
  attention.kind === 'latent' ? 1 : 2 * attention.numKeyValueHeads;

/** Bytes of one token in all given layers. */
export function cacheBytesPerToken(attentions: readonly AttentionSpec[], precision: CachePrecision): number {
  return attentions.reduce(
    (sum, attention) =>
      attention.kind === 'gated-delta'
        ? sum
        : sum + cacheRowsPerToken(attention) * cacheRowBytes(cacheRowOf(attention), precision),
    0,
  );
}

/** Average bytes of one cached element, scales included. */
export function cacheBytesPerValue({ layers }: Pick<DecoderSpec, 'layers'>, precision: CachePrecision): number {
  const attentions = layers.map(({ attention }) => attention);
  const values = attentions.reduce((sum, attention) => sum + cacheValuesPerToken(attention), 0);
  // A stage with only recurrent layers caches nothing per token.
  return values === 0 ? 0 : cacheBytesPerToken(attentions, precision) / values;
}
