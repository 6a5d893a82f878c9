/**
 * Gemma 3, text: norms before and after each block, GeGLU, scaled embeddings, and five layers with a sliding window for
 * each with full attention, each kind with its own rotary settings. Sources: transformers
 * `models/gemma3/modeling_gemma3.py`; llama.cpp `convert_hf_to_gguf.py` (Gemma3Model) and `llama-model.cpp`
 * (LLM_ARCH_GEMMA3).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec, type RopeSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  ggufNames,
  huggingFaceNames,
  type TensorTable,
  tensorTable,
} from '../weights/decoderWeights.ts';
import { plusOne } from '../weights/weightViews.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  fp8BlockOf,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  optional,
  parseConfig,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  ropeScaling,
  size,
} from './config.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes } from './family.ts';

const gemma3Config = z.looseObject({
  ...decoderFields,
  hidden_act: optional(z.string()),
  hidden_activation: optional(z.string()),
  head_dim: optional(size(limits.model.width)),
  query_pre_attn_scalar: optional(z.number().positive()),
  sliding_window: size(limits.model.contextTokens),
  sliding_window_pattern: optional(size(limits.model.layers)),
  layer_types: optional(z.array(z.string()).max(limits.model.layers)),
  rope_local_base_freq: optional(z.number().positive()),
  attention_bias: optional(z.boolean()),
  attn_logit_softcapping: optional(z.number()),
  final_logit_softcapping: optional(z.number()),
  use_bidirectional_attention: optional(z.boolean()),
  /** transformers 5 has one entry a kind of layer. */
  rope_parameters: optional(
    z.looseObject({ full_attention: optional(ropeScaling), sliding_attention: optional(ropeScaling) }),
  ),
});
type Gemma3Config = z.infer<typeof gemma3Config>;

/** Every sixth layer has full attention. */
const publishedPattern = 6;
const publishedLocalTheta = 10_000;

interface Gemma3Sizes extends Omit<HeadSizes, 'rope'> {
  readonly softmaxScale: number;
  readonly slidingWindow: number;
  readonly rope: { readonly full: RopeSpec; readonly sliding: RopeSpec };
}

/** @param isFull whether each layer has full attention; one entry a layer. */
function gemma3Layers(
  isFull: readonly boolean[],
  { rope, slidingWindow, softmaxScale, ...sizes }: Gemma3Sizes,
  intermediateSize: number,
): DecoderSpec['layers'] {
  const own = { qkNorm: true, softmaxScale };
  return isFull.map((full) => ({
    postNorms: true,
    attention: full
      ? groupedQueryAttention({ ...sizes, rope: rope.full }, own)
      : groupedQueryAttention({ ...sizes, rope: rope.sliding }, { ...own, slidingWindow }),
    feedForward: { kind: 'dense', intermediateSize, activation: { kind: 'gelu-gate' } },
  }));
}

function fullLayers(config: Gemma3Config): boolean[] {
  const pattern = config.sliding_window_pattern ?? publishedPattern;
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => {
    const type = config.layer_types?.[layer];
    if (type === undefined) return (layer + 1) % pattern === 0;
    requireValue(`layer_types.${layer}`, type, 'full_attention', 'sliding_attention');
    return type === 'full_attention';
  });
}

