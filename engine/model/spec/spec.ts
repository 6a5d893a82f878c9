/**
 * Describes a decoder as data. A family file (llama.ts, qwen3.ts, gptOss.ts, …) converts a published config to a
 * `DecoderSpec`; every backend interprets the same spec, so a new family needs new kernels only for new mathematics.
 * Field names are those of the published configs.
 */
import { invalidInput } from '../../errors.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import { attentionFactor, inverseFrequencies } from './rope.ts';

export type Family =
  | 'llama'
  | 'qwen2'
  | 'qwen3'
  | 'qwen3-moe'
  | 'gpt-oss'
  | 'deepseek-v3'
  | 'gemma3'
  | 'phi3'
  | 'glm4-moe';

export interface DecoderSpec {
  readonly family: Family;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  /** RMSNorm epsilon, the same in every norm of the model. */
  readonly normEpsilon: number;
  /** Longest context that the checkpoint supports with its own rotary settings, in tokens. */
  readonly contextTokens: number;
  /** The head reuses the embedding matrix. */
  readonly tiedEmbeddings: boolean;
  /**
   * Embedding models: a forward pass returns hidden states after the final norm, and no head is loaded. Absent: logits.
   */
  readonly headless?: true;
  /** Multiplies the embeddings, not the head (Gemma). */
  readonly embeddingScale?: number;
  readonly layers: readonly LayerSpec[];
}

/** Width of an output row: logits, or a hidden state. */
export function outputSize({ headless, hiddenSize, vocabularySize }: DecoderSpec): number {
  return headless ? hiddenSize : vocabularySize;
}

/** Pre-norm block: `x += attention(norm(x)); x += feedForward(norm(x))`. */
export interface LayerSpec {
  /** `x += postNorm(attention(norm(x)))`, and so for the feed-forward block (Gemma). */
  readonly postNorms?: true;
  readonly attention: AttentionSpec;
  readonly feedForward: FeedForwardSpec;
}

export type AttentionSpec = GroupedQueryAttentionSpec | LatentAttentionSpec;

export interface GroupedQueryAttentionSpec {
  readonly kind: 'grouped-query';
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  /** Which of the four projections carry a bias. */
  readonly bias: { readonly qkv: boolean; readonly output: boolean };
  /** RMSNorm over headDim of each query and key head, before RoPE (Qwen3). */
  readonly qkNorm: boolean;
  /** One learned logit a query head that takes part in the softmax without a value (GPT-OSS). */
  readonly sinks: boolean;
  /** Query i attends to key j iff `0 <= i - j < slidingWindow`; absent: full causal attention. */
  readonly slidingWindow?: number;
  readonly rope: RopeSpec;
  /** Scores are multiplied by this: headDim^-0.5 in every family so far. */
  readonly softmaxScale: number;
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
  readonly rope: RopeSpec;
  readonly softmaxScale: number;
}

export interface RopeSpec {
  readonly theta: number;
  /** Rotated dimensions of a head (pairs are `dimensions / 2`). */
  readonly dimensions: number;
  /** Which elements form a pair: (i, i + d/2), or (2i, 2i + 1). */
  readonly layout: 'half-split' | 'interleaved';
  readonly yarn?: YarnSpec;
  /** Divides every position (`rope_scaling: linear`). */
  readonly linearFactor?: number;
  /** Divides each inverse frequency: Llama 3 scaling, precomputed (GGUF `rope_freqs.weight`). `[dimensions / 2]` */
  readonly frequencyFactors?: readonly number[];
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

export type FeedForwardSpec = DenseSpec | ExpertsSpec;

export type Activation =
  | { readonly kind: 'silu-gate' }
  /** GELU of the gate, in its tanh approximation (`gelu_pytorch_tanh`). */
  | { readonly kind: 'gelu-gate' }
  /** GPT-OSS: gate = min(gate, limit); up = clamp(up, ±limit); (up + 1) · gate · sigmoid(alpha · gate). */
  | { readonly kind: 'swiglu-clamped'; readonly alpha: number; readonly limit: number };

export interface DenseSpec {
  readonly kind: 'dense';
  readonly intermediateSize: number;
  readonly activation: Activation;
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
}

/** Values cached for one token in one layer. */
export function cacheValuesPerToken(attention: AttentionSpec): number {
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
    checkAttention(attention);
    require(attention.softmaxScale > 0 &&
      attention.softmaxScale < Number.POSITIVE_INFINITY, `a softmax scale of ${attention.softmaxScale}`);
    if (feedForward.kind === 'experts') checkExperts(feedForward);
  }
  // Layers share the specs of their kind.
  for (const rope of new Set(spec.layers.map(({ attention }) => attention.rope))) checkRope(rope);
  return spec;
}

function checkAttention(attention: AttentionSpec): void {
  const { dimensions, frequencyFactors } = attention.rope;
  const headDim = attention.kind === 'latent' ? attention.ropeHeadDim : attention.headDim;
  require(Number.isInteger(headDim), `a head of ${headDim} elements`);
  require(dimensions % 2 === 0 && dimensions <= headDim, `rotating ${dimensions} of a head's ${headDim} elements`);
  require(frequencyFactors === undefined ||
    frequencyFactors.length ===
      dimensions / 2, `${frequencyFactors?.length} rotary factors for ${dimensions / 2} pairs`);
  if (attention.kind === 'grouped-query') {
    const { numAttentionHeads, numKeyValueHeads } = attention;
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

/** One row of the KV cache: the key or value of one head, or a latent with its rotated key. */
export interface CacheRow {
  /** Elements; a multiple of four. */
  readonly width: number;
  /** Elements of a `q8` block. No block spans a latent and its rotated key. */
  readonly block: number;
}

export function cacheRowOf(attention: AttentionSpec): CacheRow {
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
const cacheRowsPerToken = (attention: AttentionSpec): number =>
  attention.kind === 'latent' ? 1 : 2 * attention.numKeyValueHeads;

/** Bytes of one token in all given layers. */
export function cacheBytesPerToken(attentions: readonly AttentionSpec[], precision: CachePrecision): number {
  return attentions.reduce(
    (sum, attention) => sum + cacheRowsPerToken(attention) * cacheRowBytes(cacheRowOf(attention), precision),
    0,
  );
}

/** Average bytes of one cached element, scales included. */
export function cacheBytesPerValue({ layers }: Pick<DecoderSpec, 'layers'>, precision: CachePrecision): number {
  const attentions = layers.map(({ attention }) => attention);
  const values = attentions.reduce((sum, attention) => sum + cacheValuesPerToken(attention), 0);
  return cacheBytesPerToken(attentions, precision) / values;
}
