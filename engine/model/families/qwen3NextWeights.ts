/**
 * Locates the weights of Qwen3-Next and Qwen3.5 in Hugging Face checkpoints and GGUF. A gated delta net's projections are
 * stored by key head (Qwen3-Next as published) or by kind.
 */
import { unsupported } from '../../errors.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { convolutionChannels, type DecoderSpec, type GatedDeltaSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  denseTables,
  denseWeights,
  expertsApart,
  expertsOf,
  ggufExperts,
  ggufNames,
  groupedQueryWeights,
  huggingFaceNames,
  type LayerContext,
  type LayerTables,
  routerOf,
  type TensorTable,
  tensorTable,
} from '../weights/decoderWeights.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  ExpertsWeights,
  FeedForwardWeights,
  GatedDeltaWeights,
  Weight,
} from '../weights/weights.ts';
import { eachValue, plusOne, selectRows } from '../weights/weightViews.ts';
import { fp8BlockOf } from './config.ts';
import { textPart } from './family.ts';

// Weights of the gated delta net.

function deltaOf({ layer }: LayerContext): GatedDeltaSpec {
  if (layer.attention.kind !== 'gated-delta') throw new Error('This layer has attention.');
  return layer.attention;
}

/** The parts of `inputs`, which has the rows of all parts for the first key head, then for the next. */
function partsByKeyHead(inputs: Weight, lengths: readonly number[], numKeyHeads: number): Weight[] {
  const period = lengths.reduce((sum, length) => sum + length, 0);
  const columns = inputs.shape.at(-1) ?? 1;
  let offset = 0;
  return lengths.map((length) => {
    const part = selectRows(inputs, { period, offset, length }, [numKeyHeads * length, columns]);
    offset += length;
    return part;
  });
}

type Projections = Pick<GatedDeltaWeights, 'query' | 'key' | 'value' | 'gate'>;

/** `in_proj_qkvz`: query, key, values and gates of a key head, then of the next. */
function projectionsByKeyHead(context: LayerContext, name: string): Projections {
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = deltaOf(context);
  const values = (numValueHeads / numKeyHeads) * valueHeadDim;
  const rows = 2 * numKeyHeads * (keyHeadDim + values);
  const all = context.table.weight(name, [rows, context.spec.hiddenSize]);
  const [query, key, value, gate] = partsByKeyHead(all, [keyHeadDim, keyHeadDim, values, values], numKeyHeads);
  if (!query || !key || !value || !gate) throw new Error('Four parts were asked for.');
  return { query, key, value, gate };
}

/** `attn_qkv` and `attn_gate`: all queries, all keys, all values; all gates. */
function projectionsByKind(context: LayerContext, mixed: string, gate: string): Projections {
  const { table, spec } = context;
  const delta = deltaOf(context);
  const period = convolutionChannels(delta);
  const keyWidth = delta.numKeyHeads * delta.keyHeadDim;
  const valueWidth = delta.numValueHeads * delta.valueHeadDim;
  const all = table.weight(mixed, [period, spec.hiddenSize]);
  const rows = (offset: number, length: number) =>
    selectRows(all, { period, offset, length }, [length, spec.hiddenSize]);
  return {
    query: rows(0, keyWidth),
    key: rows(keyWidth, keyWidth),
    value: rows(2 * keyWidth, valueWidth),
    gate: table.weight(gate, [valueWidth, spec.hiddenSize]),
  };
}

/** `in_proj_ba` and `ssm_ba`: beta and decay of a key head's values, then of the next. */
function stepsByKeyHead(context: LayerContext, name: string): Pick<GatedDeltaWeights, 'beta' | 'decay'> {
  const { numKeyHeads, numValueHeads } = deltaOf(context);
  const each = numValueHeads / numKeyHeads;
  const all = context.table.weight(name, [2 * numValueHeads, context.spec.hiddenSize]);
  const [beta, decay] = partsByKeyHead(all, [each, each], numKeyHeads);
  if (!beta || !decay) throw new Error('Two parts were asked for.');
  return { beta, decay };
}

