/**
 * Reads the fields that families share from a Hugging Face `config.json` or from the keys of a GGUF. Errors name the
 * key.
 */
import { z } from 'zod';
import { firstIssue, invalidInput, unsupported } from '../../errors.ts';
import type { GgufKeys, GgufMetadata } from '../../formats/ggufMetadata.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { limits } from '../../limits.ts';
import {
  llama3FrequencyFactors,
  longrope,
  longropeAttentionFactor,
  yarnAttentionFactor,
  yarnMscale,
} from '../spec/rope.ts';
import type { DecoderSpec, QueryTemperature, RopeSpec, YarnSpec } from '../spec/spec.ts';

/** A size: an integer from 1 to `max`. */
export const size = (max: number) => z.number().int().min(1).max(max);
export const width = size(limits.model.width);
export const heads = size(limits.model.heads);
export const experts = size(limits.model.experts);
const positive = z.number().positive();
/** A setting that a publisher may omit or set to null. */
const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);

export const ropeScaling = z.looseObject({
  rope_type: optional(z.string()),
  /** The older name of `rope_type`. */
  type: optional(z.string()),
  rope_theta: optional(positive),
  factor: optional(positive),
  original_max_position_embeddings: optional(size(limits.model.contextTokens)),
  beta_fast: optional(positive),
  beta_slow: optional(positive),
  truncate: optional(z.boolean()),
  attention_factor: optional(positive),
  mscale: optional(z.number()),
  mscale_all_dim: optional(z.number()),
  low_freq_factor: optional(positive),
  high_freq_factor: optional(positive),
  /** Ministral 3 (`queryTemperatureOf`). */
  llama_4_scaling_beta: optional(z.number()),
  short_factor: optional(z.array(positive).max(limits.model.width)),
  long_factor: optional(z.array(positive).max(limits.model.width)),
});
type RopeScaling = z.infer<typeof ropeScaling>;

export const decoderFields = {
  model_type: z.string(),
  hidden_size: width,
  intermediate_size: width,
  num_hidden_layers: size(limits.model.layers),
  num_attention_heads: heads,
  num_key_value_heads: optional(heads),
  head_dim: optional(width),
  rms_norm_eps: positive.max(1),
  vocab_size: size(limits.model.vocabulary),
  max_position_embeddings: size(limits.model.contextTokens),
  /** Phi has this key here instead of in `rope_scaling`. */
  original_max_position_embeddings: optional(size(limits.model.contextTokens)),
  hidden_act: z.string(),
  tie_word_embeddings: optional(z.boolean()),
  rope_theta: optional(positive),
  rope_scaling: optional(ropeScaling),
  /** In transformers 5, holds both `rope_theta` and `rope_scaling`. */
  rope_parameters: optional(ropeScaling),
};

const withTextConfig = z.looseObject({
  text_config: optional(z.looseObject({})),
  tie_word_embeddings: optional(z.boolean()),
});

/**
 * The text part's configuration of a model that also reads images, else the whole one. `tiedEmbeddings` is the key
 * outside the text part.
 */
export function textConfig(config: unknown): { readonly text: unknown; readonly tiedEmbeddings?: boolean | undefined } {
  const { text_config, tie_word_embeddings } = parseConfig(withTextConfig, config);
  return { text: text_config ?? config, tiedEmbeddings: tie_word_embeddings };
}

const quantisedConfig = z.looseObject({
  quantization_config: optional(
    z.looseObject({
      quant_method: z.string(),
      fmt: optional(z.string()),
      weight_block_size: optional(z.tuple([width, width])),
    }),
  ),
});

/** `quantization_config.quant_method`; undefined for plain floats. */
export function quantisationMethodOf(config: unknown): string | undefined {
  return parseConfig(quantisedConfig, config).quantization_config?.quant_method;
}

type DecoderConfig = z.infer<z.ZodObject<typeof decoderFields>>;
type RopeConfig = Pick<
  DecoderConfig,
  'rope_theta' | 'rope_scaling' | 'rope_parameters' | 'max_position_embeddings' | 'original_max_position_embeddings'
>;

export { optional };

/** @throws HearthError `invalid-input` naming the first key that is missing or malformed. */
export function parseConfig<T>(schema: z.ZodType<T>, config: unknown): T {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  throw invalidInput(`config.json, key ${firstIssue(parsed.error.issues)}. Is this the publisher's own file?`);
}

