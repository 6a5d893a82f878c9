/** The parts of a name table that families share: roles, tensor names and shapes. */
import type { DecoderSpec, DenseSpec, ExpertsSpec, GroupedQueryAttentionSpec, LayerSpec } from '../spec/spec.ts';
import type { DecoderNames, LayerNames, TensorTable } from './tensorTable.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  ExpertsWeights,
  FeedForwardWeights,
  GroupedQueryWeights,
  Linear,
  Weight,
} from './weights.ts';
import { joinRows, type RowSelection, selectRows, stackedWeight } from './weightViews.ts';

export interface LayerContext {
  readonly table: TensorTable;
  readonly spec: DecoderSpec;
  readonly layer: LayerSpec;
  readonly index: number;
  readonly names: LayerNames;
}

/** Families with experts or latent attention supply their own. */
export interface LayerTables {
  attention(context: LayerContext): AttentionWeights;
  feedForward(context: LayerContext): FeedForwardWeights;
}

export const denseTables: LayerTables = { attention: groupedQueryWeights, feedForward: denseFeedForwardWeights };

export function decoderWeights(
  spec: DecoderSpec,
  table: TensorTable,
  names: DecoderNames,
  tables: LayerTables = denseTables,
): DecoderWeights {
  const { vocabularySize, hiddenSize } = spec;
  const embedding = table.weight(names.embedding, [vocabularySize, hiddenSize]);
  return {
    embedding,
    layers: spec.layers.map((layer, index) => {
      const context: LayerContext = { table, spec, layer, index, names: names.layer(index) };
      return {
        attentionNorm: table.weight(context.names.attentionNorm, [hiddenSize]),
        attention: tables.attention(context),
        feedForwardNorm: table.weight(context.names.feedForwardNorm, [hiddenSize]),
        feedForward: tables.feedForward(context),
        ...(layer.postNorms && postNorms(context)),
      };
    }),
    finalNorm: table.weight(names.finalNorm, [hiddenSize]),
    head: spec.tiedEmbeddings ? embedding : table.weight(names.head, [vocabularySize, hiddenSize]),
  };
}

function postNorms({ table, spec: { hiddenSize }, names: { attentionPostNorm, feedForwardPostNorm } }: LayerContext) {
  if (attentionPostNorm === undefined || feedForwardPostNorm === undefined) {
    throw new Error('A family with norms after its blocks must name them.');
  }
  return {
    attentionPostNorm: table.weight(attentionPostNorm, [hiddenSize]),
    feedForwardPostNorm: table.weight(feedForwardPostNorm, [hiddenSize]),
  };
}

export function groupedQueryWeights({ table, spec, layer, names }: LayerContext): GroupedQueryWeights {
  const attention = groupedQuery(layer);
  const { bias, headDim } = attention;
  const queryWidth = attention.numAttentionHeads * headDim;
  const keyWidth = attention.numKeyValueHeads * headDim;
  return {
    kind: 'grouped-query',
    query: table.linear(names.query, [queryWidth, spec.hiddenSize], bias.qkv),
    key: table.linear(names.key, [keyWidth, spec.hiddenSize], bias.qkv),
    value: table.linear(names.value, [keyWidth, spec.hiddenSize], bias.qkv),
    output: table.linear(names.output, [spec.hiddenSize, queryWidth], bias.output),
    ...normsAndSinks(table, names, attention),
  };
}

export function normsAndSinks(
  table: TensorTable,
  names: Pick<LayerNames, 'queryNorm' | 'keyNorm' | 'sinks'>,
  { qkNorm, sinks, headDim, numAttentionHeads }: GroupedQueryAttentionSpec,
): Pick<GroupedQueryWeights, 'queryNorm' | 'keyNorm' | 'sinks'> {
  return {
    ...(qkNorm && {
      queryNorm: table.weight(names.queryNorm, [headDim]),
      keyNorm: table.weight(names.keyNorm, [headDim]),
    }),
    ...(sinks && { sinks: table.weight(names.sinks, [numAttentionHeads]) }),
  };
}

function denseFeedForwardWeights({ table, spec, layer, names }: LayerContext): DenseWeights {
  if (layer.feedForward.kind !== 'dense')
    throw new Error('A family with experts must supply its own feed-forward table.');
  return denseWeights(table, spec.hiddenSize, layer.feedForward, names);
}

