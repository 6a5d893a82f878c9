/**
 * StarCoder2: grouped-query attention in a sliding window, LayerNorms, a network without a gate, biases throughout.
 * Sources: transformers `models/starcoder2/modeling_starcoder2.py`; llama.cpp `convert_hf_to_gguf.py` (StarCoder2Model) and
 * `llama-model.cpp` (LLM_ARCH_STARCODER2).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  denseTables,
  ggufNames,
  huggingFaceNames,
  type LayerTables,
  tensorTable,
} from '../weights/decoderWeights.ts';
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
  size,
} from './config.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes } from './family.ts';

const { rms_norm_eps: epsilon, ...fields } = decoderFields;
const starcoder2Config = z.looseObject({
  ...fields,
  norm_epsilon: epsilon,
  norm_type: optional(z.string()),
  mlp_type: optional(z.string()),
  use_bias: optional(z.boolean()),
  sliding_window: optional(size(limits.model.contextTokens)),
});

/**
 * Window of the 3B, 7B and 15B models. llama.cpp neither stores nor applies it; results are the same up to this length.
 */
const publishedSlidingWindow = 4096;

function starcoder2Layers(
  sizes: HeadSizes & { readonly numLayers: number },
  intermediateSize: number,
  slidingWindow: number | undefined,
): DecoderSpec['layers'] {
  const attention = groupedQueryAttention(sizes, { bias: { qkv: true, output: true }, slidingWindow });
  return Array.from({ length: sizes.numLayers }, () => ({
    attention,
    feedForward: { kind: 'plain', intermediateSize, activation: { kind: 'gelu' } },
  }));
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(starcoder2Config, config);
  requireValue('hidden_act', parsed.hidden_act, 'gelu_pytorch_tanh');
  requireValue('norm_type', parsed.norm_type ?? 'layer_norm', 'layer_norm');
  requireValue('mlp_type', parsed.mlp_type ?? 'default', 'default');
  requireValue('use_bias', parsed.use_bias ?? true, true);
  const sizes = configSizes(parsed);
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'starcoder2',
    norm: 'layer',
    ...configOuterFields(
      { ...parsed, rms_norm_eps: parsed.norm_epsilon, tie_word_embeddings: parsed.tie_word_embeddings ?? true },
      rope,
    ),
    layers: starcoder2Layers({ ...sizes, rope }, parsed.intermediate_size, parsed.sliding_window),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens } = sizes;
  const dimensions = keys.optionalSize('rope.dimension_count', limits.model.width) ?? headDim;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const window = keys.optionalSize('attention.sliding_window', limits.model.contextTokens);
  return checkedSpec({
    family: 'starcoder2',
    norm: 'layer',
    ...ggufOuterFields(sizes, rope),
    layers: starcoder2Layers({ ...sizes, rope }, sizes.intermediateSize, window ?? publishedSlidingWindow),
  });
}

const starcoder2Names: DecoderNames = {
  ...huggingFaceNames,
  layer: (index) => ({
    ...huggingFaceNames.layer(index),
    up: `model.layers.${index}.mlp.c_fc`,
    down: `model.layers.${index}.mlp.c_proj`,
  }),
};

const tables: LayerTables = {
  ...denseTables,
  feedForward({ table, spec: { hiddenSize }, layer: { feedForward }, names }) {
    const { intermediateSize } = feedForward;
    return {
      kind: 'plain',
      up: table.linear(names.up, [intermediateSize, hiddenSize], true),
      down: table.linear(names.down, [hiddenSize, intermediateSize], true),
    };
  },
};

/** No generation_config.json of the base models recommends sampling. */
export const starcoder2: FamilyBuilder = {
  modelTypes: ['starcoder2'],
  ggufArchitecture: 'starcoder2',
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), starcoder2Names, tables),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames, tables),
};