/** @throws HearthError `unsupported` naming the key, unless Hearth supports its value. */
export function requireValue(key: string, value: unknown, ...computed: readonly unknown[]): void {
  if (computed.includes(value)) return;
  const allowed = computed.map((each) => JSON.stringify(each) ?? 'none').join(' or ');
  throw unsupported(`config.json, key ${key}: Hearth supports ${allowed}, not ${JSON.stringify(value)}.`);
}

/**
 * Size of the blocks of F8_E4M3 weights that share a scale (DeepSeek-V3 and Qwen's FP8 checkpoints); undefined for
 * plain floats. @throws HearthError `unsupported` for GPTQ, AWQ etc., which need other kernels.
 */
export function fp8BlockOf(config: unknown): readonly [rows: number, columns: number] | undefined {
  const { quantization_config: quantisation } = parseConfig(quantisedConfig, config);
  if (!quantisation) return undefined;
  requireValue('quantization_config.quant_method', quantisation.quant_method, 'fp8');
  requireValue('quantization_config.fmt', quantisation.fmt ?? 'e4m3', 'e4m3', 'float8_e4m3fn');
  return required(quantisation.weight_block_size, 'quantization_config.weight_block_size');
}

export function requireSiluActivation(config: DecoderConfig): void {
  requireValue('hidden_act', config.hidden_act, 'silu');
}

/** Sizes that all architectures with standard attention write under the same keys. */
export function configSizes(
  config: Pick<
    DecoderConfig,
    'num_hidden_layers' | 'num_attention_heads' | 'num_key_value_heads' | 'head_dim' | 'hidden_size'
  >,
) {
  return {
    numLayers: config.num_hidden_layers,
    numAttentionHeads: config.num_attention_heads,
    numKeyValueHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim: config.head_dim ?? config.hidden_size / config.num_attention_heads,
  };
}

type OuterFields = Pick<
  DecoderSpec,
  'vocabularySize' | 'hiddenSize' | 'normEpsilon' | 'contextTokens' | 'tiedEmbeddings'
>;

/** A spec's fields outside its layers. */
export function configOuterFields(
  config: Pick<
    DecoderConfig,
    'vocab_size' | 'hidden_size' | 'rms_norm_eps' | 'max_position_embeddings' | 'tie_word_embeddings'
  >,
  rope: RopeSpec,
): OuterFields {
  return {
    vocabularySize: config.vocab_size,
    hiddenSize: config.hidden_size,
    normEpsilon: config.rms_norm_eps,
    contextTokens: contextTokensOf(config.max_position_embeddings, rope),
    tiedEmbeddings: config.tie_word_embeddings ?? false,
  };
}

const rotaryShare = optional(z.number().positive().max(1));
const rotaryConfig = z.looseObject({
  partial_rotary_factor: rotaryShare,
  rope_parameters: optional(z.looseObject({ partial_rotary_factor: rotaryShare })),
});

/** Rotated elements of a head, of which `partial_rotary_factor` is the share. */
export function rotatedDimensions(config: unknown, headDim: number, usualShare: number): number {
  const { partial_rotary_factor: share, rope_parameters: settings } = parseConfig(rotaryConfig, config);
  return Math.floor(headDim * (settings?.partial_rotary_factor ?? share ?? usualShare));
}

function ropeSettings(config: RopeConfig): RopeScaling & { readonly rope_theta: number } {
  const settings: RopeScaling = config.rope_parameters ?? config.rope_scaling ?? ropeScaling.parse({});
  // 10000 is the paper's base and transformers' default; Llama 2 omits the key.
  return { ...settings, rope_theta: settings.rope_theta ?? config.rope_theta ?? 10_000 };
}

/** The rotary settings, from any of the keys that hold them. */
export function ropeFromConfig(
  config: RopeConfig,
  head: { readonly dimensions: number; readonly layout: RopeSpec['layout'] },
): RopeSpec {
  const settings = ropeSettings(config);
  const theta = settings.rope_theta;
  const type = settings.rope_type ?? settings.type ?? 'default';
  switch (type) {
    case 'default':
      return { theta, ...head };
    case 'linear':
      return { theta, ...head, linearFactor: required(settings.factor, 'rope_scaling.factor') };
    case 'llama3':
      return { theta, ...head, frequencyFactors: llama3FrequencyFactors(theta, head.dimensions, llama3Of(settings)) };
    case 'yarn':
      return { theta, ...head, yarn: yarnFromConfig(config, settings) };
    // The name of Phi-3's first release.
    case 'su':
    case 'longrope':
      return { theta, ...head, ...longropeFromConfig(config, settings) };
    default:
      requireValue('rope_scaling.rope_type', type, 'default', 'linear', 'llama3', 'yarn', 'longrope');
      throw unsupported(`config.json, key rope_scaling.rope_type: ${type}`);
  }
}

