/** The forward pass, from token ids to hidden states. Read this file first. */

import type { DecoderSpec, LayerSpec } from '../../model/spec/spec.ts';
import type { Weight } from '../../model/weights/weights.ts';
import { readValues } from '../../model/weights/weightViews.ts';
import { groupedQueryAttention, latentAttention, type SequenceRows } from './attention.ts';
import type { ReferenceSequence } from './cache.ts';
import { expertNetworks, gatedNetwork, plainNetwork } from './feedForward.ts';
import { gatedDeltaNet } from './gatedDelta.ts';
import { addTo, layerNorm, rmsNorm } from './linear.ts';
import type { ReferenceLayer, ReferenceWeights } from './weights.ts';

export interface NewTokens {
  readonly sequence: ReferenceSequence;
  readonly tokens: readonly number[];
  /** Input of a stage. `[tokens, hidden]` */
  readonly hidden?: Float32Array;
}

/** Receives the embeddings (layer 0), then the hidden states after each layer. `[tokens, hidden]` */
export type Observer = (layer: number, hidden: Float32Array) => void;

/**
 * Returns hidden states after the final norm (for an inner stage: without it), all sequences concatenated. `[tokens,
 * hidden]` f32 Writes keys and values beyond each sequence's length; the caller increases the length on success.
 */
export async function forward(
  { spec, embedding, layers, finalNorm }: ReferenceWeights,
  batch: readonly NewTokens[],
  observe?: Observer,
): Promise<Float32Array> {
  const hidden = new Float32Array(batch.reduce((sum, { tokens }) => sum + tokens.length, 0) * spec.hiddenSize);
  let at = 0;
  for (const { tokens, hidden: given } of batch) {
    hidden.set(given ?? (await embed(spec, embedding, tokens)), at);
    at += tokens.length * spec.hiddenSize;
  }
  observe?.(0, hidden);
  const normed = (input: Float32Array, weight: Float32Array) =>
    (spec.norm === 'layer' ? layerNorm : rmsNorm)(input, weight, spec.normEpsilon);
  for (const [index, layer] of layers.entries()) {
    const layerSpec = spec.layers[index];
    if (!layerSpec) throw new Error(`Layer ${index} has weights but no spec.`);
    const attended = attend(layerSpec, layer, normed(hidden, layer.attentionNorm), {
      slices: rowsOfBatch(batch, index),
      normEpsilon: spec.normEpsilon,
    });
    addTo(hidden, layer.attentionPostNorm ? normed(attended, layer.attentionPostNorm) : attended);
    const fed = await feed(layerSpec, layer, normed(hidden, layer.feedForwardNorm));
    addTo(hidden, layer.feedForwardPostNorm ? normed(fed, layer.feedForwardPostNorm) : fed);
    observe?.(index + 1, hidden);
  }
  return spec.stage === 'inner' ? hidden : normed(hidden, finalNorm);
}

/** The embeddings of the tokens, read from the file. `[tokens, hidden]` f32 */
export async function embed(
  { hiddenSize, embeddingScale: scale }: Pick<DecoderSpec, 'hiddenSize' | 'embeddingScale'>,
  embedding: Weight,
  tokens: readonly number[],
): Promise<Float32Array> {
  const rows = new Float32Array(tokens.length * hiddenSize);
  const reads = tokens.map(async (token, i) => rows.set(await readValues(embedding, token, 1), i * hiddenSize));
  await Promise.all(reads);
  return scale === undefined ? rows : rows.map((value) => value * scale);
}

function attend(
  { attention: spec }: LayerSpec,
  { attention }: ReferenceLayer,
  input: Float32Array,
  { slices, normEpsilon }: { readonly slices: readonly SequenceRows[]; readonly normEpsilon: number },
): Float32Array {
  if (spec.kind === 'latent' && attention.kind === 'latent') {
    return latentAttention(spec, attention, input, slices);
  }
  if (spec.kind === 'grouped-query' && attention.kind === 'grouped-query') {
    return groupedQueryAttention(spec, attention, input, slices, normEpsilon);
  }
  if (spec.kind === 'gated-delta' && attention.kind === 'gated-delta') {
    return gatedDeltaNet(spec, attention, input, slices, normEpsilon);
  }
  throw new Error(`Can't combine ${attention.kind} weights with ${spec.kind} attention.`);
}

async function feed(
  { feedForward: spec }: LayerSpec,
  { feedForward }: ReferenceLayer,
  input: Float32Array,
): Promise<Float32Array> {
  if (spec.kind === 'dense' && feedForward.kind === 'dense') return gatedNetwork(feedForward, spec.activation, input);
  if (spec.kind === 'plain' && feedForward.kind === 'plain') return plainNetwork(feedForward, input);
  if (spec.kind === 'experts' && feedForward.kind === 'experts') return expertNetworks(spec, feedForward, input);
  throw new Error(`Can't combine ${feedForward.kind} weights with a ${spec.kind} feed-forward.`);
}

function rowsOfBatch(batch: readonly NewTokens[], layer: number): SequenceRows[] {
  let firstRow = 0;
  return batch.map(({ sequence, tokens }) => {
    const cache = sequence.layers[layer];
    if (!cache) throw new Error(`The sequence has no cache for layer ${layer}.`);
    const slice = { firstRow, count: tokens.length, firstPosition: sequence.length, cache };
    firstRow += tokens.length;
    return slice;
  });
}
