/** Validates a published Hugging Face `config.json`: the fields that families share. */
import { z } from 'zod';
import { firstIssue, invalidInput, unsupported } from '../../errors.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { limits } from '../../limits.ts';
import { llama3FrequencyFactors, yarnAttentionFactor } from '../spec/rope.ts';
import type { DecoderSpec, RopeSpec, YarnSpec } from '../spec/spec.ts';
import type { DecoderWeights } from '../weights/weights.ts';
import type { GgufKeys, GgufSource } from './ggufKeys.ts';

// Interface of a family file: builds a `DecoderSpec` from either format, and finds its weights.

export interface FamilyBuilder {
  /** `model_type` values in config.json. */
  readonly modelTypes: readonly string[];
  /** `general.architecture` in a GGUF. */
  readonly ggufArchitecture: string;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the key. */
  specFromConfig(config: unknown): DecoderSpec;
  specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec>;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the tensor. */
  weightsFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights;
  weightsFromGguf(spec: DecoderSpec, file: TensorFile): DecoderWeights;
}

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
});
export type RopeScaling = z.infer<typeof ropeScaling>;

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
  hidden_act: z.string(),
  tie_word_embeddings: optional(z.boolean()),
  rope_theta: optional(positive),
  rope_scaling: optional(ropeScaling),
  /** In transformers 5, holds both `rope_theta` and `rope_scaling`. */
  rope_parameters: optional(ropeScaling),
};

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

export type DecoderConfig = z.infer<z.ZodObject<typeof decoderFields>>;
type RopeConfig = Pick<DecoderConfig, 'rope_theta' | 'rope_scaling' | 'rope_parameters' | 'max_position_embeddings'>;

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
 * plain floats.
 * @throws HearthError `unsupported` for GPTQ, AWQ etc., which need kernels of their own.
 */
export function fp8BlockOf(config: unknown): readonly [rows: number, columns: number] | undefined {
  const { quantization_config: quantisation } = parseConfig(quantisedConfig, config);
  if (!quantisation) return undefined;
  requireValue('quantization_config.quant_method', quantisation.quant_method, 'fp8');
  requireValue('quantization_config.fmt', quantisation.fmt ?? 'e4m3', 'e4m3');
  return required(quantisation.weight_block_size, 'quantization_config.weight_block_size');
}

export function requireSiluActivation(config: DecoderConfig): void {
  requireValue('hidden_act', config.hidden_act, 'silu');
}

export function headDimOf(config: DecoderConfig): number {
  return config.head_dim ?? config.hidden_size / config.num_attention_heads;
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
    default:
      requireValue('rope_scaling.rope_type', type, 'default', 'linear', 'llama3', 'yarn');
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

function required<T>(value: T | undefined, key: string): T {
  if (value === undefined) throw invalidInput(`config.json, key ${key} is missing.`);
  return value;
}

/** `mscale_all_dim`, which DeepSeek also applies to the softmax scale. */
export function ropeMscaleAllDim(config: DecoderConfig): number {
  return ropeSettings(config).mscale_all_dim ?? 0;
}

/** A checkpoint with YaRN supports the scaled context, even if `max_position_embeddings` wasn't raised. */
export function contextTokensOf(maxPositionEmbeddings: number, rope: RopeSpec): number {
  const { yarn } = rope;
  return yarn
    ? Math.max(maxPositionEmbeddings, Math.floor(yarn.factor * yarn.originalContextTokens))
    : maxPositionEmbeddings;
}
