/**
 * The one loop that drives a decoder: `schedule → run → sample → deliver`. The queue (requestQueue.ts) decides which
 * request is next; the scheduler runs it.
 */

import { setImmediate } from 'node:timers/promises';
import type { Decoder } from '../backend/backend.ts';
import { HearthError } from '../errors.ts';
import type { PrefixCache } from '../kv/prefixCache.ts';
import type { Snapshots } from '../kv/snapshots.ts';
import { limits } from '../limits.ts';
import { outputSize } from '../model/spec/spec.ts';
import type { SchedulerStatistics } from '../protocol/models.ts';
import type { DraftModel } from './draftModel.ts';
import {
  type AnswerEnds,
  inputOf,
  Job,
  type RequestClass,
  requirePrompt,
  StatisticsRecorder,
  type StepLimits,
  type StepSlice,
  type TokenOutcome,
  type TokenRequest,
} from './job.ts';
import { type QueueLimits, RequestQueue } from './requestQueue.ts';
import { type DeviceUser, MemoryRoom, SharedDevice } from './sharing.ts';
import { DeviceSampler, type DeviceStep, DraftTokens, type Speculation } from './tokensPerStep.ts';

/** A decoder and its cache. A device loss ends both. */
export interface Machine {
  readonly decoder: Decoder;
  readonly cache: PrefixCache;
  /** Absent: no snapshots on disk. */
  readonly snapshots?: Pick<Snapshots, 'restorePrefix' | 'onIdle' | 'onRequest'>;
  /** Absent: no draft tokens. */
  readonly speculation?: Speculation;
}

export interface SchedulerOptions extends Machine, Omit<QueueLimits, keyof StepLimits | 'arrivals'> {
  /** The device that this scheduler shares with others. Absent: it has a device to itself. */
  readonly device?: SharedDevice | undefined;
  /** Times variants of the decoder's kernels while there are no requests. */
  readonly tunesWhileIdle?: boolean | undefined;
  /**
   * Returns another machine after `device-lost`; every request continues on it from its tokens. Absent: the requests
   * fail.
   */
  readonly recover?: (loss: HearthError, lost: Decoder) => Promise<Machine>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Lets the process receive new requests and cancellations between two steps. */
  readonly yieldToEventLoop: () => Promise<void>;
}

type Slice = StepSlice<Job>;

/** A pass that the device computes while the next one is decided. */
interface PassInFlight {
  readonly slices: readonly Slice[];
  readonly startMs: number;
  readonly done: Promise<void>;
}

/** Where tasks send their requests. */
export type Submitter = Pick<Scheduler, 'submit' | 'decoder'>;

