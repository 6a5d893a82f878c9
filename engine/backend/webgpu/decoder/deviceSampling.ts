/**
 * Sampling on the device: several passes of one token a sequence with one read-back. Each pass samples the tokens of
 * the next.
 */
import type { SamplingSlice } from '../../backend.ts';
import { penalises } from '../../sampler.ts';
import type { Allocator, KernelDevice } from '../device/gpu.ts';
import {
  chunksOf,
  chunkTokens,
  forbiddenWords,
  historyWords,
  packSettings,
  partWords,
  sampleChunksKernel,
  settingsWords,
} from '../kernels/sampleChunks.ts';
import { sampleDrawKernel } from '../kernels/sampleDraw.ts';
import { type Plan, PlanBuilder } from './recorder.ts';

/** Most steps with one read-back. A cancellation waits for all of them. */
export const maxSteps = 16;
/** Id that stands for logits that are not finite. */
const nothingDrawn = 0xffffffff;

export interface SamplerLimits {
  readonly vocabularySize: number;
  readonly maxRows: number;
}

export type DrawnSlice = Pick<SamplingSlice, 'rules' | 'history' | 'forbidden' | 'uniforms'>;

export interface SamplerOperands {
  /** `[rows, vocabulary]` */
  readonly logits: GPUBuffer;
  readonly rowBuffer: GPUBuffer;
  readonly rows: () => number;
}

/** The buffers that the two sampling kernels pass on, and their read-back. */
export class DeviceSampler {
  readonly #vocabularySize: number;
  readonly #buffers: Awaited<ReturnType<typeof allocateBuffers>>;
  /** Index of the last used of two staging buffers, and promises for when each is free again. */
  #turn = 0;
  readonly #unmapped: Promise<unknown>[] = [Promise.resolve(), Promise.resolve()];

  private constructor({ vocabularySize }: SamplerLimits, buffers: Awaited<ReturnType<typeof allocateBuffers>>) {
    this.#vocabularySize = vocabularySize;
    this.#buffers = buffers;
  }

  static async allocate(gpu: Allocator, limits: SamplerLimits): Promise<DeviceSampler> {
    return new DeviceSampler(limits, await allocateBuffers(gpu, limits));
  }