/** `in_proj_b` and `in_proj_a`, `ssm_beta` and `ssm_alpha`. */
function stepsApart(context: LayerContext, beta: string, decay: string): Pick<GatedDeltaWeights, 'beta' | 'decay'> {
  const { table, spec } = context;
  const shape = [deltaOf(context).numValueHeads, spec.hiddenSize];
  return { beta: table.weight(beta, shape), decay: table.weight(decay, shape) };
}

interface DeltaNames {
  readonly convolution: string;
  readonly decayBias: string;
  readonly norm: string;
  readonly output: string;
}

function deltaWeights(
  context: LayerContext,
  names: DeltaNames,
  parts: Projections & Pick<GatedDeltaWeights, 'beta' | 'decay' | 'decayRate'>,
): GatedDeltaWeights {
  const { table, spec } = context;
  const delta = deltaOf(context);
  const { numValueHeads, valueHeadDim, convolutionTokens } = delta;
  const channels = convolutionChannels(delta);
  const stored = table.file.tensors.get(names.convolution)?.shape.length;
  return {
    kind: 'gated-delta',
    ...parts,
    convolution: table.weight(
      names.convolution,
      stored === 3 ? [channels, 1, convolutionTokens] : [channels, convolutionTokens],
      [channels, convolutionTokens],
    ),
    decayBias: table.weight(names.decayBias, [numValueHeads]),
    norm: table.weight(names.norm, [valueHeadDim]),
    output: table.weight(names.output, [spec.hiddenSize, numValueHeads * valueHeadDim]),
  };
}

function deltaFromHuggingFace(context: LayerContext): GatedDeltaWeights {
  const stem = `model.layers.${context.index}.linear_attn`;
  const names: DeltaNames = {
    convolution: `${stem}.conv1d.weight`,
    decayBias: `${stem}.dt_bias`,
    norm: `${stem}.norm.weight`,
    output: `${stem}.out_proj.weight`,
  };
  const logarithms = context.table.weight(`${stem}.A_log`, [deltaOf(context).numValueHeads]);
  const parts = context.table.has(`${stem}.in_proj_qkv.weight`)
    ? {
        ...projectionsByKind(context, `${stem}.in_proj_qkv.weight`, `${stem}.in_proj_z.weight`),
        ...stepsApart(context, `${stem}.in_proj_b.weight`, `${stem}.in_proj_a.weight`),
      }
    : {
        ...projectionsByKeyHead(context, `${stem}.in_proj_qkvz.weight`),
        ...stepsByKeyHead(context, `${stem}.in_proj_ba.weight`),
      };
  return deltaWeights(context, names, {
    ...parts,
    decayRate: eachValue(logarithms, (value) => -Math.exp(value)),
  });
}

function deltaWeightsFromGguf(context: LayerContext): GatedDeltaWeights {
  const { table, index } = context;
  const layer = `blk.${index}`;
  const names: DeltaNames = {
    convolution: `${layer}.ssm_conv1d.weight`,
    decayBias: `${layer}.ssm_dt.bias`,
    norm: `${layer}.ssm_norm.weight`,
    output: `${layer}.ssm_out.weight`,
  };
  // The earliest files kept the publisher's order of rows.
  const projections = table.has(`${layer}.ssm_in.weight`)
    ? projectionsByKeyHead(context, `${layer}.ssm_in.weight`)
    : projectionsByKind(context, `${layer}.attn_qkv.weight`, `${layer}.attn_gate.weight`);
  return deltaWeights(context, names, {
    ...projections,
    ...(table.has(`${layer}.ssm_ba.weight`)
      ? stepsByKeyHead(context, `${layer}.ssm_ba.weight`)
      : stepsApart(context, `${layer}.ssm_beta.weight`, `${layer}.ssm_alpha.weight`)),
    decayRate: table.weight(`${layer}.ssm_a`, [deltaOf(context).numValueHeads]),
  });
}

// Weights of the experts.

interface SharedNames {
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  readonly sharedGate: string;
}

