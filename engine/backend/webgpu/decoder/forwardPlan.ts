/**
 * The order of a decoder's dispatches: read this file first. A pass of up to 16 rows multiplies rows by matrices and
 * splits long contexts over workgroups; a longer one, a prompt, is computed in tiles. Same mathematics as
 * backend/reference/forward.ts.
 */
import type { LayerSpec } from '../../../model/spec/spec.ts';
import type { Gpu } from '../device/gpu.ts';
import { embedKernel } from '../kernels/embed.ts';
import { normKernel } from '../kernels/norms.ts';
import { recordGatedDelta, recordGroupedQuery, recordLatent } from './attention.ts';
import type { LayerCache } from './cache.ts';
import type { DeviceSampler } from './deviceSampling.ts';
import { recordDense, recordExperts, recordPlain } from './feedForward.ts';
import type { GpuLayer } from './gpuWeights.ts';
import type { BlockOutput, Plan } from './recorder.ts';
import { type DecoderParts, type PlanRows, Recorder } from './recorder.ts';

/** From token ids (for a stage: the residual stream) to the residual stream after the last layer. */
export async function layersPlan(parts: DecoderParts, rows: PlanRows, computesExperts?: boolean): Promise<Plan> {
  const recorder = new Recorder(parts, rows, computesExperts);
  if (!parts.spec.stage) recordEmbedding(recorder);
  for (const [index, spec] of parts.spec.layers.entries()) {
    const weights = parts.weights.layers[index];
    const cache = parts.cache.layers[index];
    if (!weights || !cache) throw new Error(`layer ${index} has no weights or no cache`);
    recorder.beginLayer();
    recorder.addOutput(recordAttention(recorder, spec, weights, cache), weights.attentionPostNorm);
    const fed = recordFeedForward(recorder, spec, weights);
    if (fed) recorder.addOutput(fed, weights.feedForwardPostNorm);
  }
  return recorder.finish();
}

/** Final norm and head, if there is one, of `rows` rows of `input`, `[rows, hidden]` to `[rows, vocabulary or hidden]`. */
export async function headPlan(parts: DecoderParts, rows: number, input: GPUBuffer): Promise<Plan> {
  const recorder = new Recorder(parts, rows);
  const { gpu, spec, weights, scratch } = parts;
  if (spec.headless) {
    recorder.add(
      normKernel(spec, spec.hiddenSize, gpu.capabilities),
      [input, weights.finalNorm, scratch.logits],
      [rows],
    );
    return recorder.finish();
  }
  const { x, gain } = recorder.normalised(input, weights.finalNorm, spec.hiddenSize, scratch.normed, {
    groups: [rows],
  });
  recorder.product({ weight: weights.head }, x, scratch.logits, gain);
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

function recordAttention(recorder: Recorder, spec: LayerSpec, layer: GpuLayer, cache: LayerCache): BlockOutput {
  const { attention } = spec;
  const { attention: weights, attentionNorm: norm } = layer;
  if (attention.kind === 'latent' && weights.kind === 'latent') {
    return recordLatent(recorder, attention, weights, norm, cache);
  }
  if (attention.kind === 'grouped-query' && weights.kind === 'grouped-query') {
    return recordGroupedQuery(recorder, attention, weights, norm, cache);
  }
  if (attention.kind === 'gated-delta' && weights.kind === 'gated-delta') {
    return recordGatedDelta(recorder, attention, weights, norm, cache);
  }
  throw new Error(`${weights.kind} weights for ${attention.kind} attention`);
}

/** Undefined for experts, which add their own outputs. */
function recordFeedForward(recorder: Recorder, spec: LayerSpec, layer: GpuLayer): BlockOutput | undefined {
  const { feedForward } = spec;
  const { feedForward: weights, feedForwardNorm: norm } = layer;
  if (feedForward.kind === 'dense' && weights.kind === 'dense') {
    return recordDense(recorder, feedForward, weights, norm);
  }
  if (feedForward.kind === 'plain' && weights.kind === 'plain') return recordPlain(recorder, weights, norm);
  if (feedForward.kind === 'experts' && weights.kind === 'experts') {
    recordExperts(recorder, feedForward, weights, norm);
    return undefined;
  }
  throw new Error(`${weights.kind} weights for a ${feedForward.kind} feed-forward`);
}

// Plans are created once for each number of rows.

/** Most rows that are computed as rows instead of a prompt's tiles. */
const vectorTokens = 16;
/** Numbers of rows with a plan. Unused rows cost little; another set of pipelines costs much. */
export const rowBuckets = [1, 4, 8, vectorTokens] as const;
export const bucket = (rows: number): number => rowBuckets.find((most) => rows <= most) ?? vectorTokens;
export const rowsOfPlan = (rows: number): PlanRows => (rows <= vectorTokens ? bucket(rows) : 'prompt');

/** The plans of a decoder, each created on first use. */
export class Plans {
  readonly #parts: DecoderParts & { readonly gpu: Gpu; readonly sampler: DeviceSampler };
  readonly #made = new Map<string, Promise<Plan>>();

  constructor(parts: DecoderParts & { readonly gpu: Gpu; readonly sampler: DeviceSampler }) {
    this.#parts = parts;
  }

  /** @param computesExperts whether the processor computes experts outside the card; default: for few rows */
  layers(rows: PlanRows, computesExperts = rows !== 'prompt'): Promise<Plan> {
    return this.#plan(`layers ${rows} ${computesExperts}`, () => layersPlan(this.#parts, rows, computesExperts));
  }

  head(rows: number, input: 'hidden' | 'chosen'): Promise<Plan> {
    return this.#plan(`head ${rows} ${input}`, () => headPlan(this.#parts, rows, this.#parts.scratch[input]));
  }

  /** Empty for an inner stage. */
  heads(rows: number, input: 'hidden' | 'chosen'): Promise<Plan>[] {
    return this.#parts.spec.stage === 'inner' ? [] : [this.head(rows, input)];
  }

  /** Plans for one token each of up to `rows` sequences, up to their logits. */
  ofRows(rows: number): [layers: Promise<Plan>, ...head: Promise<Plan>[]] {
    return [this.layers(rows), ...this.heads(rows, 'hidden')];
  }

  draw(): Promise<Plan> {
    const { gpu, sampler, inputs, scratch } = this.#parts;
    const operands = { logits: scratch.logits, rowBuffer: inputs.rowBuffer, rows: () => inputs.tokens };
    return this.#plan('draw', () => sampler.plan(gpu, operands));
  }

  /** Discards all plans; they are created again on use. */
  clear(): void {
    this.#made.clear();
  }

  /** A failed plan is not cached, as with kernels. */
  #plan(key: string, make: () => Promise<Plan>): Promise<Plan> {
    const known = this.#made.get(key);
    if (known) return known;
    const made = make();
    this.#made.set(key, made);
    made.catch(() => this.#made.delete(key));
    return made;
  }
}
