/**
 * What no model of a device tells is timed on it: variants of the kernels that decode a token, on the model's own weights. The fastest that computes
 * the same is kept by device, driver and kind of model. Done in steps of some ten milliseconds, so that any request goes first.
 * (Tokens of a submission and of a prompt's chunk are not timed here: the scheduler measures every pass.)
 */
import { z } from 'zod';
import type { Tuner, TuningReport } from '../backend.ts';
import type { WebgpuDecoder } from './decoder/decoder.ts';
import type { Plan } from './decoder/recorder.ts';
import type { GpuCapabilities, Tuning } from './device/adapter.ts';
import { measureCopyBandwidth } from './device/bandwidth.ts';
import type { Gpu } from './device/gpu.ts';
import { DeviceRecords } from './device/records.ts';

const tuningRecord = z.object({
  tuning: z.object({ vectorThreads: z.int().positive(), attentionGroups: z.int().positive() }),
  trials: z.array(z.object({ name: z.string(), tokenMs: z.number(), chosen: z.boolean() })),
  kernels: z.array(
    z.object({ name: z.string(), dispatches: z.number(), ms: z.number(), bytes: z.number().optional() }),
  ),
  copyBytesPerSecond: z.number().optional(),
});
export type TuningRecord = z.infer<typeof tuningRecord>;

export const tuningRecords = (directory: string | undefined) =>
  new DeviceRecords(directory, 'gpu-tuning', tuningRecord);

/** What was timed on this device and driver so far. */
export const tuningReports = async (capabilities: GpuCapabilities, directory: string): Promise<TuningReport[]> =>
  Object.values(await tuningRecords(directory).of(capabilities));

/** Of the device, all steps together. */
const budgetMs = 20_000;
/** A variant is taken for less only by chance. */
const leastGain = 0.03;
/** The fastest counts: other work can only slow a round down. */
const rounds = 4;
/** What a request waits for at most, unless a single token takes longer. */
const stepMs = 40;
/** Σ(a − b)² / Σb² that sums in another order leave. */
const sameResults = 1e-6;

const knobs = [
  { of: 'vectorThreads', name: 'threads a workgroup', values: [32, 128] },
  { of: 'attentionGroups', name: 'workgroups of attention', values: [256, 128] },
] as const;

interface Trial {
  readonly name: string;
  readonly tuning: Tuning;
  readonly tokenMs: number;
  readonly hidden: Float32Array;
}

interface Timing {
  readonly name: string;
  readonly tuning: Tuning;
  readonly plans: readonly Plan[];
}

type Candidate = (best: Tuning) => { readonly name: string; readonly tuning: Tuning };

/** What a decoder lends: its device to itself for a moment, with a sequence of some thousand tokens. */
export interface TimedDecoder extends Pick<WebgpuDecoder, 'timedPlans' | 'onRow' | 'adopt'> {}

export class DecodeTuner implements Tuner {
  readonly isDue: boolean;
  readonly #decoder: TimedDecoder;
  readonly #gpu: Gpu;
  readonly #keep: (record: TuningRecord) => Promise<void>;
  readonly #candidates: Candidate[];
  readonly #trials: Trial[] = [];
  #best: Trial | undefined;
  #record: TuningRecord | undefined;
  #spentMs = 0;
  /** The variant that is being timed. */
  #current: Timing | undefined;
  #roundsMs: number[] = [];

