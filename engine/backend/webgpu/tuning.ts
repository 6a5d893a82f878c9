/**
 * Times variants of the kernels for decode and prefill on the device, with the model's own weights, because a device's
 * properties don't tell which is fastest. The fastest variant with the same results is stored by device, driver and
 * kind of model. Works in steps of about ten milliseconds, so that any request goes first. (Tokens of a submission and
 * of a prompt's chunk are not timed here: the scheduler measures every pass.)
 */
import { z } from 'zod';
import { HearthError } from '../../errors.ts';
import type { Tuner, TuningReport } from '../backend.ts';
import type { WebgpuDecoder } from './decoder/decoder.ts';
import type { Plan } from './decoder/recorder.ts';
import { defaultTuning, type GpuCapabilities, type Tuning } from './device/adapter.ts';
import { measureCopyBandwidth } from './device/bandwidth.ts';
import type { Gpu } from './device/gpu.ts';
import { DeviceRecords } from './device/records.ts';

const tuningRecord = z.object({
  tuning: z.object({
    vectorThreads: z.int().positive(),
    attentionGroups: z.int().positive(),
    // Absent in older records.
    threadRows: z.int().positive().default(defaultTuning.threadRows),
    sharedColumns: z.int().positive().default(defaultTuning.sharedColumns),
    tileTokens: z.int().positive().default(defaultTuning.tileTokens),
    tallRows: z.int().positive().default(defaultTuning.tallRows),
    matrixAttention: z.boolean().default(defaultTuning.matrixAttention),
  }),
  trials: z.array(z.object({ name: z.string(), tokenMs: z.number(), chosen: z.boolean() })),
  kernels: z.array(
    z.object({ name: z.string(), dispatches: z.number(), ms: z.number(), bytes: z.number().optional() }),
  ),
  copyBytesPerSecond: z.number().optional(),
});
export type TuningRecord = z.infer<typeof tuningRecord>;

export const tuningRecords = (directory: string | undefined) =>
  new DeviceRecords(directory, 'gpu-tuning', tuningRecord);

/** The reports for this device and driver so far. */
export const tuningReports = async (capabilities: GpuCapabilities, directory: string): Promise<TuningReport[]> =>
  Object.values(await tuningRecords(directory).of(capabilities));

/** Time on the device, all steps together. */
const budgetMs = 20_000;
/** A smaller gain may be chance, so the variant is not used. */
const leastGain = 0.03;
/** The fastest round counts, because other work can only slow a round down. */
const rounds = 4;
/** Longest wait of a request, unless a single token or the timed prompt takes longer. */
const stepMs = 40;
/** Tokens of the first timed prompt; then as many as take about `promptMs`, up to a chunk, because prompts have chunks. */
const promptTokens = 128;
const promptMs = 100;
/** Largest Σ(a − b)² / Σb² that is explained by sums in another order. */
const sameResults = 1e-6;

const knobs = [
  { of: 'vectorThreads', name: 'threads a workgroup', values: [32, 128] },
  { of: 'threadRows', name: 'rows of matrices a thread', values: [2, 1] },
  { of: 'attentionGroups', name: 'workgroups of attention', values: [256, 128] },
] as const;

/** Only subgroup matrices leave a choice. */
const promptKnobs: readonly { readonly name: string; readonly change: Partial<Tuning> }[] = [
  { name: '64 tokens a tile', change: { tileTokens: 64 } },
  { name: 'attention without matrices', change: { matrixAttention: false } },
];

type Rows = 1 | 'prompt';

interface Timing {
  readonly name: string;
  readonly rows: Rows;
  readonly tuning: Tuning;
  readonly plans: readonly Plan[];
}

interface Trial extends Timing {
  readonly tokenMs: number;
  readonly hidden: Float32Array;
}

type Candidate = (best: Tuning) => Omit<Timing, 'plans'>;

/** A decoder's exclusive loan of its device, with a sequence of some thousand tokens. */
export interface TimedDecoder
  extends Pick<WebgpuDecoder, 'timedPlans' | 'onRows' | 'adopt' | 'contextTokens' | 'maxTokensPerRun'> {}

const promptCandidates: readonly Candidate[] = [
  (tuning) => ({ name: 'prompts as they are', rows: 'prompt', tuning }),
  ...promptKnobs.map(
    ({ name, change }): Candidate =>
      (best) => ({ name: `prompts: ${name}`, rows: 'prompt', tuning: { ...best, ...change } }),
  ),
];

const codeOf = (plans: readonly Plan[]): string =>
  plans.flatMap((plan) => plan.kernels().map(({ source }) => source.code)).join('\n');

