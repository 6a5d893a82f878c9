/**
 * A decoder on the GPU: takes a batch, writes its inputs, submits the recorded dispatches, and reads back the requested
 * logits.
 */

import type { CacheDemand, Sequence, SequenceSerializer } from '../../../kv/blockCache.ts';
import { BlockCache, type CachedSequence } from '../../../kv/blockCache.ts';
import type { BlockCopy } from '../../../kv/blocks.ts';
import { cacheBytesPerValue, type DecoderSpec, isRecurrent, outputSize } from '../../../model/spec/spec.ts';
import {
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  type DeviceSampling,
  type DispatchCounts,
  demandsOf,
  joined,
  type OwnSlice,
  passesOf,
  type SamplingSlice,
  type SequenceSlice,
  type SubmittedPass,
  type Tuner,
} from '../../backend.ts';
import type { Tuning } from '../device/adapter.ts';
import { measureCopyBandwidth } from '../device/bandwidth.ts';
import type { Gpu, KernelDevice } from '../device/gpu.ts';
import { samplesOnGpu } from '../kernels/sampleChunks.ts';
import { sharedTiles } from './attention.ts';
import { blockStorage, encodeCopies } from './cache.ts';
import { type DeviceSampler, maxSteps, untilStop } from './deviceSampling.ts';
import { DispatchLimit } from './dispatchLimit.ts';
import { bucket, headPlan, layersPlan, Plans, rowBuckets, rowsOfPlan } from './forwardPlan.ts';
import type { OutsideExperts } from './outsideExperts.ts';
import type { DecoderParts, Plan, PlanRows } from './recorder.ts';
import { logitRowsAtOnce, tokensPerRun } from './scratch.ts';

export const maxSequencesPerRun = 16;
/** Number of cached tokens before a timed token. */
const timedTokens = 4096;

type Slice = OwnSlice<CachedSequence>;

/** Tokens that the device samples while the host does something else. */
interface Ahead {
  readonly steps: number;
  readonly tokens: Promise<number[][]>;
  /** Length and last token of each sequence at the beginning. */
  readonly lengths: readonly number[];
  readonly firsts: readonly (number | undefined)[];
  readonly slices: readonly SamplingSlice[];
}

export interface LoadedParts extends DecoderParts {
  readonly gpu: Gpu;
  readonly sampler: DeviceSampler;
  readonly contextTokens: number;
  readonly notes: readonly string[];
  readonly weightBytes: number;
  readonly outside?: OutsideExperts;
  readonly tuner?: (decoder: WebgpuDecoder) => Tuner;
}

