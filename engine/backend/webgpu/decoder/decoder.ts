/** A decoder on the GPU: takes a batch, writes its inputs, submits the recorded dispatches, reads back the logits asked for. */

import { BlockCache, type CachedSequence } from '../../../kv/blockCache.ts';
import type { BlockCopy } from '../../../kv/blocks.ts';
import type { CacheDemand, Sequence, SequenceSerializer } from '../../../kv/sequence.ts';
import { cacheBytesPerValue, type DecoderSpec, outputSize } from '../../../model/spec/spec.ts';
import {
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  type DeviceSampling,
  type DispatchCounts,
  type OwnSlice,
  type SamplingSlice,
  type SequenceSlice,
} from '../../backend.ts';
import { measureCopyBandwidth } from '../device/bandwidth.ts';
import type { Gpu } from '../device/gpu.ts';
import { samplesOnGpu } from '../kernels/sampleChunks.ts';
import { queriesPerTile } from './attention.ts';
import { blockStorage, encodeCopies } from './cache.ts';
import { type DeviceSampler, maxSteps, untilStop } from './deviceSampling.ts';
import type { Plan } from './dispatches.ts';
import { headPlan, layersPlan } from './forwardPlan.ts';
import type { DecoderParts, PlanRows } from './recorder.ts';
import { logitRowsAtOnce, maxTokensPerRun } from './scratch.ts';

/** Most rows that are computed as rows, not as a prompt's tiles. */
const vectorTokens = 16;
/** Rows that plans are made for: rows that are not there cost little, another set of pipelines much. */
export const rowBuckets = [1, 4, 8, vectorTokens] as const;
export const maxSequencesPerRun = 16;

type Slice = OwnSlice<CachedSequence>;

export interface LoadedParts extends DecoderParts {
  readonly gpu: Gpu;
  readonly sampler: DeviceSampler;
  readonly contextTokens: number;
  readonly notes: readonly string[];
  readonly weightBytes: number;
}

