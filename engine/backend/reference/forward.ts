/** A decoder from token ids to hidden states: read this file first. */

import type { LayerSpec } from '../../model/spec/spec.ts';
import { readValues } from '../../model/weights/weightValues.ts';
import { groupedQueryAttention, type Span } from './attention.ts';
import type { ReferenceSequence } from './cache.ts';
import { expertNetworks, gatedNetwork } from './feedForward.ts';
import { latentAttention } from './latentAttention.ts';
import { addTo, rmsNorm } from './linear.ts';
import type { LoadedDecoder, LoadedLayer } from './weights.ts';

export interface NewTokens {
  readonly sequence: ReferenceSequence;
  readonly tokens: readonly number[];
}

/** Sees the embedding (layer 0), then the hidden states that leave each layer. `[tokens, hidden]` */
export type Observer = (layer: number, hidden: Float32Array) => void;

/**
 * Hidden states after the final norm, all sequences one after the other. `[tokens, hidden]`
 * Keys and values are written past each sequence's length; the caller moves the length when all went well.
 */
export async function forward(
  { spec, embedding, layers, finalNorm }: LoadedDecoder,
  batch: readonly NewTokens[],
  observe?: Observer,
): Promise<Float32Array> {
  const hidden = new Float32Array(batch.reduce((sum, { tokens }) => sum + tokens.length, 0) * spec.hiddenSize);
  for (const [i, token] of batch.flatMap(({ tokens }) => tokens).entries()) {
    hidden.set(await readValues(embedding, token, 1), i * spec.hiddenSize);
  }
  observe?.(0, hidden);
  for (const [index, layer] of layers.entries()) {
    const layerSpec = spec.layers[index];
    if (!layerSpec) throw new Error(`layer ${index} has weights and no spec`);
    const attended = attend(layerSpec, layer, rmsNorm(hidden, layer.attentionNorm, spec.normEpsilon), {
      spans: spansOf(batch, index),
      normEpsilon: spec.normEpsilon,
    });
    addTo(hidden, attended);
    addTo(hidden, await feed(layerSpec, layer, rmsNorm(hidden, layer.feedForwardNorm, spec.normEpsilon)));
    observe?.(index + 1, hidden);
  }
  return rmsNorm(hidden, finalNorm, spec.normEpsilon);
}

function attend(
  { attention: spec }: LayerSpec,
  { attention }: LoadedLayer,
  input: Float32Array,
  { spans, normEpsilon }: { readonly spans: readonly Span[]; readonly normEpsilon: number },
): Float32Array {
  if (spec.kind === 'latent' && attention.kind === 'latent') {
    return latentAttention(spec, attention, input, spans, normEpsilon);
  }
  if (spec.kind === 'grouped-query' && attention.kind === 'grouped-query') {
    return groupedQueryAttention(spec, attention, input, spans, normEpsilon);
  }
  throw new Error(`${attention.kind} weights for ${spec.kind} attention`);
}

async function feed(
  { feedForward: spec }: LayerSpec,
  { feedForward }: LoadedLayer,
  input: Float32Array,
): Promise<Float32Array> {
  if (spec.kind === 'dense' && feedForward.kind === 'dense') return gatedNetwork(feedForward, spec.activation, input);
  if (spec.kind === 'experts' && feedForward.kind === 'experts') return expertNetworks(spec, feedForward, input);
  throw new Error(`${feedForward.kind} weights for a ${spec.kind} feed-forward`);
}

function spansOf(batch: readonly NewTokens[], layer: number): Span[] {
  let firstRow = 0;
  return batch.map(({ sequence, tokens }) => {
    const cache = sequence.layers[layer];
    if (!cache) throw new Error(`the sequence has no cache for layer ${layer}`);
    const span = { firstRow, count: tokens.length, firstPosition: sequence.length, cache };
    firstRow += tokens.length;
    return span;
  });
}
