/**
 * Phi-4, Phi-4-mini and Phi-3: Llama's architecture with q, k and v in one matrix, and gate and up in another. Long
 * contexts use longrope (Ding et al. 2024). Sources: transformers `models/phi3/modeling_phi3.py`; llama.cpp
 * `convert_hf_to_gguf.py` (Phi3MiniModel).
 */
import { z } from 'zod';
import { invalidInput } from '../../errors.ts';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { longrope } from '../spec/rope.ts';
import { checkedSpec, type DecoderSpec, type RopeSpec } from '../spec/spec.ts';
import {
  decoderWeights,
  ggufNames,
  groupedQuery,
  huggingFaceNames,
  type LayerContext,
  type LayerTables,
  rotaryFactors,
  tensorTable,
} from '../weights/decoderWeights.ts';
import type { Weight } from '../weights/weights.ts';
import { selectRows } from '../weights/weightViews.ts';
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
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  rotatedDimensions,
  size,
} from './config.ts';
import type { FamilyBuilder } from './family.ts';
import { llamaLayers } from './llama.ts';

const phi3Config = z.looseObject({
  ...decoderFields,
  attention_bias: optional(z.boolean()),
  sliding_window: optional(size(limits.model.contextTokens)),
});

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(phi3Config, config);
  requireSiluActivation(parsed);
  requireValue('attention_bias', parsed.attention_bias ?? false, false);
  const sizes = configSizes(parsed);
  const dimensions = rotatedDimensions(config, sizes.headDim, 1);
  const rope = ropeFromConfig(parsed, { dimensions, layout: 'half-split' });
  return checkedSpec({
    family: 'phi3',
    ...configOuterFields(parsed, rope),
    layers: llamaLayers({ ...sizes, rope }, parsed.intermediate_size, { slidingWindow: parsed.sliding_window }),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens } = sizes;
  const dimensions = keys.optionalSize('rope.dimension_count', limits.model.width) ?? headDim;
  const rope = await ropeOf(keys, gguf, dimensions, contextTokens);
  // 0 in Phi-4's files: no window.
  const window = keys.optionalNumber('attention.sliding_window') ?? 0;
  const slidingWindow = window > 0 ? window : undefined;
  return checkedSpec({
    family: 'phi3',
    ...ggufOuterFields(sizes, rope),
    layers: llamaLayers({ ...sizes, rope }, sizes.intermediateSize, { slidingWindow }),
  });
}

/** Files with factors state no scaling type, or longrope. The converter computes the factor on cos and sin. */
async function ropeOf(keys: GgufKeys, gguf: GgufSource, dimensions: number, contextTokens: number): Promise<RopeSpec> {
  const layout = 'half-split';
  const longFactors = await rotaryFactors(gguf, 'rope_factors_long.weight', dimensions / 2);
  if (!longFactors) return ropeFromGguf(keys, { dimensions, layout, contextTokens, yarnTruncate: true });
  const shortFactors = await rotaryFactors(gguf, 'rope_factors_short.weight', dimensions / 2);
  if (!shortFactors)
    throw invalidInput('The GGUF has rope_factors_long.weight, but no tensor rope_factors_short.weight.');
  return {
    theta: keys.optionalPositive('rope.freq_base') ?? 10_000,
    dimensions,
    layout,
    ...longrope({
      longFactors,
      shortFactors,
      originalContextTokens: keys.size('rope.scaling.original_context_length', limits.model.contextTokens),
      attentionFactor: keys.optionalPositive('rope.scaling.attn_factor') ?? 1,
    }),
  };
}

/** `[q; k; v]` and `[gate; up]` by rows. */
const tablesOf = (names: (layer: number) => { readonly qkv: string; readonly gateUp: string }): LayerTables => ({
  attention(context) {
    const { numAttentionHeads, numKeyValueHeads, headDim } = groupedQuery(context.layer);
    const [queryRows, keyRows] = [numAttentionHeads * headDim, numKeyValueHeads * headDim];
    const part = cut(context, names(context.index).qkv, queryRows + 2 * keyRows);
    const output = context.table.linear(context.names.output, [context.spec.hiddenSize, queryRows], false);
    return {
      kind: 'grouped-query',
      query: { weight: part(0, queryRows) },
      key: { weight: part(queryRows, keyRows) },
      value: { weight: part(queryRows + keyRows, keyRows) },
      output,
    };
  },
  feedForward(context) {
    const { feedForward } = context.layer;
    const { hiddenSize } = context.spec;
    const { intermediateSize } = feedForward;
    const part = cut(context, names(context.index).gateUp, 2 * intermediateSize);
    const down = context.table.weight(`${context.names.down}.weight`, [hiddenSize, intermediateSize]);
    return {
      kind: 'dense',
      gate: part(0, intermediateSize),
      up: part(intermediateSize, intermediateSize),
      down,
    };
  },
});

/** Cuts parts from a matrix of `rows` rows: `length` rows from `offset` on. */
function cut({ table, spec: { hiddenSize } }: LayerContext, name: string, rows: number) {
  const whole = table.weight(name, [rows, hiddenSize]);
  return (offset: number, length: number): Weight =>
    selectRows(whole, { period: rows, offset, length }, [length, hiddenSize]);
}

/** Phi-4's generation_config.json recommends no sampling. */
export const phi3: FamilyBuilder = {
  modelTypes: ['phi3'],
  ggufArchitecture: 'phi3',
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(
      spec,
      tensorTable(file, fp8BlockOf(config)),
      huggingFaceNames,
      tablesOf((layer) => ({
        qkv: `model.layers.${layer}.self_attn.qkv_proj.weight`,
        gateUp: `model.layers.${layer}.mlp.gate_up_proj.weight`,
      })),
    ),
  weightsFromGguf: (spec, file) =>
    decoderWeights(
      spec,
      tensorTable(file),
      ggufNames,
      tablesOf((layer) => ({ qkv: `blk.${layer}.attn_qkv.weight`, gateUp: `blk.${layer}.ffn_up.weight` })),
    ),
};