export class WebgpuDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend = 'webgpu';
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly maxSequencesPerRun = maxSequencesPerRun;
  readonly notes: readonly string[];
  readonly deviceSampling: DeviceSampling;
  readonly tuner?: Tuner;
  readonly #parts: LoadedParts;
  readonly #gpu: Gpu;
  readonly #cache: BlockCache;
  readonly #plans: Plans;
  #ahead: Ahead | undefined;
  readonly #limit: DispatchLimit;
  #lastEndMs = Number.NEGATIVE_INFINITY;
  #disposed = false;

  constructor(parts: LoadedParts) {
    this.#parts = parts;
    this.#gpu = parts.gpu;
    this.#plans = new Plans(parts);
    this.#limit = new DispatchLimit(parts.spec, parts.gpu.capabilities.operationsPerSecond);
    this.spec = parts.spec;
    // Recurrent states can't be rolled back to before dropped tokens.
    const isPlain = !isRecurrent(parts.spec);
    this.deviceSampling = {
      maxSteps: isPlain ? maxSteps : 1,
      samplesAhead: isPlain,
      supports: (rules) => samplesOnGpu(rules, this.spec.vocabularySize),
      sample: (slices, steps, ahead) => this.#sample(slices, steps, ahead),
    };
    this.contextTokens = parts.contextTokens;
    this.maxTokensPerRun = tokensPerRun(parts.spec, parts.gpu.capabilities);
    this.notes = parts.notes;
    const { gpu, spec, cache, contextTokens } = parts;
    this.#cache = new BlockCache(
      blockStorage(gpu, spec, cache, (work) => this.#explained(work)),
      contextTokens,
    );
    if (parts.tuner) this.tuner = parts.tuner(this);
  }

  get serializer(): SequenceSerializer {
    return this.#cache;
  }

  /** Compiles the kernels of the first answer: for a prompt, and for one token at a time. */
  async warm(): Promise<void> {
    await Promise.all([this.#plans.layers('prompt'), ...this.#plans.heads(1, 'chosen'), ...this.#plans.ofRows(1)]);
  }

  /**
   * Compiles the remaining kernels, a few at a time, so that a pass that needs others, or closing the decoder, waits
   * only for those few.
   */
  async warmRest(): Promise<void> {
    const groups = [
      () => (this.spec.headless || this.spec.stage ? [] : [this.#plans.draw()]),
      ...rowBuckets.slice(1).map((rows) => () => [...this.#plans.ofRows(rows), ...this.#plans.heads(rows, 'chosen')]),
    ];
    for (const plans of groups) {
      if (this.#disposed) return;
      // A pass that needs a failed kernel compiles it again and reports the error.
      await Promise.allSettled(plans());
    }
  }

  createSequence(): Sequence {
    return this.#cache.create();
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = this.#checked(batch);
    const startMs = performance.now();
    return this.#explained(async () => {
      const logits = await this.#submitParts(slices);
      // A cancelled caller waits for one pass, not for all that it has queued.
      if (logits.every(({ length }) => length === 0)) await this.#gpu.device.queue.onSubmittedWorkDone();
      this.#measured(slices, startMs);
      return logits;
    });
  }

  async submit(batch: readonly SequenceSlice[]): Promise<SubmittedPass> {
    const slices = this.#checked(batch);
    if (slices.some(({ logits }) => logits !== 'none')) throw new Error('Logits are asked of `run`.');
    const startMs = performance.now();
    await this.#explained(() => this.#submitParts(slices));
    const computed = async (): Promise<void> => {
      await this.#gpu.device.queue.onSubmittedWorkDone();
      this.#measured(slices, startMs);
    };
    return { done: this.#explained(computed) };
  }

  /** Records the speed of a pass, which sets the size limit of later ones. */
  #measured(slices: readonly Slice[], submittedMs: number): void {
    const endMs = performance.now();
    const startMs = Math.max(submittedMs, this.#lastEndMs);
    this.#lastEndMs = endMs;
    this.#limit.measured(
      rowCount(slices),
      Math.max(0, ...slices.map(({ sequence }) => sequence.length)),
      endMs - startMs,
    );
  }

  /**
   * Submits the batch, in parts if a dispatch would take too long. @returns the requested logits once they are read
   * back.
   */
  async #submitParts(slices: readonly Slice[]): Promise<Float32Array[]> {
    const end = Math.max(0, ...slices.map(({ sequence, tokens }) => sequence.length + tokens.length));
    const logits: Float32Array[] = slices.map(() => new Float32Array());
    for (const part of passesOf(slices, this.#limit.tokensUntil(end))) {
      const own = part.map(({ slice }) => slice);
      const rows = rowCount(own);
      if (rows === 0) continue;
      const computed = this.#split(own, await this.#compute(own, rowsOfPlan(rows)));
      for (const [i, { index, slice }] of part.entries()) {
        slice.sequence.advance(slice.tokens.length);
        logits[index] = joined(logits[index], computed[i]);
      }
    }
    return logits;
  }

  #checked(batch: readonly SequenceSlice[]): Slice[] {
    this.#gpu.throwIfFailed();
    const slices = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    this.#cache.requireRoom(demandsOf(slices));
    // This pass overwrites the rows from which sampling ahead would continue.
    this.#dropAhead();
    return slices;
  }

  #dropAhead(): void {
    // Releases the pages of its tokens. A later owner writes to them only after the tokens are computed.
    for (const { sequence } of this.#ahead?.slices ?? []) this.#cache.own(sequence)?.advance(0);
    this.#ahead = undefined;
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

  async #sample(slices: readonly SamplingSlice[], steps: number, ahead = 0): Promise<number[][]> {
    this.#gpu.throwIfFailed();
    if (this.#parts.outside) throw new Error('The host has to do its part of the experts in every step.');
    const batch = slices.map(({ sequence, token }) => ({ sequence, tokens: [token], logits: 'last' as const }));
    const own = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    const fits = own.every(({ sequence }) => sequence.length + steps + ahead <= this.contextTokens);
    if (steps < 1 || Math.max(steps, ahead) > maxSteps || !fits)
      throw new Error(`${steps} + ${ahead} steps do not fit`);
    const known = this.#ahead && continues(this.#ahead, slices, steps) ? this.#ahead : undefined;
    if (!known) this.#dropAhead();
    this.#ahead = undefined;
    this.#cache.requireRoom(own.map(({ sequence }) => ({ sequence, tokens: steps + ahead })));
    return this.#explained(async () => {
      const current = known ?? (await this.#submitDraws(slices, own, { done: 0, steps }));
      // Submit the steps ahead before waiting for the last tokens.
      const next = ahead > 0 ? await this.#submitDraws(slices, own, { done: steps, steps: ahead }) : undefined;
      const drawn = await current.tokens;
      const kept = own.map((_, row) => untilStop(drawn[row] ?? [], slices[row]?.stopIds ?? new Set()));
      const isWhole = kept.every(({ length }) => length === steps);
      for (const [row, { sequence }] of own.entries()) {
        sequence.advance(kept[row]?.length ?? 0, next && isWhole ? ahead : 0);
      }
      if (next && isWhole) {
        const lengths = own.map(({ sequence }) => sequence.length);
        this.#ahead = { ...next, slices, lengths, firsts: kept.map((tokens) => tokens.at(-1)) };
      }
      return kept;
    });
  }

  /**
   * Each step writes the rows of the next one, and is computed while the next one is encoded.
   * @param done submitted steps whose tokens the host does not know yet.
   */
  async #submitDraws(
    slices: readonly SamplingSlice[],
    own: readonly Slice[],
    { done, steps }: { readonly done: number; readonly steps: number },
  ): Promise<Pick<Ahead, 'steps' | 'tokens'>> {
    const rows = bucket(own.length);
    const plans = await Promise.all([...this.#plans.ofRows(rows), this.#plans.draw()]);
    const { sampler, inputs } = this.#parts;
    const { queue } = this.#gpu.device;
    const copies = this.#cache.prepare(own.map(({ sequence }) => ({ sequence, tokens: done + steps })));
    if (done > 0) {
      inputs.continue(queue, own, done, steps);
      sampler.continue(queue, slices, done);
    } else {
      inputs.write(queue, own, sharedTiles(this.#parts, rows).queries, steps);
      sampler.write(queue, slices);
    }
    for (let step = 1; ; step++) {
      const encoder = this.#encoder(step === 1 ? copies : []);
      const pass = encoder.beginComputePass();
      for (const plan of plans) plan.encode(pass);
      pass.end();
      if (step === steps) return { steps, ...(await sampler.submit(queue, encoder, own.length)) };
      queue.submit([encoder.finish()]);
    }
  }

  /** @returns the requested logits, slice after slice. `[rows, vocabulary]` */
  async #compute(slices: readonly Slice[], rows: PlanRows): Promise<Float32Array> {
    const chosen = chosenRows(slices);
    // In a decode step all rows need logits, so one compute pass does everything.
    const isInner = this.spec.stage === 'inner';
    const direct = !isInner && rows !== 'prompt' && chosen.length > 0 && chosen.every((row, i) => row === i);
    const layers = await this.#plans.layers(rows, this.#computesExperts(slices, rows));
    const head = direct ? await this.#plans.head(bucket(chosen.length), 'hidden') : undefined;
    const copies = this.#cache.prepare(demandsOf(slices));
    this.#parts.inputs.write(this.#gpu.device.queue, slices, sharedTiles(this.#parts, rows).queries);
    this.#writeHidden(slices);
    const { encoder, pass } = await this.#encodeLayers(layers, copies);
    head?.encode(pass);
    pass.end();
    const { queue } = this.#gpu.device;
    if (direct) {
      const logits = new Float32Array(chosen.length * outputSize(this.spec));
      await this.#submitAndRead(encoder, logits);
      return logits;
    }
    queue.submit([encoder.finish()]);
    return isInner ? this.#hiddenRows(chosen) : this.#gatheredLogits(chosen);
  }

  /** Whether the CPU computes outside experts: always for few rows; for a prompt, depending on its length. */
  #computesExperts(slices: readonly Slice[], rows: PlanRows): boolean {
    return rows !== 'prompt' || (this.#parts.outside?.computes(this.spec, rowCount(slices)) ?? false);
  }

  /** Submits the work before each of the host's parts. @returns the encoder and the open pass of the rest. */
  async #encodeLayers(layers: Plan, copies: readonly (readonly BlockCopy[])[]) {
    let encoder = this.#encoder(copies);
    let pass = encoder.beginComputePass();
    let from = 0;
    for (const cut of layers.cuts) {
      layers.encode(pass, from, cut.step);
      pass.end();
      await this.#parts.outside?.submit(cut, encoder, this.#parts);
      encoder = this.#encoder([]);
      pass = encoder.beginComputePass();
      from = cut.step;
    }
    layers.encode(pass, from);
    return { encoder, pass };
  }

  /** Writes the hidden states that enter a stage. */
  #writeHidden(slices: readonly Slice[]): void {
    let row = 0;
    for (const { hidden, tokens } of slices) {
      const states = hidden as Float32Array<ArrayBuffer> | undefined;
      if (states) {
        this.#gpu.device.queue.writeBuffer(this.#parts.scratch.hidden, 4 * row * this.spec.hiddenSize, states);
      }
      row += tokens.length;
    }
  }

  /** Reads the hidden states that leave an inner stage. `[rows, hidden]` */
  async #hiddenRows(chosen: readonly number[]): Promise<Float32Array> {
    const { hiddenSize } = this.spec;
    const end = (chosen.at(-1) ?? -1) + 1;
    if (end === 0) return new Float32Array();
    const all = new Float32Array(await this.#gpu.readBack(this.#parts.scratch.hidden, 4 * end * hiddenSize));
    if (chosen.length === end) return all;
    const rows = new Float32Array(chosen.length * hiddenSize);
    for (const [i, row] of chosen.entries())
      rows.set(all.subarray(row * hiddenSize, (row + 1) * hiddenSize), i * hiddenSize);
    return rows;
  }

  async #gatheredLogits(chosen: readonly number[]): Promise<Float32Array> {
    const { scratch } = this.#parts;
    const { hiddenSize } = this.spec;
    const width = outputSize(this.spec);
    const logits = new Float32Array(chosen.length * width);
    for (let first = 0; first < chosen.length; first += logitRowsAtOnce) {
      const group = chosen.slice(first, first + logitRowsAtOnce);
      const plan = await this.#plans.head(bucket(group.length), 'chosen');
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

  /** Plans with another tuning than the device's: of one token, or of the layers of a prompt. */
  timedPlans(tuning: Tuning, rows: 1 | 'prompt'): Promise<readonly Plan[]> {
    const gpu: KernelDevice = {
      capabilities: { ...this.#gpu.capabilities, tuning },
      kernel: (source) => this.#gpu.kernel(source),
      bind: (kernel, buffers) => this.#gpu.bind(kernel, buffers),
    };
    const parts = { ...this.#parts, gpu };
    const head = () => (rows === 1 ? [headPlan(parts, 1, parts.scratch.hidden)] : []);
    return this.#explained(() => Promise.all([layersPlan(parts, rows), ...head()]));
  }

  /**
   * Lends the device, with the inputs of `tokens` rows after some thousand cached tokens of any content. The rows are a
   * single token, or a prompt split as its plan for `tuning` splits it.
   * @param body gets a function that reads back the residual stream of those rows.
   */
  async onRows<Result>(
    tokens: number,
    tuning: Tuning,
    body: (read: () => Promise<Float32Array>) => Promise<Result>,
  ): Promise<Result> {
    this.#dropAhead();
    const { inputs, scratch } = this.#parts;
    const sequence = this.#cache.create();
    try {
      let before = Math.min(timedTokens, this.contextTokens - tokens);
      const whole = () => ({ sequence, tokens: before + tokens });
      while (before > 0 && !this.#cache.hasRoom([whole()])) before = Math.floor(before / 2);
      this.#cache.prepare([whole()]);
      sequence.advance(before, tokens);
      const gpu = { capabilities: { ...this.#gpu.capabilities, tuning } };
      const { queries } = sharedTiles({ ...this.#parts, gpu }, rowsOfPlan(tokens));
      // Different ids, so that tokens choose different experts.
      const ids = Array.from({ length: tokens }, (_, i) => (i * 167) % this.spec.vocabularySize);
      inputs.write(this.#gpu.device.queue, [{ sequence, tokens: ids }], queries);
      const bytes = 4 * this.spec.hiddenSize * tokens;
      return await this.#explained(() =>
        body(async () => new Float32Array(await this.#gpu.readBack(scratch.hidden, bytes))),
      );
    } finally {
      sequence.dispose();
    }
  }

  /** Uses this tuning for later plans. */
  adopt(tuning: Tuning): void {
    this.#gpu.capabilities = { ...this.#gpu.capabilities, tuning };
    this.#plans.clear();
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    return this.#cache.hasRoom(demands);
  }

  async dispatches(): Promise<DispatchCounts> {
    const plans = await Promise.all(this.#plans.ofRows(1));
    const token = plans.reduce((sum, { dispatches }) => sum + dispatches, 0);
    return { layers: plans[0]?.layerDispatches ?? [], token };
  }

  copyBandwidth(): Promise<number | undefined> {
    return this.#explained(() => measureCopyBandwidth(this.#gpu));
  }

  memory(): DecoderMemory {
    const { weightBytes, cache, outside } = this.#parts;
    return {
      weightBytes: weightBytes + (outside?.weightBytes ?? 0),
      cacheBytes: this.#cache.usedBytes,
      cacheCapacityBytes: cache.bytes,
      cacheBytesPerValue: cacheBytesPerValue(this.spec, cache.precision),
    };
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#cache.clear();
    this.#gpu.dispose();
    await this.#parts.outside?.end();
  }
}

const rowsAsked = ({ tokens, logits }: Slice): number =>
  logits === 'all' ? tokens.length : logits === 'last' ? Math.min(1, tokens.length) : 0;

/** Rows of the batch whose logits are requested. */
function chosenRows(slices: readonly Slice[]): number[] {
  const chosen: number[] = [];
  let end = 0;
  for (const slice of slices) {
    end += slice.tokens.length;
    for (let row = end - rowsAsked(slice); row < end; row++) chosen.push(row);
  }
  return chosen;
}

const rowCount = (slices: readonly Slice[]): number => slices.reduce((sum, { tokens }) => sum + tokens.length, 0);

/** Whether `slices` request exactly the tokens that the device is already sampling. */
function continues(
  { steps, lengths, firsts, ...ahead }: Ahead,
  slices: readonly SamplingSlice[],
  asked: number,
): boolean {
  return (
    steps === asked &&
    slices.length === ahead.slices.length &&
    slices.every(({ sequence, token, rules, forbidden }, row) => {
      const before = ahead.slices[row];
      const isSame = before?.sequence === sequence && before.rules === rules && before.forbidden === forbidden;
      return isSame && sequence.length === lengths[row] && token === firsts[row];
    })
  );
}
