/**
 * Locates DeepSeek-V3's weights in Hugging Face checkpoints (BF16, or FP8 with block scales) and GGUF (`deepseek2`).
 */
import type { TensorFile } from '../../formats/tensor.ts';
import type { DecoderSpec, LatentAttentionSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  denseTables,
  denseWeights,
  expertsApart,
  expertsOf,
  ggufExperts,
  ggufNames,
  huggingFaceNames,
  type LayerContext,
  type LayerTables,
  routerOf,
  tensorTable,
} from '../weights/decoderWeights.ts';
import type { DecoderWeights, ExpertsWeights, FeedForwardWeights, LatentWeights, Weight } from '../weights/weights.ts';
import { selectRows } from '../weights/weightViews.ts';
import { fp8BlockOf } from './config.ts';

export function deepseekFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights {
  return deepseekLikeFromHuggingFace(spec, file, config, (context) => {
    const stem = `model.layers.${context.index}.self_attn`;
    return latentWeights(context, {
      query: `${stem}.q_proj.weight`,
      queryDown: `${stem}.q_a_proj.weight`,
      queryNorm: `${stem}.q_a_layernorm.weight`,
      queryUp: `${stem}.q_b_proj.weight`,
      keyValueDown: `${stem}.kv_a_proj_with_mqa.weight`,
      keyValueNorm: `${stem}.kv_a_layernorm.weight`,
      keyValueUp: `${stem}.kv_b_proj.weight`,
      output: `${stem}.o_proj.weight`,
    });
  });
}

/** Weights of a model with these experts and any attention. */
export function deepseekLikeFromHuggingFace(
  spec: DecoderSpec,
  file: TensorFile,
  config: unknown,
  attention: LayerTables['attention'],
): DecoderWeights {
  return decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), huggingFaceNames, {
    attention,
    feedForward(context) {
      if (context.layer.feedForward.kind === 'dense') return denseTables.feedForward(context);
      const mlp = `model.layers.${context.index}.mlp`;
      return deepseekFeedForward(context, {
        selectionBias: `${mlp}.gate.e_score_correction_bias`,
        experts: expertsApart(context, expertsOf(context), `${mlp}.experts`),
        shared: {
          gate: `${mlp}.shared_experts.gate_proj`,
          up: `${mlp}.shared_experts.up_proj`,
          down: `${mlp}.shared_experts.down_proj`,
        },
      });
    },
  });
}

export function deepseekFromGguf(spec: DecoderSpec, file: TensorFile): DecoderWeights {
  return deepseekLikeFromGguf(spec, file, (context) => {
    const layer = `blk.${context.index}`;
    return latentWeights(context, {
      query: `${layer}.attn_q.weight`,
      queryDown: `${layer}.attn_q_a.weight`,
      queryNorm: `${layer}.attn_q_a_norm.weight`,
      queryUp: `${layer}.attn_q_b.weight`,
      keyValueDown: `${layer}.attn_kv_a_mqa.weight`,
      keyValueNorm: `${layer}.attn_kv_a_norm.weight`,
      keyValueUp: `${layer}.attn_kv_b.weight`,
      keyUpTransposed: `${layer}.attn_k_b.weight`,
      valueUp: `${layer}.attn_v_b.weight`,
      output: `${layer}.attn_output.weight`,
    });
  });
}

export function deepseekLikeFromGguf(
  spec: DecoderSpec,
  file: TensorFile,
  attention: LayerTables['attention'],
  names: DecoderNames = ggufNames,
): DecoderWeights {
  return decoderWeights(spec, tensorTable(file), names, {
    attention,
    feedForward(context) {
      if (context.layer.feedForward.kind === 'dense') return denseTables.feedForward(context);
      const layer = `blk.${context.index}`;
      return deepseekFeedForward(context, {
        selectionBias: `${layer}.exp_probs_b.bias`,
        experts: ggufExperts(context, expertsOf(context)),
        shared: {
          gate: `${layer}.ffn_gate_shexp`,
          up: `${layer}.ffn_up_shexp`,
          down: `${layer}.ffn_down_shexp`,
        },
      });
    },
  });
}

