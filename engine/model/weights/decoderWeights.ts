/** The parts of a name table that families share: roles, tensor names and shapes. */

import type { DecoderSpec, DenseSpec, GroupedQueryAttentionSpec, LayerSpec } from '../spec/spec.ts';
import type { DecoderNames, LayerNames } from './tensorNames.ts';
import type { TensorTable } from './tensorTable.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  GroupedQueryWeights,
} from './weights.ts';

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