export function denseWeights(
  table: TensorTable,
  hiddenSize: number,
  { intermediateSize }: Pick<DenseSpec, 'intermediateSize'>,
  names: Pick<LayerNames, 'gate' | 'up' | 'down'>,
): DenseWeights {
  return {
    kind: 'dense',
    gate: table.weight(`${names.gate}.weight`, [intermediateSize, hiddenSize]),
    up: table.weight(`${names.up}.weight`, [intermediateSize, hiddenSize]),
    down: table.weight(`${names.down}.weight`, [hiddenSize, intermediateSize]),
  };
}

export function groupedQuery({ attention }: LayerSpec): GroupedQueryAttentionSpec {
  if (attention.kind !== 'grouped-query') throw new Error('A family with latent attention must supply its own table.');
  return attention;
}

// Locates the weights of experts: one tensor an expert (Hugging Face), or all experts in one tensor (GGUF).

type ExpertLinears = Pick<ExpertsWeights, 'gate' | 'up' | 'down'>;

export function expertsOf({ layer }: LayerContext): ExpertsSpec {
  if (layer.feedForward.kind !== 'experts') throw new Error('A dense layer has no experts.');
  return layer.feedForward;
}

export function routerOf({ table, spec, names }: LayerContext, { numExperts, bias }: ExpertsSpec): Linear {
  return table.linear(names.router, [numExperts, spec.hiddenSize], bias);
}

/** `experts.E.gate_proj.weight`, one `[intermediate, hidden]` an expert. */
export function expertsApart({ table, spec }: LayerContext, experts: ExpertsSpec, prefix: string): ExpertLinears {
  const { numExperts, intermediateSize } = experts;
  const parts = Array.from({ length: numExperts }, (_, expert) =>
    denseWeights(
      table,
      spec.hiddenSize,
      { intermediateSize },
      {
        gate: `${prefix}.${expert}.gate_proj`,
        up: `${prefix}.${expert}.up_proj`,
        down: `${prefix}.${expert}.down_proj`,
      },
    ),
  );
  return {
    gate: { weight: stackedWeight(parts.map(({ gate }) => gate)) },
    up: { weight: stackedWeight(parts.map(({ up }) => up)) },
    down: { weight: stackedWeight(parts.map(({ down }) => down)) },
  };
}

/** `blk.N.ffn_gate_exps` etc.: `[experts, intermediate, hidden]`; newer files may fuse gate and up. */
export function ggufExperts({ table, spec, index }: LayerContext, experts: ExpertsSpec): ExpertLinears {
  const { numExperts, intermediateSize, bias } = experts;
  const layer = `blk.${index}`;
  const stacked = (stem: string, rows: number, columns: number): Linear => ({
    weight: table.weight(`${stem}.weight`, [numExperts, rows, columns]),
    ...(bias && { bias: table.weight(`${stem}.bias`, [numExperts, rows]) }),
  });
  const down = stacked(`${layer}.ffn_down_exps`, spec.hiddenSize, intermediateSize);
  const fused = `${layer}.ffn_gate_up_exps`;
  if (table.has(`${fused}.weight`)) {
    // All gate rows of an expert, then all up rows (llama.cpp llama-graph.cpp, build_moe_ffn).
    const half = { period: 2 * intermediateSize, length: intermediateSize };
    const gate = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: 0 });
    const up = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: intermediateSize });
    return { gate, up, down };
  }
  return {
    gate: stacked(`${layer}.ffn_gate_exps`, intermediateSize, spec.hiddenSize),
    up: stacked(`${layer}.ffn_up_exps`, intermediateSize, spec.hiddenSize),
    down,
  };
}

function expertRows(
  table: TensorTable,
  stem: string,
  { numExperts, intermediateSize, bias }: ExpertsSpec,
  hiddenSize: number,
  selection: RowSelection,
): Linear {
  const both = table.weight(`${stem}.weight`, [numExperts, 2 * intermediateSize, hiddenSize]);
  return {
    weight: selectRows(both, selection, [numExperts, intermediateSize, hiddenSize]),
    ...(bias && {
      bias: selectedBias(table, `${stem}.bias`, {
        stored: [numExperts, 2 * intermediateSize],
        selection,
        shape: [numExperts, intermediateSize],
      }),
    }),
  };
}

/** The elements of a stored bias that belong to the selected rows, with the given shape. */
export function selectedBias(
  table: TensorTable,
  name: string,
  {
    stored,
    selection,
    shape,
  }: {
    readonly stored: readonly number[];
    readonly selection: RowSelection;
    readonly shape: readonly number[];
  },
): Weight {
  const count = (dimensions: readonly number[]) => dimensions.reduce((product, dimension) => product * dimension, 1);
  const elements = table.weight(name, stored, [count(stored), 1]);
  return joinRows(selectRows(elements, selection, [count(shape), 1]), shape);
}