  /** Records sampling: from the logits of each row to its token, which becomes the row of the next pass. */
  async plan(gpu: KernelDevice, { logits, rowBuffer, rows }: SamplerOperands): Promise<Plan> {
    const { settings, uniforms, history, forbidden, parts, sorted, drawn } = this.#buffers;
    const builder = new PlanBuilder(gpu);
    const chunking = [settings, history, forbidden, logits, parts, sorted];
    const chunks = chunksOf(this.#vocabularySize);
    builder.add(sampleChunksKernel(gpu.capabilities), chunking, () => [chunks, rows()]);
    const drawing = [settings, uniforms, logits, parts, sorted, history, drawn, rowBuffer];
    builder.add(sampleDrawKernel(maxSteps, gpu.capabilities), drawing, () => [rows()]);
    return builder.finish();
  }

  write(queue: GPUQueue, slices: readonly DrawnSlice[]): void {
    const { settings, history, forbidden } = this.#buffers;
    const vocabularySize = this.#vocabularySize;
    const words = historyWords(vocabularySize);
    for (const [row, slice] of slices.entries()) {
      const forbids = slice.forbidden.length > 0;
      queue.writeBuffer(settings, 4 * settingsWords * row, packSettings(slice.rules, { forbids, vocabularySize }));
      if (forbids) {
        const bits = packForbidden(vocabularySize, slice.forbidden);
        queue.writeBuffer(forbidden, bits.byteLength * row, bits);
      }
      if (penalises(slice.rules)) queue.writeBuffer(history, 4 * words * row, packHistory(words, slice.history));
    }
    this.continue(queue, slices, 0);
  }

  /** Prepares the steps after `done` ones; the device keeps the history. */
  continue(queue: GPUQueue, slices: readonly Pick<DrawnSlice, 'uniforms'>[], done: number): void {
    const { uniforms, drawn } = this.#buffers;
    for (const [row, slice] of slices.entries()) {
      queue.writeBuffer(uniforms, 4 * maxSteps * row, Float32Array.from(slice.uniforms.slice(done, done + maxSteps)));
    }
    queue.writeBuffer(drawn, 0, new Uint32Array(slices.length * (1 + maxSteps)));
  }

  /** Submits `encoder` with the read-back. @returns the tokens of each row; at most two calls may be pending. */
  async submit(queue: GPUQueue, encoder: GPUCommandEncoder, rows: number): Promise<{ tokens: Promise<number[][]> }> {
    this.#turn = 1 - this.#turn;
    await this.#unmapped[this.#turn];
    const staging = this.#turn === 0 ? this.#buffers.staging : this.#buffers.otherStaging;
    encoder.copyBufferToBuffer(this.#buffers.drawn, 0, staging, 0, 4 * rows * (1 + maxSteps));
    queue.submit([encoder.finish()]);
    const tokens = readDrawn(staging, rows);
    // If the tokens are dropped, their failure is ignored.
    this.#unmapped[this.#turn] = tokens.catch(() => {});
    return { tokens };
  }
}

async function readDrawn(staging: GPUBuffer, rows: number): Promise<number[][]> {
  const stride = 1 + maxSteps;
  await staging.mapAsync(GPUMapMode.READ, 0, 4 * rows * stride);
  const words = new Uint32Array(staging.getMappedRange(0, 4 * rows * stride).slice(0));
  staging.unmap();
  return Array.from({ length: rows }, (_, row) => {
    const [count = 0, ...ids] = words.subarray(row * stride, (row + 1) * stride);
    const drawn = ids.slice(0, count);
    if (drawn.includes(nothingDrawn)) throw new Error('The logits of a token are no numbers.');
    return drawn;
  });
}

/** Two bits a token: in the sequence, in the answer. */
function packHistory(count: number, { sequence, generated }: SamplingSlice['history']): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(count);
  const mark = (id: number, bit: number): void => {
    words[id >> 4] = (words[id >> 4] ?? 0) | (bit << (2 * (id & 15)));
  };
  for (const id of sequence) mark(id, 1);
  for (const id of generated) mark(id, 2);
  return words;
}

/** A bit a token. */
function packForbidden(vocabularySize: number, ids: readonly number[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(forbiddenWords(vocabularySize));
  for (const id of ids) words[id >> 5] = (words[id >> 5] ?? 0) | (1 << (id & 31));
  return words;
}

async function allocateBuffers(gpu: Allocator, { vocabularySize, maxRows }: SamplerLimits) {
  const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const reading = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  const words = (label: string, count: number, usage = storage) => gpu.allocate(label, 4 * maxRows * count, usage);
  return {
    settings: await words('sampling settings', settingsWords),
    uniforms: await words('uniform numbers', maxSteps),
    history: await words('tokens said', historyWords(vocabularySize)),
    forbidden: await words('forbidden tokens', forbiddenWords(vocabularySize)),
    parts: await words('most probable tokens', chunksOf(vocabularySize) * partWords),
    sorted: await words('tokens in order', 2 * chunkTokens * chunksOf(vocabularySize)),
    drawn: await words('drawn tokens', 1 + maxSteps),
    staging: await words('drawn tokens on their way', 1 + maxSteps, reading),
    otherStaging: await words('drawn tokens on their way', 1 + maxSteps, reading),
  };
}

/** `drawn` up to its first stop id, which is part of it. */
export function untilStop(drawn: readonly number[], stopIds: ReadonlySet<number>): number[] {
  const stop = drawn.findIndex((id) => stopIds.has(id));
  return stop < 0 ? [...drawn] : drawn.slice(0, stop + 1);
}