export class DecodeTuner implements Tuner {
  readonly isDue: boolean;
  readonly #decoder: TimedDecoder;
  readonly #gpu: Gpu;
  readonly #keep: (record: TuningRecord) => Promise<void>;
  readonly #candidates: Candidate[];
  readonly #trials: Trial[] = [];
  readonly #best = new Map<Rows, Trial>();
  #record: TuningRecord | undefined;
  #spentMs = 0;
  #promptTokens = promptTokens;
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
      () => ({ name: 'as it is', rows: 1, tuning: before }),
      ...knobs.flatMap(({ of, name, values }) =>
        values.map(
          (value): Candidate =>
            (best) => ({ name: `${value} ${name}`, rows: 1, tuning: { ...best, [of]: value } }),
        ),
      ),
      ...(gpu.capabilities.subgroupMatrix && decoder.contextTokens >= promptTokens ? promptCandidates : []),
    ];
  }

  get report(): TuningReport | undefined {
    return this.#record;
  }

  /** Compiles the kernels of the next step; the device stays free for others. */
  async ready(): Promise<boolean> {
    if (this.#record) return false;
    if (this.#current) return true;
    while (!this.#current) {
      const next = this.#spentMs < budgetMs ? this.#candidates.shift() : undefined;
      if (!next) return true;
      const candidate = next(this.#tuning);
      const plans = await this.#decoder.timedPlans(candidate.tuning, candidate.rows);
      const best = this.#best.get(candidate.rows);
      // Skips variants that change no kernel of this model or its cache.
      if (candidate.rows === 1 || !best || codeOf(plans) !== codeOf(best.plans))
        this.#current = { ...candidate, plans };
    }
    return true;
  }

  /** The best tuning so far. */
  get #tuning(): Tuning {
    return (this.#best.get('prompt') ?? this.#best.get(1))?.tuning ?? this.#gpu.capabilities.tuning;
  }

  async step(): Promise<void> {
    const startMs = performance.now();
    if (this.#current) await this.#timeIfThereIsRoom(this.#current);
    else await this.#finish();
    this.#spentMs += performance.now() - startMs;
  }

  /** A prompt may not fit beside the cached tokens; then keeps the results so far. */
  async #timeIfThereIsRoom(current: Timing): Promise<void> {
    try {
      await this.#time(current);
    } catch (error) {
      const isFull = error instanceof HearthError && error.code === 'out-of-memory';
      if (!isFull || current.rows === 1) throw error;
      this.#candidates.length = 0;
      this.#roundsMs = [];
      this.#current = undefined;
    }
  }

  async #time(current: Timing): Promise<void> {
    const { rows, tuning, plans } = current;
    const tokens = rows === 1 ? 1 : this.#promptTokens;
    const known = Math.min(...this.#roundsMs);
    const times = Number.isFinite(known) ? Math.max(1, Math.min(32, Math.floor(stepMs / known))) : 1;
    const { ms, hidden } = await this.#decoder.onRows(tokens, tuning, async (read) => {
      const took = await timed(this.#gpu, (pass) => {
        for (let i = 0; i < times; i++) for (const plan of plans) plan.encode(pass);
      });
      return { ms: took / times, hidden: await read() };
    });
    const isFirst = rows === 'prompt' && !this.#best.has('prompt') && this.#roundsMs.length === 0;
    if (isFirst) this.#promptTokens = this.#tokensIn(promptMs, ms);
    this.#roundsMs.push(ms);
    if (this.#roundsMs.length <= rounds) return;
    // The first round warms up.
    const trial = { ...current, tokenMs: Math.min(...this.#roundsMs.slice(1)) / tokens, hidden };
    this.#roundsMs = [];
    this.#current = undefined;
    this.#trials.push(trial);
    const best = this.#best.get(rows);
    const isFaster = best !== undefined && trial.tokenMs < (1 - leastGain) * best.tokenMs;
    if (!best || (isFaster && difference(hidden, best.hidden) < sameResults)) this.#best.set(rows, trial);
  }

  /** @param ms time of `promptTokens`. */
  #tokensIn(budget: number, ms: number): number {
    const most = Math.min(this.#decoder.maxTokensPerRun, this.#decoder.contextTokens);
    return Math.max(promptTokens, Math.min(most, promptTokens * Math.floor(budget / ms)));
  }

  async #finish(): Promise<void> {
    const best = this.#best.get(1);
    if (!best) throw new Error('The plan as it is was not timed.');
    const tuning = this.#tuning;
    const chosen = [...this.#best.values()];
    const plans = await this.#decoder.timedPlans(tuning, 1);
    const kernels = await this.#decoder.onRows(1, tuning, () => this.#timeKernels(plans));
    const copyBytesPerSecond = await measureCopyBandwidth(this.#gpu);
    this.#record = {
      tuning,
      trials: this.#trials.map((trial) => ({
        name: trial.name,
        tokenMs: trial.tokenMs,
        chosen: chosen.includes(trial),
      })),
      kernels,
      ...(copyBytesPerSecond !== undefined && { copyBytesPerSecond }),
    };
    // Releases the trials' plans.
    this.#trials.length = 0;
    this.#best.clear();
    this.#decoder.adopt(tuning);
    await this.#keep(this.#record);
  }

  /** Times each kernel alone; the slowest first. */
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

/** Milliseconds of a pass on the device, by its timestamps, or by the clock if it has none. */
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