interface LatentNames {
  /** Used if the query isn't compressed (DeepSeek-V2-Lite). */
  readonly query: string;
  readonly queryDown: string;
  readonly queryNorm: string;
  readonly queryUp: string;
  readonly keyValueDown: string;
  readonly keyValueNorm: string;
  /** `[heads · (nope + value), keyValueRank]`: for each head the rows of K, then those of V. */
  readonly keyValueUp: string;
  /** Used if K and V are separate: `[heads, keyValueRank, nope]` and `[heads, value, keyValueRank]`. */
  readonly keyUpTransposed?: string;
  readonly valueUp?: string;
  readonly output: string;
}

function latentWeights(context: LayerContext, names: LatentNames): LatentWeights {
  const { table, spec } = context;
  const attention = latentAttention(context);
  const { numAttentionHeads, queryRank, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim } = attention;
  const { hiddenSize } = spec;
  const queryWidth = numAttentionHeads * (nopeHeadDim + ropeHeadDim);
  const query =
    queryRank === undefined
      ? { queryUp: table.weight(names.query, [queryWidth, hiddenSize]) }
      : {
          queryDown: table.weight(names.queryDown, [queryRank, hiddenSize]),
          queryNorm: table.weight(names.queryNorm, [queryRank]),
          queryUp: table.weight(names.queryUp, [queryWidth, queryRank]),
        };
  return {
    kind: 'latent',
    ...query,
    keyValueDown: table.weight(names.keyValueDown, [keyValueRank + ropeHeadDim, hiddenSize]),
    keyValueNorm: table.weight(names.keyValueNorm, [keyValueRank]),
    ...keyAndValueUp(context, attention, names),
    output: table.weight(names.output, [hiddenSize, numAttentionHeads * valueHeadDim]),
  };
}

function keyAndValueUp(
  { table }: LayerContext,
  { numAttentionHeads, keyValueRank, nopeHeadDim, valueHeadDim }: LatentAttentionSpec,
  names: LatentNames,
): Pick<LatentWeights, 'keyUp' | 'valueUp'> {
  // Some files contain all three. The joint tensor is the published one.
  if (names.keyUpTransposed && names.valueUp && !table.has(names.keyValueUp)) {
    const keyUp = table.weight(names.keyUpTransposed, [numAttentionHeads, keyValueRank, nopeHeadDim]);
    const valueUp = table.weight(names.valueUp, [numAttentionHeads, valueHeadDim, keyValueRank]);
    return { keyUp: { weight: keyUp, transposed: true }, valueUp };
  }
  const period = nopeHeadDim + valueHeadDim;
  const joint = table.weight(names.keyValueUp, [numAttentionHeads * period, keyValueRank]);
  const ofEachHead = (offset: number, length: number): Weight =>
    selectRows(joint, { period, offset, length }, [numAttentionHeads, length, keyValueRank]);
  return {
    keyUp: { weight: ofEachHead(0, nopeHeadDim), transposed: false },
    valueUp: ofEachHead(nopeHeadDim, valueHeadDim),
  };
}

interface FeedForwardNames {
  readonly selectionBias: string;
  readonly experts: Pick<ExpertsWeights, 'gate' | 'up' | 'down'>;
  readonly shared?: { readonly gate: string; readonly up: string; readonly down: string };
}

export function deepseekFeedForward(context: LayerContext, names: FeedForwardNames): FeedForwardWeights {
  const { table, spec } = context;
  const experts = expertsOf(context);
  const { numExperts, sharedIntermediateSize } = experts;
  return {
    kind: 'experts',
    router: routerOf(context, experts),
    selectionBias: table.weight(names.selectionBias, [numExperts]),
    ...names.experts,
    ...(sharedIntermediateSize !== undefined &&
      names.shared && {
        shared: denseWeights(table, spec.hiddenSize, { intermediateSize: sharedIntermediateSize }, names.shared),
      }),
  };
}

function latentAttention({ layer }: LayerContext): LatentAttentionSpec {
  if (layer.attention.kind !== 'latent') throw new Error('DeepSeek-V3 layers must use latent attention.');
  return layer.attention;
}