function ropesFromConfig(config: Gemma3Config, dimensions: number): Gemma3Sizes['rope'] {
  const { rope_parameters: byKind, rope_local_base_freq: localTheta = publishedLocalTheta, ...rest } = config;
  const head = { dimensions, layout: 'half-split' } as const;
  const plain = { ...rest, rope_parameters: byKind?.full_attention, rope_theta: config.rope_theta ?? 1_000_000 };
  const sliding = {
    ...rest,
    rope_parameters: byKind?.sliding_attention,
    rope_scaling: undefined,
    rope_theta: localTheta,
  };
  return { full: ropeFromConfig(plain, head), sliding: ropeFromConfig(sliding, head) };
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(gemma3Config, config);
  requireValue('hidden_activation', parsed.hidden_activation ?? 'gelu_pytorch_tanh', 'gelu_pytorch_tanh');
  requireValue('attention_bias', parsed.attention_bias ?? false, false);
  requireValue('attn_logit_softcapping', parsed.attn_logit_softcapping, undefined);
  requireValue('final_logit_softcapping', parsed.final_logit_softcapping, undefined);
  requireValue('use_bidirectional_attention', parsed.use_bidirectional_attention ?? false, false);
  const sizes = configSizes({ ...parsed, head_dim: parsed.head_dim ?? 256 });
  const rope = ropesFromConfig(parsed, sizes.headDim);
  return checkedSpec({
    family: 'gemma3',
    ...configOuterFields({ ...parsed, tie_word_embeddings: parsed.tie_word_embeddings ?? true }, rope.full),
    embeddingScale: Math.sqrt(parsed.hidden_size),
    layers: gemma3Layers(
      fullLayers(parsed),
      {
        ...sizes,
        softmaxScale: (parsed.query_pre_attn_scalar ?? 256) ** -0.5,
        slidingWindow: parsed.sliding_window,
        rope,
      },
      parsed.intermediate_size,
    ),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim: dimensions, contextTokens, numLayers, hiddenSize, numAttentionHeads } = sizes;
  const full = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const theta = keys.optionalNumber('rope.freq_base_swa') ?? publishedLocalTheta;
  const pattern = keys.optionalSize('attention.sliding_window_pattern', limits.model.layers) ?? publishedPattern;
  // The 27B model, which llama.cpp recognises by its number of layers, scales by the head width that would apply
  // without head_dim.
  const scaleDim = numLayers === 62 ? hiddenSize / numAttentionHeads : dimensions;
  return checkedSpec({
    family: 'gemma3',
    ...ggufOuterFields(sizes, full),
    embeddingScale: Math.sqrt(hiddenSize),
    layers: gemma3Layers(
      Array.from({ length: numLayers }, (_, layer) => (layer + 1) % pattern === 0),
      {
        ...sizes,
        softmaxScale: scaleDim ** -0.5,
        slidingWindow: keys.size('attention.sliding_window', limits.model.contextTokens),
        rope: { full, sliding: { theta, dimensions, layout: 'half-split' } },
      },
      sizes.intermediateSize,
    ),
  });
}

const gemma3Names: DecoderNames = {
  ...huggingFaceNames,
  layer(index) {
    const layer = `model.layers.${index}`;
    return {
      ...huggingFaceNames.layer(index),
      attentionPostNorm: `${layer}.post_attention_layernorm.weight`,
      feedForwardNorm: `${layer}.pre_feedforward_layernorm.weight`,
      feedForwardPostNorm: `${layer}.post_feedforward_layernorm.weight`,
    };
  },
};

const gemma3GgufNames: DecoderNames = {
  ...ggufNames,
  layer: (index) => ({
    ...ggufNames.layer(index),
    attentionPostNorm: `blk.${index}.post_attention_norm.weight`,
    feedForwardPostNorm: `blk.${index}.post_ffw_norm.weight`,
  }),
};

/** safetensors store norm weights minus one; the converter to GGUF adds one. */
const withWholeNorms = (table: TensorTable): TensorTable => ({
  ...table,
  weight: (name, shape, as) => {
    const weight = table.weight(name, shape, as);
    return name.endsWith('norm.weight') ? plusOne(weight) : weight;
  },
});

export const gemma3: FamilyBuilder = {
  modelTypes: ['gemma3_text'],
  ggufArchitecture: 'gemma3',
  // Gemma 3's generation_config.json.
  sampling: { temperature: 1, topP: 0.95, topK: 64 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, withWholeNorms(tensorTable(file, fp8BlockOf(config))), gemma3Names),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), gemma3GgufNames),
};
