/**
 * The order of a decoder's dispatches: read this file first. A run of up to 16 rows multiplies rows by matrices and splits
 * long contexts over workgroups; a longer one, a prompt, is computed in tiles. Same mathematics as backend/reference/forward.ts.
 */
import type { LayerSpec } from '../../../model/spec/spec.ts';
import { embedKernel } from '../kernels/embed.ts';
import { rmsNormKernel } from '../kernels/rmsNorm.ts';
import { recordGroupedQuery, recordLatent } from './attention.ts';
import type { LayerCache } from './cache.ts';
import type { Plan } from './dispatches.ts';
import { recordDense, recordExperts } from './feedForward.ts';
import type { GpuLayer } from './gpuWeights.ts';
import { type DecoderParts, type PlanRows, Recorder } from './recorder.ts';

/** From token ids to the residual stream that leaves the last layer. */
export async function layersPlan(parts: DecoderParts, rows: PlanRows): Promise<Plan> {
  const recorder = new Recorder(parts, rows);
  recordEmbedding(recorder);
  for (const [index, spec] of parts.spec.layers.entries()) {
    const weights = parts.weights.layers[index];
    const cache = parts.cache.layers[index];
    if (!weights || !cache) throw new Error(`layer ${index} has no weights or no cache`);
    recorder.beginLayer();
    recordAttention(recorder, spec, weights, cache);
    recordFeedForward(recorder, spec, weights);
  }
  return recorder.finish();
}

/** Final norm and head, if there is one, of `rows` rows of `input`, `[rows, hidden]` to `[rows, vocabulary or hidden]`. */
export async function headPlan(parts: DecoderParts, rows: number, input: GPUBuffer): Promise<Plan> {
  const recorder = new Recorder(parts, rows);
  const { gpu, spec, weights, scratch } = parts;
  if (spec.headless) {
    const kernel = rmsNormKernel(spec.hiddenSize, spec.normEpsilon, gpu.capabilities);
    recorder.add(kernel, [input, weights.finalNorm, scratch.logits], [rows]);
    return recorder.finish();
  }
  recorder.product({ weight: weights.head }, input, scratch.logits, { gain: weights.finalNorm });
  return recorder.finish();
}

function recordEmbedding(recorder: Recorder): void {
  const { spec, weights, inputs, scratch } = recorder.parts;
  const { pieces, blockScale } = weights.embedding;
  for (const { layout, firstRow, buffer } of pieces) {
    const kernel = embedKernel(layout, { firstRow, blockScale, scale: spec.embeddingScale });
    recorder.add(kernel, [buffer, inputs.rowBuffer, scratch.hidden], () => [inputs.tokens]);
  }
}

function recordAttention(recorder: Recorder, spec: LayerSpec, layer: GpuLayer, cache: LayerCache): void {
  const { attention } = spec;
  const { attention: weights, attentionNorm } = layer;
  if (attention.kind === 'latent' && weights.kind === 'latent') {
    recordLatent(recorder, attention, weights, attentionNorm, cache);
  } else if (attention.kind === 'grouped-query' && weights.kind === 'grouped-query') {
    recordGroupedQuery(recorder, attention, weights, { before: attentionNorm, after: layer.attentionPostNorm }, cache);
  } else {
    throw new Error(`${weights.kind} weights for ${attention.kind} attention`);
  }
}

function recordFeedForward(recorder: Recorder, spec: LayerSpec, layer: GpuLayer): void {
  const { feedForward } = spec;
  const { feedForward: weights, feedForwardNorm } = layer;
  if (feedForward.kind === 'dense' && weights.kind === 'dense') {
    recordDense(recorder, feedForward, weights, feedForwardNorm, layer.feedForwardPostNorm);
  } else if (feedForward.kind === 'experts' && weights.kind === 'experts') {
    recordExperts(recorder, feedForward, weights, feedForwardNorm);
  } else {
    throw new Error(`${weights.kind} weights for a ${feedForward.kind} feed-forward`);
  }
}
