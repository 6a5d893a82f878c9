/**
 * Mistral's dense models: Llama's architecture with an independent head width. Ministral 3 and Devstral Small 2 extend
 * the context with YaRN and scale queries beyond the original context; they and Mistral Small 3 are published as the
 * text part of a model that also reads images. Sources: transformers
 * `models/{mistral,ministral3,mistral3}/modeling_*.py`; llama.cpp `conversion/mistral3.py` (Mistral3Model) and
 * `src/models/mistral3.cpp`. Older models have Llama's architecture in GGUF files (llama.ts).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { yarnAttentionFactor } from '../spec/rope.ts';
import { checkedSpec, type DecoderSpec, type QueryTemperature } from '../spec/spec.ts';
import { decoderWeights, ggufNames, huggingFaceNames, tensorTable } from '../weights/decoderWeights.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  fp8BlockOf,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  parseConfig,
  queryTemperatureOf,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  size,
  textConfig,
} from './config.ts';
import { type FamilyBuilder, textPart } from './family.ts';
import { llamaLayers } from './llama.ts';

const mistralConfig = z.looseObject({
  ...decoderFields,
  sliding_window: size(limits.model.contextTokens).nullish(),
});
type MistralConfig = z.infer<typeof mistralConfig>;

/** Null means none; if the key is missing, transformers' `MistralConfig` takes 4096, `Ministral3Config` none. */
function slidingWindowOf({ sliding_window: window, model_type: type }: MistralConfig): number | undefined {
  if (window === undefined) return type === 'mistral' ? 4096 : undefined;
  return window ?? undefined;
}

function specFromConfig(config: unknown): DecoderSpec {
  const { text } = textConfig(config);
  const parsed = parseConfig(mistralConfig, text);
  requireValue('text_config.model_type', parsed.model_type, 'ministral3', 'mistral');
  requireSiluActivation(parsed);
  const sizes = configSizes(parsed);
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'mistral3',
    // `tie_word_embeddings` outside the text part is ignored: transformers writes true there by default, whatever the
    // checkpoint has.
    ...configOuterFields(parsed, rope),
    layers: llamaLayers({ ...sizes, rope }, parsed.intermediate_size, {
      slidingWindow: slidingWindowOf(parsed),
      queryTemperature: queryTemperatureOf(parsed),
    }),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { contextTokens } = sizes;
  const dimensions = keys.optionalSize('rope.dimension_count', limits.model.width) ?? sizes.headDim;
  // The key holds mscale_all_dim; mscale is 1 (llama.cpp src/llama-context.cpp).
  const mscaleAllDim = keys.optionalNumber('rope.scaling.yarn_log_multiplier') ?? 0;
  const rope = ropeFromGguf(keys, {
    dimensions,
    // As in llama.ts: the converter permutes the rows of q and k.
    layout: 'interleaved',
    contextTokens,
    yarnTruncate: true,
    yarnAttentionFactor: (factor) => yarnAttentionFactor(factor, 1, mscaleAllDim),
  });
  return checkedSpec({
    family: 'mistral3',
    ...ggufOuterFields(sizes, rope),
    layers: llamaLayers({ ...sizes, rope }, sizes.intermediateSize, {
      queryTemperature: queryTemperatureFromGguf(keys, contextTokens),
    }),
  });
}

/** Absent or 0: none. */
function queryTemperatureFromGguf(keys: GgufKeys, contextTokens: number): QueryTemperature | undefined {
  const beta = keys.optionalNumber('attention.temperature_scale') ?? 0;
  const original = keys.optionalSize('rope.scaling.original_context_length', limits.model.contextTokens);
  return beta === 0 ? undefined : { beta, originalContextTokens: original ?? contextTokens };
}

export const mistral3: FamilyBuilder = {
  modelTypes: ['mistral3', 'ministral3', 'mistral'],
  ggufArchitecture: 'mistral3',
  // Devstral Small 2's card.
  sampling: { temperature: 0.15 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(textPart(file), fp8BlockOf(config)), huggingFaceNames),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames),
};