export class WebgpuDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'webgpu';
  readonly contextTokens: number;
  readonly maxTokensPerRun = maxTokensPerRun;
  readonly maxSequencesPerRun = maxSequencesPerRun;
  readonly notes: readonly string[];
  readonly deviceSampling: DeviceSampling = {
    maxSteps,
    supports: (rules) => samplesOnGpu(rules, this.spec.vocabularySize),
    sample: (slices, steps) => this.#sample(slices, steps),
  };
  readonly #parts: LoadedParts;
  readonly #gpu: Gpu;
  readonly #cache: BlockCache;
  readonly #plans = new Map<string, Promise<Plan>>();
  #disposed = false;

  constructor(parts: LoadedParts) {
    this.#parts = parts;
    this.#gpu = parts.gpu;
    this.spec = parts.spec;
    this.contextTokens = parts.contextTokens;
    this.notes = parts.notes;
    const { gpu, spec, cache, contextTokens } = parts;
    this.#cache = new BlockCache(
      blockStorage(gpu, spec, cache, (work) => this.#explained(work)),
      contextTokens,
    );
  }

  get serializer(): SequenceSerializer {
    return this.#cache;
  }

  /** Compiles what the first answer needs: a prompt, and one token after the other. */
  async warm(): Promise<void> {
    await Promise.all([this.#layersPlan('prompt'), this.#headPlan(1, 'chosen'), ...this.#rowPlans(1)]);
  }

  /** Compiles the rest, a few kernels at a time: whoever needs others meanwhile, or closes the decoder, waits for those alone. */
  async warmRest(): Promise<void> {
    const groups = [
      () => (this.spec.headless ? [] : [this.#drawPlan()]),
      ...rowBuckets.slice(1).map((rows) => () => [...this.#rowPlans(rows), this.#headPlan(rows, 'chosen')]),
    ];
    for (const plans of groups) {
      if (this.#disposed) return;
      // A run that needs what failed tries again, and is told.
      await Promise.allSettled(plans());
    }
  }

  createSequence(): Sequence {
    return this.#cache.create();
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    this.#gpu.throwIfFailed();
    const slices = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    const rows = slices.reduce((sum, { tokens }) => sum + tokens.length, 0);
    if (rows === 0) return slices.map(() => new Float32Array());
    const logits = await this.#explained(() => this.#compute(slices, rowsOfPlan(rows)));
    for (const { sequence, tokens } of slices) sequence.advance(tokens.length);
    return this.#split(slices, logits);
  }

  async #explained<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      const result = await work();
      this.#gpu.throwIfFailed();
      return result;
    } catch (error) {
      await this.#gpu.explain(error);
      throw error;
    }
  }

  async #sample(slices: readonly SamplingSlice[], steps: number): Promise<number[][]> {
    this.#gpu.throwIfFailed();
    const batch = slices.map(({ sequence, token }) => ({ sequence, tokens: [token], logits: 'last' as const }));
    const own = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    const fits = own.every(({ sequence }) => sequence.length + steps <= this.contextTokens);
    if (steps < 1 || steps > maxSteps || !fits) throw new Error(`${steps} steps do not fit`);
    const drawn = await this.#explained(() => this.#computeDraws(slices, own, steps));
    return own.map(({ sequence }, row) => {
      const tokens = untilStop(drawn[row] ?? [], slices[row]?.stopIds ?? new Set());
      sequence.advance(tokens.length);
      return tokens;
    });
  }

  /** Each step leaves the next one's rows behind, and is computed while the next is encoded; the host waits for the last alone. */
  async #computeDraws(slices: readonly SamplingSlice[], own: readonly Slice[], steps: number): Promise<number[][]> {
    const rows = bucket(own.length);
    const plans = await Promise.all([...this.#rowPlans(rows), this.#drawPlan()]);
    const { sampler } = this.#parts;
    const copies = this.#cache.prepare(own.map(({ sequence }) => ({ sequence, tokens: steps })));
    this.#parts.inputs.write(this.#gpu.device.queue, own, queriesPerTile(this.spec, rows), steps);
    sampler.write(this.#gpu.device.queue, slices);
    for (let step = 1; step <= steps; step++) {
      const encoder = this.#encoder(step === 1 ? copies : []);
      const pass = encoder.beginComputePass();
      for (const plan of plans) plan.encode(pass);
      pass.end();
      if (step === steps) sampler.encodeReadBack(encoder, own.length);
      this.#gpu.device.queue.submit([encoder.finish()]);
    }
    return sampler.read(own.length);
  }

  /** @returns the logits asked for, slice after slice. `[rows, vocabulary]` */
  async #compute(slices: readonly Slice[], rows: PlanRows): Promise<Float32Array> {
    const chosen = chosenRows(slices);
    // The rows of a decode step are its logits' rows: one pass does it all.
    const direct = rows !== 'prompt' && chosen.length > 0 && chosen.every((row, i) => row === i);
    const layers = await this.#layersPlan(rows);
    const head = direct ? await this.#headPlan(bucket(chosen.length), 'hidden') : undefined;
    const copies = this.#cache.prepare(slices.map(({ sequence, tokens }) => ({ sequence, tokens: tokens.length })));
    this.#parts.inputs.write(this.#gpu.device.queue, slices, queriesPerTile(this.spec, rows));
    const encoder = this.#encoder(copies);
    const pass = encoder.beginComputePass();
    layers.encode(pass);
    head?.encode(pass);
    pass.end();
    const { queue } = this.#gpu.device;
    if (direct) {
      const logits = new Float32Array(chosen.length * outputSize(this.spec));
      await this.#submitAndRead(encoder, logits);
      return logits;
    }
    queue.submit([encoder.finish()]);
    // A caller that cancels waits for one run, not for all that it has queued.
    if (chosen.length === 0) await queue.onSubmittedWorkDone();
    return this.#gatheredLogits(chosen);
  }

  async #gatheredLogits(chosen: readonly number[]): Promise<Float32Array> {
    const { scratch } = this.#parts;
    const { hiddenSize } = this.spec;
    const width = outputSize(this.spec);
    const logits = new Float32Array(chosen.length * width);
    for (let first = 0; first < chosen.length; first += logitRowsAtOnce) {
      const group = chosen.slice(first, first + logitRowsAtOnce);
      const plan = await this.#headPlan(bucket(group.length), 'chosen');
      const encoder = this.#encoder([]);
      const bytes = 4 * hiddenSize;
      for (const [i, row] of group.entries()) {
        encoder.copyBufferToBuffer(scratch.hidden, row * bytes, scratch.chosen, i * bytes, bytes);
      }
      const pass = encoder.beginComputePass();
      plan.encode(pass);
      pass.end();
      await this.#submitAndRead(encoder, logits.subarray(first * width, (first + group.length) * width));
    }
    return logits;
  }

  #encoder(copies: readonly (readonly BlockCopy[])[]): GPUCommandEncoder {
    const encoder = this.#gpu.device.createCommandEncoder();
    encodeCopies(encoder, this.spec, this.#parts.cache, copies);
    return encoder;
  }

  async #submitAndRead(encoder: GPUCommandEncoder, logits: Float32Array): Promise<void> {
    const { logits: computed, reading: staging } = this.#parts.scratch;
    encoder.copyBufferToBuffer(computed, 0, staging, 0, logits.byteLength);
    this.#gpu.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ, 0, logits.byteLength);
    logits.set(new Float32Array(staging.getMappedRange(0, logits.byteLength)));
    staging.unmap();
  }

  #split(slices: readonly Slice[], logits: Float32Array): Float32Array[] {
    const width = outputSize(this.spec);
    let at = 0;
    return slices.map((slice) => {
      const end = at + rowsAsked(slice) * width;
      const own = logits.slice(at, end);
      at = end;
      return own;
    });
  }

  #layersPlan(rows: PlanRows): Promise<Plan> {
    return this.#plan(`layers ${rows}`, () => layersPlan(this.#parts, rows));
  }

  #headPlan(rows: number, input: 'hidden' | 'chosen'): Promise<Plan> {
    return this.#plan(`head ${rows} ${input}`, () => headPlan(this.#parts, rows, this.#parts.scratch[input]));
  }

  /** Of one token each of up to so many sequences, to their logits. */
  #rowPlans(rows: number): [layers: Promise<Plan>, head: Promise<Plan>] {
    return [this.#layersPlan(rows), this.#headPlan(rows, 'hidden')];
  }

  #drawPlan(): Promise<Plan> {
    const { sampler, inputs, scratch } = this.#parts;
    const operands = { logits: scratch.logits, rowBuffer: inputs.rowBuffer, rows: () => inputs.tokens };
    return this.#plan('draw', () => sampler.plan(this.#gpu, operands));
  }

  /** As with kernels, what fails is not kept. */
  #plan(key: string, make: () => Promise<Plan>): Promise<Plan> {
    const known = this.#plans.get(key);
    if (known) return known;
    const made = make();
    this.#plans.set(key, made);
    made.catch(() => this.#plans.delete(key));
    return made;
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    return this.#cache.hasRoom(demands);
  }

  async dispatches(): Promise<DispatchCounts> {
    const [layers, head] = await Promise.all(this.#rowPlans(1));
    return { layers: layers.layerDispatches, token: layers.dispatches + head.dispatches };
  }

  copyBandwidth(): Promise<number | undefined> {
    return this.#explained(() => measureCopyBandwidth(this.#gpu));
  }

  memory(): DecoderMemory {
    const { weightBytes, cache } = this.#parts;
    return {
      weightBytes,
      cacheBytes: this.#cache.usedBytes,
      cacheCapacityBytes: cache.bytes,
      cacheBytesPerValue: cacheBytesPerValue(this.spec, cache.precision),
    };
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#cache.clear();
    this.#gpu.dispose();
  }
}

const rowsAsked = ({ tokens, logits }: Slice): number =>
  logits === 'all' ? tokens.length : logits === 'last' ? Math.min(1, tokens.length) : 0;

/** Rows of the batch whose logits are asked for. */
function chosenRows(slices: readonly Slice[]): number[] {
  const chosen: number[] = [];
  let end = 0;
  for (const slice of slices) {
    end += slice.tokens.length;
    for (let row = end - rowsAsked(slice); row < end; row++) chosen.push(row);
  }
  return chosen;
}

const bucket = (rows: number): number => rowBuckets.find((most) => rows <= most) ?? vectorTokens;
const rowsOfPlan = (rows: number): PlanRows => (rows <= vectorTokens ? bucket(rows) : 'prompt');
