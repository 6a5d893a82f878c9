/**
 * Builds a decoder as an ONNX graph. Inputs: token ids (hidden states for a stage) and the KV cache of one sequence.
 * Outputs: logits (or hidden states) of the requested rows and the new cache rows. One pass takes any number of tokens
 * of one sequence.
 */

import type { TensorType } from '../../formats/tensor.ts';
import { blockLayout } from '../../formats/tensor.ts';
import { type DecoderSpec, type LayerSpec, outputSize } from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights, LayerWeights, Weight } from '../../model/weights/weights.ts';
import type { CacheType } from '../processor/messages.ts';
import { AttentionInputs, groupedQueryAttention, latentAttention } from './attention.ts';
import { feedForward } from './feedForward.ts';
import { gatedDeltaNet } from './gatedDelta.ts';
import { GraphBuilder, type Value } from './graphBuilder.ts';
import type { GraphInputs } from './graphRun.ts';
import { addAndNorm, type GraphContext, linear, lookUp, type Residual, streamNorm } from './linear.ts';
import { gridOf, WeightsLayout } from './weightsFile.ts';

export interface DecoderGraph {
  /** An ONNX ModelProto. */
  readonly model: Uint8Array;
  readonly layout: WeightsLayout;
  readonly inputs: GraphInputs;
  /** Sentences for the model card on weights that aren't computed in their stored precision. */
  readonly notes: readonly string[];
}

export interface GraphOptions {
  readonly weightsFile: string;
  readonly accuracyLevel: 0 | 4;
  readonly cacheType: CacheType;
}

/** Reads no weights. Plans their layout; `layout.write` writes them. */
export function buildDecoderGraph(spec: DecoderSpec, weights: DecoderWeights, options: GraphOptions): DecoderGraph {
  const graph = new GraphBuilder(options.weightsFile);
  const layout = new WeightsLayout();
  const { accuracyLevel, cacheType } = options;
  const context = {
    graph,
    layout,
    accuracyLevel,
    norm: spec.norm,
    normEpsilon: spec.normEpsilon,
    blockMeans: new Map(),
  };
  const inputs = new AttentionInputs(graph, cacheType);

  let residual: Residual = {
    stream: spec.stage
      ? graph.input('hidden', 'float32', [1, 'tokens', spec.hiddenSize])
      : embedded(context, spec, weights.embedding),
  };
  for (const [index, layerSpec] of spec.layers.entries()) {
    const layerWeights = weights.layers[index];
    if (!layerWeights) throw new Error(`Layer ${index} has a spec but no weights.`);
    residual = layer(context, inputs, layerSpec, layerWeights, residual);
  }
  graph.output(output(context, spec, weights, residual), 'logits', 'float32', [1, 'rows', outputSize(spec)]);
  const newRows = inputs.allNewRows();
  if (newRows !== undefined) graph.output(newRows, 'cached', cacheType, ['values', 'tokens']);

  const { rotations, windowGroups, layers, states } = inputs;
  const heads = spec.layers.map(({ attention }) =>
    attention.kind === 'gated-delta' ? 1 : attention.numAttentionHeads,
  );
  return {
    model: graph.encode(),
    layout,
    inputs: {
      ...(spec.stage && { hiddenSize: spec.hiddenSize }),
      numAttentionHeads: Math.max(...heads),
      rotations,
      windowGroups,
      layers,
      states,
    },
    notes: notesOn(weights, accuracyLevel > 0),
  };
}

/** `[1, tokens, hidden]` */
function embedded(context: GraphContext, { embeddingScale: scale }: DecoderSpec, embedding: Weight): Value {
  const { graph } = context;
  const rows = lookUp(context, embedding, graph.input('ids', 'int64', [1, 'tokens']));
  return scale === undefined ? rows : graph.op('Mul', [rows, graph.float32(scale)]);
}

/**
 * Computes only the requested rows, because the head is the largest matmul of a small model. `[1, rows, vocabulary or
 * hidden]`
 */
function output(context: GraphContext, spec: DecoderSpec, weights: DecoderWeights, residual: Residual): Value {
  const { graph } = context;
  const isInner = spec.stage === 'inner';
  const last = isInner ? summed(context, residual) : addAndNorm(context, residual, weights.finalNorm).normed;
  const wanted = graph.op('Gather', [last, graph.input('rows', 'int64', ['rows'])], { axis: 1 });
  return isInner || spec.headless ? wanted : linear(context, wanted, { weight: weights.head });
}

const summed = ({ graph }: GraphContext, { stream, addition }: Residual): Value =>
  addition === undefined ? stream : graph.op('Add', [stream, addition]);

function layer(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: LayerSpec,
  weights: LayerWeights,
  residual: Residual,
): Residual {
  const before = addAndNorm(context, residual, weights.attentionNorm);
  const attended = attention(context, inputs, spec, weights, before.normed);
  const addition = postNormed(context, attended, weights.attentionPostNorm);
  const between = addAndNorm(context, { stream: before.stream, addition }, weights.feedForwardNorm);
  const fed = feedForward(context, spec.feedForward, weights.feedForward, between.normed);
  return { stream: between.stream, addition: postNormed(context, fed, weights.feedForwardPostNorm) };
}

const postNormed = (context: GraphContext, output: Value, norm: Weight | undefined): Value =>
  norm ? streamNorm(context, output, norm) : output;

function attention(
  context: GraphContext,
  inputs: AttentionInputs,
  { attention: spec }: LayerSpec,
  { attention: weights }: LayerWeights,
  input: Value,
): Value {
  if (spec.kind === 'grouped-query' && weights.kind === 'grouped-query') {
    return groupedQueryAttention(context, inputs, spec, weights, input);
  }
  if (spec.kind === 'latent' && weights.kind === 'latent') {
    return latentAttention(context, inputs, spec, weights, input);
  }
  if (spec.kind === 'gated-delta' && weights.kind === 'gated-delta') {
    return gatedDeltaNet(context, inputs, spec, weights, input);
  }
  throw new Error(`Can't combine ${weights.kind} weights with ${spec.kind} attention.`);
}

// The model card's notes on how this backend stores and multiplies weights.

export function notesOn(weights: DecoderWeights, roundActivations: boolean): string[] {
  const matrices = listWeights(weights).flatMap(({ role, weight }) => (role === 'norm' ? [] : [weight]));
  const onGrids = matrices.filter((weight) => gridOf(weight) !== undefined);
  const asFloats = matrices.filter((weight) => gridOf(weight) === undefined && weight.type !== 'F32');
  const widened = onGrids.filter((weight) => (gridOf(weight)?.bits ?? 0) > storedBits(weight.type));
  const notes: string[] = [];
  if (roundActivations && onGrids.length > 0) {
    notes.push(
      `Matmuls with ${namesOf(onGrids)} weights quantise activations to int8 in blocks of up to 32, as llama.cpp does. The weights keep their stored values.`,
    );
  }
  if (widened.length > 0) {
    notes.push(`${namesOf(widened)} weights are stored in 8 bits each: the same values, more memory.`);
  }
  if (asFloats.length > 0) {
    notes.push(`${namesOf(asFloats)} weights are stored as 32-bit floats: the same values, more memory.`);
  }
  return notes;
}

/** Whole bits of one value, without scales. */
function storedBits(type: TensorType): number {
  const { bytes, elements } = blockLayout(type);
  return Math.floor((8 * bytes) / elements);
}

function namesOf(weights: readonly { readonly type: TensorType }[]): string {
  return [...new Set(weights.map(({ type }) => type))].sort().join(', ');
}
