/**
 * Builds a decoder as an ONNX graph. Inputs: token ids and the KV cache of one sequence. Outputs: logits (or hidden
 * states) of the requested rows and the new cache rows. One forward pass takes any number of tokens of one sequence.
 */

import { blockLayout } from '../../formats/blocks.ts';
import type { TensorType } from '../../formats/tensor.ts';
import { type DecoderSpec, type LayerSpec, outputSize } from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights, LayerWeights, Weight } from '../../model/weights/weights.ts';
import { AttentionInputs, groupedQueryAttention, latentAttention } from './attention.ts';
import { feedForward } from './feedForward.ts';
import { GraphBuilder, type Value } from './graphBuilder.ts';
import { addAndNorm, type GraphContext, linear, lookUp, type Residual, rmsNorm } from './linear.ts';
import type { CacheType, GraphInputs } from './messages.ts';
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

/** Reads no weights: plans where they go; `layout.write` writes them. */
export function buildDecoderGraph(spec: DecoderSpec, weights: DecoderWeights, options: GraphOptions): DecoderGraph {
  const graph = new GraphBuilder(options.weightsFile);
  const layout = new WeightsLayout();
  const { accuracyLevel, cacheType } = options;
  const context = { graph, layout, accuracyLevel, normEpsilon: spec.normEpsilon, blockMeans: new Map() };
  const inputs = new AttentionInputs(graph, cacheType);

  const ids = graph.input('ids', 'int64', [1, 'tokens']);
  const embedded = lookUp(context, weights.embedding, ids);
  const { embeddingScale: scale } = spec;
  let residual: Residual = {
    stream: scale === undefined ? embedded : graph.op('Mul', [embedded, graph.float32(scale)]),
  };
  for (const [index, layerSpec] of spec.layers.entries()) {
    const layerWeights = weights.layers[index];
    if (!layerWeights) throw new Error(`Layer ${index} has a spec but no weights.`);
    residual = layer(context, inputs, layerSpec, layerWeights, residual);
  }
  const { normed } = addAndNorm(context, residual, weights.finalNorm);
  // The head is the largest matmul of a small model: only requested rows go through it.
  const wanted = graph.op('Gather', [normed, graph.input('rows', 'int64', ['rows'])], { axis: 1 });
  const output = spec.headless ? wanted : linear(context, wanted, { weight: weights.head });
  graph.output(output, 'logits', 'float32', [1, 'rows', outputSize(spec)]);
  graph.output(inputs.allNewRows(), 'cached', cacheType, ['values', 'tokens']);

  const { rotations, windowGroups, layers } = inputs;
  const numAttentionHeads = Math.max(...spec.layers.map(({ attention }) => attention.numAttentionHeads));
  return {
    model: graph.encode(),
    layout,
    inputs: { numAttentionHeads, rotations, windowGroups, layers },
    notes: notesOn(weights, accuracyLevel > 0),
  };
}

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
  norm ? rmsNorm(context, output, norm) : output;

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