export class Scheduler implements DeviceUser {
  readonly #options: SchedulerOptions;
  readonly #device: SharedDevice;
  readonly #queue: RequestQueue<Job>;
  #machine: Machine;
  readonly #statistics = new StatisticsRecorder();
  readonly #deviceSampler: DeviceSampler;
  readonly #room: MemoryRoom;
  readonly #draftTokens: DraftTokens;
  #inFlight: PassInFlight | undefined;
  /** End of the last pass. A pass submitted before that time started then, not earlier. */
  #lastEndMs = Number.NEGATIVE_INFINITY;
  /** The next tuning step is compiled and can run. */
  #tunes = false;
  #working: Promise<void> | undefined;
  #closed = false;
  /** Requests whose next token waits for a grammar. */
  readonly #held = new Set<Promise<void>>();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#machine = options;
    this.#deviceSampler = new DeviceSampler(() => this.decoder);
    this.#device = options.device ?? new SharedDevice(options);
    this.#queue = new RequestQueue({ ...options, ...this.#stepLimits(), arrivals: this.#device.arrivals });
    this.#room = new MemoryRoom(this.#queue, () => this.#machine.cache, this.#statistics);
    this.#draftTokens = new DraftTokens(() => this.#machine, this.#queue, this.#statistics);
    if (options.tunesWhileIdle) void this.#prepareTuning();
  }

  get decoder(): Decoder {
    return this.#machine.decoder;
  }

  get #ends(): AnswerEnds {
    return { contextTokens: this.decoder.contextTokens, width: outputSize(this.decoder.spec), now: this.#options.now };
  }

  get pending(): number {
    return this.#queue.size;
  }

  waitingClass(): RequestClass | undefined {
    return this.#queue.bestClass();
  }

  statistics(): SchedulerStatistics {
    return this.#statistics.snapshot();
  }

  /**
   * @returns the outcome; cancellation is an outcome, not an error.
   * @throws HearthError `context-overflow`, `busy` (too many requests), `timeout`, `unavailable` (the model is being
   * unloaded), and every error of the decoder.
   */
  submit(request: TokenRequest): Promise<TokenOutcome> {
    return new Promise((resolve, reject) => {
      if (this.#closed)
        throw new HearthError('unavailable', 'The model is being unloaded; ask again once one is loaded.');
      requirePrompt(request.prompt, this.decoder.contextTokens);
      const nowMs = this.#options.now();
      const job = new Job(request, nowMs, { resolve, reject });
      try {
        this.#queue.add(job, nowMs);
      } catch (error) {
        this.#statistics.count(request.requestClass, 'refused');
        throw error;
      }
      this.#statistics.count(request.requestClass, 'submitted');
      this.#working ??= this.#work();
    });
  }

  /**
   * The same queue for one window. Windows share the time of a class equally, however many requests each of them has.
   */
  for(owner: object): Submitter {
    const decoder = (): Decoder => this.decoder;
    return {
      get decoder() {
        return decoder();
      },
      submit: (request) => this.submit({ ...request, owner }),
    };
  }

  /** From now on, answers get draft tokens from this smaller model; undefined: from none. */
  draftWith(model: DraftModel | undefined): void {
    this.#draftTokens.model = model;
  }

  /** Cancels every request and refuses new ones. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
    // Releasing a held request starts `#work`, which cancels it.
    while (this.#held.size > 0) await Promise.all(this.#held);
    await this.#working;
  }

  async #work(): Promise<void> {
    // Waits for requests submitted in the same turn of the event loop.
    await this.#options.yieldToEventLoop();
    await this.#device.calls.during(this.#machine.snapshots?.onRequest());
    for (;;) {
      // The device must be empty before another scheduler gets it.
      if (this.#device.isWanted) await this.#settleInFlight();
      await this.#device.enter(this);
      const nowMs = this.#options.now();
      this.#endUnwanted(nowMs);
      const step = this.#queue.next(nowMs);
      if (!step) {
        if (this.#inFlight) {
          await this.#settleInFlight();
          continue;
        }
        if (this.#tunes && !this.#closed && this.#queue.size === 0) {
          await this.#tune();
          continue;
        }
        this.#device.leave(this);
        // Not in a `finally`: a request submitted before it ran would find a loop that has already ended.
        this.#working = undefined;
        if (!this.#closed && this.#queue.size === 0) this.#machine.snapshots?.onIdle();
        return;
      }
      if (step.kind === 'admit') await this.#admit(step.request, nowMs);
      else await this.#run(step.slices, nowMs);
      await this.#options.yieldToEventLoop();
    }
  }

  /** Compiles the next tuning step while requests run; the loop runs the step when it is idle. */
  async #prepareTuning(): Promise<void> {
    const { tuner } = this.decoder;
    if (!tuner?.isDue || this.#closed) return;
    try {
      this.#tunes = await tuner.ready();
    } catch {
      // The device stays untuned. The next request reports the fault.
      return;
    }
    if (this.#tunes) this.#working ??= this.#work();
  }

  async #tune(): Promise<void> {
    this.#tunes = false;
    try {
      await this.#device.calls.during(this.decoder.tuner?.step());
    } catch (error) {
      if (isLoss(error)) await this.#recover(error);
      return;
    }
    void this.#prepareTuning();
  }

  #endUnwanted(nowMs: number): void {
    for (const job of this.#queue) {
      if (this.#queue.isHeld(job)) continue;
      if (this.#closed || job.request.signal?.aborted) this.#finish(job, 'cancelled');
      else if (nowMs >= job.deadlineMs) this.#expire(job);
    }
  }

  async #admit(job: Job, nowMs: number): Promise<void> {
    const { cache, snapshots } = this.#machine;
    try {
      await this.#device.calls.during(snapshots?.restorePrefix(job.tokens, job.cacheOwner));
      const lease = cache.acquire(job.tokens, job.cacheOwner);
      job.lease = lease;
      lease.sequence.setCheckpoints(job.boundaries);
      if (!this.#room.hasRoomFor(job)) return;
      if (job.cachedTokens !== undefined) return;
      job.cachedTokens = lease.cachedTokens;
      this.#statistics.admitted(job.requestClass, nowMs - job.submittedMs, job.cachedTokens);
    } catch (error) {
      this.#fail(job, error);
    }
  }

  async #run(slices: readonly Slice[], startMs: number): Promise<void> {
    const fitting = this.#room.fitting(slices);
    if (fitting.length === 0) return;
    const drafted = this.#draftTokens.ask(fitting, startMs);
    if (drafted) {
      for (const { request } of fitting) this.#hold(request, drafted);
      return;
    }
    const deviceStep = this.#deviceSampler.plan(fitting, this.#mayRunAhead(fitting));
    if (deviceStep) await this.#sampleOnDevice(fitting, deviceStep, startMs);
    else if (this.#mayBeInFlight(fitting)) await this.#submitPass(fitting, startMs);
    else await this.#compute(fitting, startMs);
  }

  /** No other request waits for the device, and none is expected. */
  #mayRunAhead(slices: readonly Slice[]): boolean {
    const [first] = slices;
    if (!first || this.#queue.size > slices.length || this.#device.isWanted) return false;
    return !this.#queue.isTypingBefore(first.request, this.#options.now());
  }

  /** A chunk in the middle of prompts, while the user doesn't type: the next pass doesn't depend on its result. */
  #mayBeInFlight(slices: readonly Slice[]): boolean {
    const [first] = slices;
    if (!first || !this.decoder.submit || this.#device.isWanted) return false;
    if (this.#queue.isTypingBefore(first.request, this.#options.now())) return false;
    return slices.every(({ request, tokens, logits }) => logits === 'none' && tokens < request.waitingTokens);
  }

  /** Submits a pass before the previous one has ended, and leaves it in flight. */
  async #submitPass(slices: readonly Slice[], startMs: number): Promise<void> {
    let done: Promise<void> | undefined;
    let failure: unknown;
    try {
      done = (await this.#watched(slices, this.decoder.submit?.(slices.map(inputOf))))?.done;
      // Awaited when the next pass is submitted.
      done?.catch(() => {});
    } catch (error) {
      failure = error;
    }
    if (!(await this.#settleInFlight())) return;
    if (done) this.#inFlight = { slices, startMs, done };
    else await this.#failed(slices, failure);
  }

  /** Waits for the pass in flight. @returns false if the device was lost; passes submitted after it are lost too. */
  async #settleInFlight(): Promise<boolean> {
    const flight = this.#inFlight;
    if (!flight) return true;
    this.#inFlight = undefined;
    try {
      await this.#watched(flight.slices, flight.done);
    } catch (error) {
      if (isLoss(error)) {
        await this.#recover(error);
        return false;
      }
      for (const { request } of flight.slices) if (this.#queue.has(request)) this.#fail(request, error);
      return true;
    }
    const startMs = Math.max(flight.startMs, this.#lastEndMs);
    const endMs = this.#options.now();
    this.#queue.measured(flight.slices, endMs - startMs);
    this.#account(flight.slices, startMs, endMs);
    return true;
  }

  async #sampleOnDevice(slices: readonly Slice[], step: DeviceStep, loopMs: number): Promise<void> {
    if (!(await this.#settleInFlight())) return;
    let sampled: number[][];
    try {
      sampled = await this.#watched(slices, this.#deviceSampler.sample(step));
    } catch (error) {
      await this.#failed(slices, error);
      return;
    }
    const startMs = step.begun ? this.#lastEndMs : Math.max(loopMs, this.#lastEndMs);
    const endMs = this.#options.now();
    this.#deviceSampler.took(step, endMs - startMs);
    this.#account(
      slices.map((slice, i) => ({ ...slice, tokens: sampled[i]?.length ?? 0 })),
      startMs,
      endMs,
    );
    this.#draftTokens.measured(slices, (endMs - startMs) / step.steps);
    for (const [i, { request }] of slices.entries())
      this.#deliverSampled(request, sampled[i] ?? [], step.slices[i]?.forbidden ?? []);
  }

  /** @param forbidden the tokens that the device excluded. Tokens sampled after that list has changed are dropped. */
  #deliverSampled(job: Job, tokens: readonly number[], forbidden: readonly number[]): void {
    try {
      let finish: TokenOutcome['finish'] | undefined;
      let delivered = 0;
      for (const token of tokens) {
        if (finish || job.request.signal?.aborted || job.request.sampling?.free()?.forbidden !== forbidden) break;
        finish = job.deliver(token, this.#ends);
        delivered++;
      }
      job.request.sampling?.sampled(delivered);
      this.#statistics.count(job.requestClass, 'deviceTokens', delivered);
      // Drops tokens sampled past the end. The last token is not in the cache.
      job.sequence.truncate(job.tokens.length - 1);
      if (finish) this.#finish(job, finish);
      else this.#draftTokens.renew(job, 0, this.#options.now());
    } catch (error) {
      this.#fail(job, error);
    }
  }

  #account(slices: readonly Slice[], startMs: number, endMs: number): void {
    this.#lastEndMs = endMs;
    this.#queue.charge(slices, endMs - startMs, endMs);
    this.#statistics.step(slices, endMs - startMs);
  }

  async #compute(slices: readonly Slice[], loopMs: number): Promise<void> {
    const running = this.decoder.run(slices.map(inputOf));
    // A failure is handled below, after the previous pass.
    running.catch(() => {});
    if (!(await this.#settleInFlight())) return;
    let logits: Float32Array[];
    try {
      logits = await this.#watched(slices, running);
    } catch (error) {
      await this.#failed(slices, error);
      return;
    }
    const startMs = Math.max(loopMs, this.#lastEndMs);
    const endMs = this.#options.now();
    this.#queue.measured(slices, endMs - startMs);
    this.#account(slices, startMs, endMs);
    this.#draftTokens.measured(slices, endMs - startMs);
    for (const [i, slice] of slices.entries()) {
      if (this.#queue.has(slice.request)) await this.#withoutWaiting(slice.request, this.#computed(slice, logits[i]));
    }
  }

  /** Watches `work`, a pass of the device over the slices, for a hang. */
  #watched<Result>(slices: readonly Slice[], work: Result | Promise<Result>): Promise<Result> {
    const tokens = slices.reduce((sum, slice) => sum + slice.tokens + slice.drafts, 0);
    return this.#device.calls.during(work, { decoder: this.decoder, tokens });
  }

  /** Compiling a grammar may take a second; other requests continue meanwhile. */
  async #withoutWaiting(job: Job, computed: Promise<void>): Promise<void> {
    if (!(await settles(computed, limits.generation.choiceMs))) this.#hold(job, computed);
  }

  /** @param until must not reject. */
  #hold(job: Job, until: Promise<void>): void {
    this.#queue.hold(job);
    const held = until.finally(() => {
      this.#held.delete(held);
      this.#queue.release(job);
      this.#working ??= this.#work();
    });
    this.#held.add(held);
  }

  /** Every request keeps its tokens, is admitted again, and is prefilled again. */
  async #recover(loss: HearthError): Promise<void> {
    const { decoder, cache } = this.#machine;
    this.#inFlight = undefined;
    for (const job of this.#queue) {
      if (job.lease) cache.discard(job.lease);
      job.lease = undefined;
      // Measured times don't apply to the next machine.
      job.drafter = undefined;
    }
    cache.clear();
    try {
      if (!this.#options.recover) throw loss;
      this.#machine = await this.#options.recover(loss, decoder);
      this.#queue.resize(this.#stepLimits());
    } catch (error) {
      for (const job of [...this.#queue]) this.#fail(job, error);
    }
  }

  #stepLimits(): StepLimits {
    const { maxTokensPerRun, maxSequencesPerRun, submit } = this.decoder;
    return { chunkTokens: maxTokensPerRun, maxSequences: maxSequencesPerRun, passesInFlight: submit ? 2 : 1 };
  }

  async #failed(slices: readonly Slice[], error: unknown): Promise<void> {
    if (isLoss(error)) await this.#recover(error);
    else await this.#runAlone(slices, error);
  }

  /** After a failed pass, runs its requests one by one, so that only the faulty one fails. */
  async #runAlone(slices: readonly Slice[], error: unknown): Promise<void> {
    const [only, ...others] = slices;
    if (others.length === 0) {
      if (only) this.#fail(only.request, error);
      return;
    }
    for (const slice of slices) await this.#run([slice], this.#options.now());
  }

  async #computed({ request: job, drafts, logits: asked }: Slice, logits: Float32Array | undefined): Promise<void> {
    if (!job.samples && job.waitingTokens === 0) this.#finish(job, 'length');
    if (asked === 'none') return;
    try {
      const finish = await job.choose(job.drafts.slice(0, drafts), logits, this.#ends);
      if (!this.#queue.has(job)) return;
      // Drops rejected draft tokens. The last token is not in the cache.
      // A held request may have given its sequence back.
      job.lease?.sequence.truncate(job.tokens.length - 1);
      if (finish) this.#finish(job, finish);
      else this.#draftTokens.renew(job, drafts, this.#options.now());
    } catch (error) {
      if (!this.#queue.has(job)) return;
      // A request cancelled while its token was chosen keeps its tokens.
      if (job.request.signal?.aborted) this.#finish(job, 'cancelled');
      else this.#fail(job, error);
    }
  }

  #finish(job: Job, finish: TokenOutcome['finish']): void {
    const endedMs = this.#options.now();
    if (!this.#end(job)) return;
    this.#statistics.count(job.requestClass, finish === 'cancelled' ? 'cancelled' : 'finished');
    this.#statistics.count(job.requestClass, 'generatedTokens', job.generatedTokens);
    job.resolve(job.outcome(finish, endedMs));
  }

  #expire(job: Job): void {
    if (this.#end(job)) this.#reject(job, job.timeout());
  }

  /**
   * Removes the request and gives its sequence to the cache. @returns false if the cache refused the sequence; the
   * request then fails.
   */
  #end(job: Job): boolean {
    this.#queue.delete(job);
    try {
      if (job.lease) this.#machine.cache.release(job.lease, job.tokens);
      return true;
    } catch (error) {
      this.#reject(job, error);
      return false;
    }
  }

  /** The sequence of a failed request may be corrupt, so it is dropped. */
  #fail(job: Job, error: unknown): void {
    this.#queue.delete(job);
    if (job.lease) this.#machine.cache.discard(job.lease);
    this.#reject(job, error);
  }

  #reject(job: Job, error: unknown): void {
    this.#statistics.count(job.requestClass, 'failed');
    job.reject(error);
  }
}

/** Whether the promise, which must not reject, resolves within `ms`. */
async function settles(promise: Promise<void>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

const isLoss = (error: unknown): error is HearthError => error instanceof HearthError && error.code === 'device-lost';

// The scheduler with the engine's limits; benchmarks use it too.

export function engineScheduler(
  machine: Machine,
  options: Partial<Pick<SchedulerOptions, 'recover' | 'now' | 'device' | 'tunesWhileIdle'>> = {},
): Scheduler {
  return new Scheduler({
    ...machine,
    maxPendingPerClass: limits.generation.pendingRequestsPerClass,
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
    yieldToEventLoop: () => setImmediate(),
    ...options,
  });
}