/** transformers' `_compute_yarn_parameters`, with its defaults. */
function yarnFromConfig(config: RopeConfig, settings: RopeScaling): YarnSpec {
  const originalContextTokens = settings.original_max_position_embeddings ?? config.max_position_embeddings;
  const factor = required(settings.factor, 'rope_scaling.factor');
  return {
    factor,
    originalContextTokens,
    betaFast: settings.beta_fast ?? 32,
    betaSlow: settings.beta_slow ?? 1,
    truncate: settings.truncate ?? true,
    attentionFactor: settings.attention_factor ?? yarnAttentionFactor(factor, settings.mscale, settings.mscale_all_dim),
  };
}

/** transformers' `_compute_longrope_parameters`: if Phi states the original context, `factor` is ignored. */
function longropeFromConfig(config: RopeConfig, settings: RopeScaling): Partial<RopeSpec> {
  const own = config.original_max_position_embeddings;
  const originalContextTokens = required(
    own ?? settings.original_max_position_embeddings,
    'rope_scaling.original_max_position_embeddings',
  );
  const extended = own === undefined && settings.factor ? settings.factor * originalContextTokens : undefined;
  return longrope({
    longFactors: required(settings.long_factor, 'rope_scaling.long_factor'),
    shortFactors: required(settings.short_factor, 'rope_scaling.short_factor'),
    originalContextTokens,
    attentionFactor:
      settings.attention_factor ??
      longropeAttentionFactor(extended ?? config.max_position_embeddings, originalContextTokens),
  });
}

function llama3Of(settings: RopeScaling) {
  return {
    factor: required(settings.factor, 'rope_scaling.factor'),
    lowFreqFactor: required(settings.low_freq_factor, 'rope_scaling.low_freq_factor'),
    highFreqFactor: required(settings.high_freq_factor, 'rope_scaling.high_freq_factor'),
    originalContextTokens: required(
      settings.original_max_position_embeddings,
      'rope_scaling.original_max_position_embeddings',
    ),
  };
}

export function required<T>(value: T | undefined, key: string): T {
  if (value === undefined) throw invalidInput(`config.json, key ${key} is missing.`);
  return value;
}

/** `mscale_all_dim`, which DeepSeek also applies to the softmax scale. */
export function ropeMscaleAllDim(config: DecoderConfig): number {
  return ropeSettings(config).mscale_all_dim ?? 0;
}

/** transformers' `get_llama_4_attn_scale`. */
export function queryTemperatureOf(config: RopeConfig): QueryTemperature | undefined {
  const { llama_4_scaling_beta: beta = 0, original_max_position_embeddings: tokens } = ropeSettings(config);
  if (beta === 0) return undefined;
  const originalContextTokens = required(tokens, 'rope_parameters.original_max_position_embeddings');
  return { beta, originalContextTokens };
}

/** A checkpoint with YaRN supports the scaled context, even if `max_position_embeddings` wasn't raised. */
export function contextTokensOf(maxPositionEmbeddings: number, rope: RopeSpec): number {
  const { yarn } = rope;
  return yarn
    ? Math.max(maxPositionEmbeddings, Math.floor(yarn.factor * yarn.originalContextTokens))
    : maxPositionEmbeddings;
}

// The same fields from the `<architecture>.*` keys of a GGUF.

export type GgufSource = TensorFile & GgufMetadata;

export interface GgufSizes {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly normEpsilon: number;
  readonly contextTokens: number;
  readonly vocabularySize: number;
  readonly tiedEmbeddings: boolean;
}