function gatedExpertWeights(
  context: LayerContext,
  routed: Pick<ExpertsWeights, 'gate' | 'up' | 'down'>,
  { sharedGate, ...shared }: SharedNames,
): ExpertsWeights {
  const { table, spec } = context;
  const experts = expertsOf(context);
  const { sharedIntermediateSize: intermediateSize } = experts;
  if (intermediateSize === undefined) throw unsupported('This family always has a shared expert.');
  // The converter to GGUF drops dimensions of one.
  const shape = table.file.tensors.get(sharedGate)?.shape.length === 1 ? [spec.hiddenSize] : [1, spec.hiddenSize];
  return {
    kind: 'experts',
    router: routerOf(context, experts),
    ...routed,
    shared: denseWeights(table, spec.hiddenSize, { intermediateSize }, shared),
    sharedGate: table.weight(sharedGate, shape, [1, spec.hiddenSize]),
  };
}

/** One tensor an expert (Qwen3-Next), or two for all experts: gate and up, and down (Qwen3.5). */
function huggingFaceExperts(context: LayerContext, prefix: string): Pick<ExpertsWeights, 'gate' | 'up' | 'down'> {
  const { table, spec } = context;
  const experts = expertsOf(context);
  if (!table.has(`${prefix}.gate_up_proj`)) return expertsApart(context, experts, prefix);
  const { numExperts, intermediateSize: length } = experts;
  const both = table.weight(`${prefix}.gate_up_proj`, [numExperts, 2 * length, spec.hiddenSize]);
  const half = (offset: number) => ({
    weight: selectRows(both, { period: 2 * length, offset, length }, [numExperts, length, spec.hiddenSize]),
  });
  const down = table.weight(`${prefix}.down_proj`, [numExperts, spec.hiddenSize, length]);
  return { gate: half(0), up: half(length), down: { weight: down } };
}

const mixed =
  (delta: (context: LayerContext) => GatedDeltaWeights) =>
  (context: LayerContext): AttentionWeights =>
    context.layer.attention.kind === 'gated-delta' ? delta(context) : groupedQueryWeights(context);

const huggingFaceTables: LayerTables = {
  attention: mixed(deltaFromHuggingFace),
  feedForward(context): FeedForwardWeights {
    if (context.layer.feedForward.kind === 'dense') return denseTables.feedForward(context);
    const mlp = `model.layers.${context.index}.mlp`;
    return gatedExpertWeights(context, huggingFaceExperts(context, `${mlp}.experts`), {
      gate: `${mlp}.shared_expert.gate_proj`,
      up: `${mlp}.shared_expert.up_proj`,
      down: `${mlp}.shared_expert.down_proj`,
      sharedGate: `${mlp}.shared_expert_gate.weight`,
    });
  },
};

const ggufTables: LayerTables = {
  attention: mixed(deltaWeightsFromGguf),
  feedForward(context): FeedForwardWeights {
    if (context.layer.feedForward.kind === 'dense') return denseTables.feedForward(context);
    const layer = `blk.${context.index}`;
    return gatedExpertWeights(context, ggufExperts(context, expertsOf(context)), {
      gate: `${layer}.ffn_gate_shexp`,
      up: `${layer}.ffn_up_shexp`,
      down: `${layer}.ffn_down_shexp`,
      sharedGate: `${layer}.ffn_gate_inp_shexp.weight`,
    });
  },
};

/** The converter names the norm before the feed-forward block for its position after attention. */
const ggufNamesOfNext: DecoderNames = {
  ...ggufNames,
  layer: (index) => ({ ...ggufNames.layer(index), feedForwardNorm: `blk.${index}.post_attention_norm.weight` }),
};

/**
 * safetensors store norm weights minus one, except for the norm inside the delta net; the converter to GGUF adds one.
 */
const withWholeNorms = (table: TensorTable): TensorTable => ({
  ...table,
  weight: (name, shape, as) => {
    const weight = table.weight(name, shape, as);
    return name.endsWith('norm.weight') && !name.endsWith('linear_attn.norm.weight') ? plusOne(weight) : weight;
  },
});

/** Qwen3.5's checkpoints also contain an image part and a multi-token prediction part, which are not loaded. */
export function qwen3NextFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights {
  const table = withWholeNorms(tensorTable(textPart(file), fp8BlockOf(config)));
  return decoderWeights(spec, table, huggingFaceNames, huggingFaceTables);
}

export const qwen3NextFromGguf = (spec: DecoderSpec, file: TensorFile): DecoderWeights =>
  decoderWeights(spec, tensorTable(file), ggufNamesOfNext, ggufTables);