  constructor(
    decoder: TimedDecoder,
    gpu: Gpu,
    { isDue, keep }: { readonly isDue: boolean; readonly keep: (record: TuningRecord) => Promise<void> },
  ) {
    this.isDue = isDue;
    this.#decoder = decoder;
    this.#gpu = gpu;
    this.#keep = keep;
    const before = gpu.capabilities.tuning;
    this.#candidates = [
      () => ({ name: 'as it is', tuning: before }),
      ...knobs.flatMap(({ of, name, values }) =>
        values.map(
          (value): Candidate =>
            (best) => ({ name: `${value} ${name}`, tuning: { ...best, [of]: value } }),
        ),
      ),
    ];
  }

  get report(): TuningReport | undefined {
    return this.#record;
  }

  /** Compiles what the next step times, which leaves the device to others. */
  async ready(): Promise<boolean> {
    if (this.#record) return false;
    if (this.#current) return true;
    const next = this.#spentMs < budgetMs ? this.#candidates.shift() : undefined;
    if (!next) return true;
    const { name, tuning } = next(this.#best?.tuning ?? this.#gpu.capabilities.tuning);
    this.#current = { name, tuning, plans: await this.#decoder.timedPlans(tuning) };
    return true;
  }

  async step(): Promise<void> {
    const startMs = performance.now();
    if (this.#current) await this.#time(this.#current);
    else await this.#finish();
    this.#spentMs += performance.now() - startMs;
  }

  async #time({ name, tuning, plans }: Timing): Promise<void> {
    const known = Math.min(...this.#roundsMs);
    const times = Number.isFinite(known) ? Math.max(1, Math.min(32, Math.floor(stepMs / known))) : 1;
    const { ms, hidden } = await this.#decoder.onRow(async (read) => {
      const took = await timed(this.#gpu, (pass) => {
        for (let i = 0; i < times; i++) for (const plan of plans) plan.encode(pass);
      });
      return { ms: took / times, hidden: await read() };
    });
    this.#roundsMs.push(ms);
    if (this.#roundsMs.length <= rounds) return;
    // The first round warms up.
    const trial = { name, tuning, tokenMs: Math.min(...this.#roundsMs.slice(1)), hidden };
    this.#roundsMs = [];
    this.#current = undefined;
    this.#trials.push(trial);
    const best = this.#best;
    const isFaster = best !== undefined && trial.tokenMs < (1 - leastGain) * best.tokenMs;
    if (!best || (isFaster && difference(hidden, best.hidden) < sameResults)) this.#best = trial;
  }

  async #finish(): Promise<void> {
    const best = this.#best;
    if (!best) throw new Error('The plan as it is was not timed.');
    const plans = await this.#decoder.timedPlans(best.tuning);
    const kernels = await this.#decoder.onRow(() => this.#timeKernels(plans));
    const copyBytesPerSecond = await measureCopyBandwidth(this.#gpu);
    this.#record = {
      tuning: best.tuning,
      trials: this.#trials.map((trial) => ({ name: trial.name, tokenMs: trial.tokenMs, chosen: trial === best })),
      kernels,
      ...(copyBytesPerSecond !== undefined && { copyBytesPerSecond }),
    };
    this.#decoder.adopt(best.tuning);
    await this.#keep(this.#record);
  }

  /** Each kernel alone, the costliest first. */
  async #timeKernels(plans: readonly Plan[]): Promise<TuningRecord['kernels']> {
    const kinds = plans.flatMap((plan) => plan.kinds());
    const kernels: TuningRecord['kernels'] = [];
    for (const { source, dispatches, encode } of kinds) {
      const repeats = 8;
      const times: number[] = [];
      for (let round = 0; round < 3; round++) {
        times.push(await timed(this.#gpu, (pass) => encode(pass, repeats)));
      }
      const ms = (dispatches * Math.min(...times)) / repeats;
      const bytes = source.weightBytes;
      kernels.push({ name: source.label, dispatches, ms, ...(bytes !== undefined && { bytes: dispatches * bytes }) });
    }
    return kernels.sort((a, b) => b.ms - a.ms);
  }
}

/** Milliseconds of a pass on the device: by its timestamps, or by the clock where it has none. */
async function timed({ device, capabilities }: Gpu, encode: (pass: GPUComputePassEncoder) => void): Promise<number> {
  const encoder = device.createCommandEncoder();
  if (!capabilities.timestamps) {
    await device.queue.onSubmittedWorkDone();
    const pass = encoder.beginComputePass();
    encode(pass);
    pass.end();
    const startMs = performance.now();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - startMs;
  }
  const querySet = device.createQuerySet({ type: 'timestamp', count: 2 });
  const size = 16;
  const resolved = device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  const reading = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const timestampWrites = { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 };
  const pass = encoder.beginComputePass({ timestampWrites });
  encode(pass);
  pass.end();
  encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, reading, 0, size);
  device.queue.submit([encoder.finish()]);
  await reading.mapAsync(GPUMapMode.READ);
  const [begin = 0n, end = 0n] = new BigUint64Array(reading.getMappedRange());
  const ms = Number(end - begin) / 1e6;
  for (const resource of [querySet, resolved, reading]) resource.destroy();
  return ms;
}

function difference(actual: Float32Array, expected: Float32Array): number {
  let [error, power] = [0, 0];
  for (const [i, value] of expected.entries()) {
    error += ((actual[i] ?? Number.NaN) - value) ** 2;
    power += value ** 2;
  }
  return error / power;
}