/** Sizes that all architectures with standard attention store under the same keys. */
export function ggufSizes(keys: GgufKeys, gguf: GgufSource): GgufSizes {
  const { heads, width } = limits.model;
  const hiddenSize = keys.size('embedding_length', width);
  const numAttentionHeads = keys.size('attention.head_count', heads);
  const headDim = keys.optionalSize('attention.key_length', width) ?? hiddenSize / numAttentionHeads;
  const valueDim = keys.optionalSize('attention.value_length', width) ?? headDim;
  if (valueDim !== headDim) {
    throw unsupported(
      `GGUF key ${keys.architecture}.attention.value_length: ${valueDim} differs from the key's ${headDim}.`,
    );
  }
  return {
    numLayers: keys.size('block_count', limits.model.layers),
    hiddenSize,
    // Files without dense layers may lack it.
    intermediateSize:
      keys.optionalSize('feed_forward_length', width) ??
      keys.optionalSize('expert_feed_forward_length', width) ??
      keys.size('feed_forward_length', width),
    numAttentionHeads,
    numKeyValueHeads: keys.optionalSize('attention.head_count_kv', heads) ?? numAttentionHeads,
    headDim,
    normEpsilon:
      keys.optionalPositive('attention.layer_norm_epsilon') ?? keys.positive('attention.layer_norm_rms_epsilon'),
    contextTokens: keys.size('context_length', limits.model.contextTokens),
    ...ggufVocabulary(gguf),
  };
}

/** A spec's fields outside its layers. */
export function ggufOuterFields(sizes: GgufSizes, rope: RopeSpec): OuterFields {
  const { vocabularySize, hiddenSize, normEpsilon, contextTokens, tiedEmbeddings } = sizes;
  return {
    vocabularySize,
    hiddenSize,
    normEpsilon,
    contextTokens: contextTokensOf(contextTokens, rope),
    tiedEmbeddings,
  };
}

/** `vocab_size` is optional, so the embedding's rows count. A missing head means tied embeddings. */
export function ggufVocabulary(gguf: TensorFile): Pick<GgufSizes, 'vocabularySize' | 'tiedEmbeddings'> {
  const vocabularySize = gguf.tensors.get('token_embd.weight')?.shape[0];
  if (vocabularySize === undefined) throw invalidInput('The GGUF has no tensor token_embd.weight.');
  if (vocabularySize < 1 || vocabularySize > limits.model.vocabulary) {
    throw invalidInput(`Tensor token_embd.weight has ${vocabularySize} rows.`);
  }
  return { vocabularySize, tiedEmbeddings: !gguf.tensors.has('output.weight') };
}

interface GgufRopeOptions {
  readonly dimensions: number;
  readonly layout: RopeSpec['layout'];
  readonly contextTokens: number;
  /** Default of YaRN's `truncate` for files that predate the key. */
  readonly yarnTruncate: boolean;
  /** Factor on cos and sin for a given scaling factor; default `yarnMscale`. */
  readonly yarnAttentionFactor?: (factor: number) => number;
}

export function ropeFromGguf(keys: GgufKeys, options: GgufRopeOptions): RopeSpec {
  const { dimensions, layout } = options;
  // 10000 is the default of llama.cpp and of the paper; stories260K omits the key.
  const rope = { theta: keys.optionalPositive('rope.freq_base') ?? 10_000, dimensions, layout };
  const factor = keys.optionalPositive('rope.scaling.factor') ?? keys.optionalPositive('rope.scale_linear') ?? 1;
  // Files that predate the key use linear scaling.
  const type = keys.optionalString('rope.scaling.type') ?? 'linear';
  switch (type) {
    case 'none':
      return rope;
    case 'linear':
      return factor === 1 ? rope : { ...rope, linearFactor: factor };
    case 'yarn':
      return { ...rope, yarn: yarnFromGguf(keys, factor, options) };
    default:
      throw unsupported(
        `GGUF key ${keys.architecture}.rope.scaling.type: Hearth supports none, linear and yarn, not ${type}.`,
      );
  }
}

function yarnFromGguf(keys: GgufKeys, factor: number, options: GgufRopeOptions): YarnSpec {
  // llama.cpp changed over time how it combines these with its own factor. No file of the supported families sets them.
  for (const key of ['rope.scaling.attn_factor', 'rope.scaling.yarn_attn_factor', 'rope.scaling.yarn_ext_factor']) {
    const value = keys.optionalNumber(key) ?? 1;
    if (value !== 1) throw unsupported(`GGUF key ${keys.architecture}.${key}: Hearth supports 1, not ${value}.`);
  }
  return {
    factor,
    originalContextTokens:
      keys.optionalSize('rope.scaling.original_context_length', limits.model.contextTokens) ?? options.contextTokens,
    betaFast: keys.optionalPositive('rope.scaling.yarn_beta_fast') ?? 32,
    betaSlow: keys.optionalPositive('rope.scaling.yarn_beta_slow') ?? 1,
    truncate: keys.optionalBoolean('rope.scaling.yarn_truncate') ?? options.yarnTruncate,
    attentionFactor: (options.yarnAttentionFactor ?? yarnMscale)(factor),
  };
}
