/**
 * Qwen3 mixture of experts and Qwen3-Coder: Qwen3's attention, and many small experts in every layer.
 * Sources: transformers `models/qwen3_moe/modeling_qwen3_moe.py`; llama.cpp `convert_hf_to_gguf.py` (Qwen3MoeModel).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec, type ExpertsSpec } from '../spec/spec.ts';
import {
  decoderWeights,
  denseTables,
  expertsApart,
  expertsOf,
  ggufExperts,
  ggufNames,
  groupedQueryWeights,
  huggingFaceNames,
  type LayerTables,
  routerOf,
  tensorTable,
} from '../weights/decoderWeights.ts';
import { experts, fp8BlockOf, type GgufSource, optional, parseConfig, requireValue, width } from './config.ts';
import { type FamilyBuilder, swiGlu } from './family.ts';
import { qwen3Fields, qwen3FromConfig, qwen3FromGguf } from './qwen3.ts';

const qwen3MoeConfig = z.looseObject({
  ...qwen3Fields,
  num_experts: experts,
  num_experts_per_tok: experts,
  moe_intermediate_size: width,
  norm_topk_prob: optional(z.boolean()),
  /** Every n-th layer has experts; 1 in all published models. */
  decoder_sparse_step: optional(z.number().int().min(1)),
  mlp_only_layers: optional(z.array(z.number().int()).max(limits.model.layers)),
  /** A key of Qwen2-MoE; Qwen3-Coder's configuration still contains it as 0. */
  shared_expert_intermediate_size: optional(z.number()),
});

interface Qwen3ExpertSizes {
  readonly numExperts: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  readonly renormalise: boolean;
}

export function qwen3Experts({ renormalise, ...sizes }: Qwen3ExpertSizes): ExpertsSpec {
  return {
    kind: 'experts',
    ...sizes,
    router: { kind: 'softmax-then-topk', renormalise },
    bias: false,
    activation: { kind: 'silu-gate' },
    routedScale: 1,
  };
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(qwen3MoeConfig, config);
  requireValue('shared_expert_intermediate_size', parsed.shared_expert_intermediate_size ?? 0, 0);
  const { outer, attentions } = qwen3FromConfig(parsed);
  const sparse = qwen3Experts({
    numExperts: parsed.num_experts,
    expertsPerToken: parsed.num_experts_per_tok,
    intermediateSize: parsed.moe_intermediate_size,
    // transformers' default; all published configurations say true.
    renormalise: parsed.norm_topk_prob ?? false,
  });
  const dense = swiGlu(parsed.intermediate_size);
  const step = parsed.decoder_sparse_step ?? 1;
  const isSparse = (layer: number) => !parsed.mlp_only_layers?.includes(layer) && (layer + 1) % step === 0;
  return checkedSpec({
    family: 'qwen3-moe',
    ...outer,
    layers: attentions.map((attention, layer) => ({ attention, feedForward: isSparse(layer) ? sparse : dense })),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const { sizes, outer, attention } = qwen3FromGguf(keys, gguf);
  const feedForward = qwen3Experts({
    numExperts: keys.size('expert_count', limits.model.experts),
    expertsPerToken: keys.size('expert_used_count', limits.model.experts),
    intermediateSize: keys.size('expert_feed_forward_length', limits.model.width),
    // llama.cpp renormalises this architecture regardless of the file.
    renormalise: keys.optionalBoolean('expert_weights_norm') ?? true,
  });
  return checkedSpec({
    family: 'qwen3-moe',
    ...outer,
    layers: Array.from({ length: sizes.numLayers }, () => ({ attention, feedForward })),
  });
}

const huggingFaceTables: LayerTables = {
  attention: groupedQueryWeights,
  feedForward(context) {
    if (context.layer.feedForward.kind === 'dense') return denseTables.feedForward(context);
    const experts = expertsOf(context);
    return {
      kind: 'experts',
      router: routerOf(context, experts),
      ...expertsApart(context, experts, `model.layers.${context.index}.mlp.experts`),
    };
  },
};

const ggufTables: LayerTables = {
  attention: groupedQueryWeights,
  feedForward(context) {
    const experts = expertsOf(context);
    return { kind: 'experts', router: routerOf(context, experts), ...ggufExperts(context, experts) };
  },
};

export const qwen3Moe: FamilyBuilder = {
  modelTypes: ['qwen3_moe'],
  ggufArchitecture: 'qwen3moe',
  // "Best practices" of the Qwen3 cards, thinking.
  sampling: { temperature: 0.6, topP: 0.95, topK: 20 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), huggingFaceNames, huggingFaceTables),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames, ggufTables),
};
