/**
 * The one loop that drives a decoder: `schedule → run → sample → deliver`. Whose turn it is, the queue decides
 * (requestQueue.ts); here its decisions are carried out.
 */
import type { Decoder } from '../backend/backend.ts';
import { HearthError, invalidInput } from '../errors.ts';
import type { PrefixCache } from '../kv/prefixCache.ts';
import type { Snapshots } from '../kv/snapshots.ts';
import { limits } from '../limits.ts';
import { outputSize } from '../model/spec/spec.ts';
import type { SchedulerStatistics } from '../protocol/statistics.ts';
import { DeviceDraws, type DrawStep } from './deviceSampling.ts';
import { Guesses } from './draftTokens.ts';
import { Job, type TokenOutcome, type TokenRequest } from './job.ts';
import { MemoryRoom } from './memoryRoom.ts';
import type { StepLimits, StepSlice } from './nextStep.ts';
import { type QueueLimits, RequestQueue } from './requestQueue.ts';
import type { Speculation } from './speculation.ts';
import { StatisticsRecorder } from './statistics.ts';

/** What computes, and what it has computed. Both go when the device goes. */
export interface Machine {
  readonly decoder: Decoder;
  readonly cache: PrefixCache;
  /** Absent: nothing is kept on the disk. */
  readonly snapshots?: Pick<Snapshots, 'restorePrefix' | 'onIdle' | 'onRequest'>;
  /** Absent: nothing is guessed. */
  readonly speculation?: Speculation;
}

export interface SchedulerOptions extends Machine, Omit<QueueLimits, keyof StepLimits> {
  /** After `device-lost`: another machine, on which every request goes on from its own tokens. Absent: the requests fail. */
  readonly recover?: (loss: HearthError, lost: Decoder) => Promise<Machine>;
  /** Milliseconds, never going back. */
  readonly now: () => number;
  /** Lets the process take in messages (new requests, cancellations) between two steps. */
  readonly breathe: () => Promise<void>;
}

type Slice = StepSlice<Job>;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #queue: RequestQueue<Job>;
  #machine: Machine;
  readonly #statistics = new StatisticsRecorder();
  readonly #deviceDraws: DeviceDraws;
  readonly #room: MemoryRoom;
  readonly #guesses: Guesses;
  #working: Promise<void> | undefined;
  #closed = false;
  /** Choices that take long. */
  readonly #held = new Set<Promise<void>>();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#machine = options;
    this.#deviceDraws = new DeviceDraws(() => this.decoder);
    this.#queue = new RequestQueue({ ...options, ...this.#stepLimits() });
    this.#room = new MemoryRoom(this.#queue, () => this.#machine.cache, this.#statistics);
    this.#guesses = new Guesses(() => this.#machine, this.#queue, this.#statistics);
  }

  get decoder(): Decoder {
    return this.#machine.decoder;
  }

  /** Requests that wait or run. */
  get pending(): number {
    return this.#queue.size;
  }

  statistics(): SchedulerStatistics {
    return this.#statistics.snapshot();
  }

  /**
   * @returns how it ended; cancelling is an end, not an error.
   * @throws HearthError `context-overflow`, `busy` (too many wait), `timeout`, `unavailable` (the model is going), and
   * what the decoder throws.
   */
  submit(request: TokenRequest): Promise<TokenOutcome> {
    return new Promise((resolve, reject) => {
      this.#check(request);
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

  /** Ends every request as cancelled; afterwards nothing runs and nothing is taken. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
    // Those that were held are ended by the work that their release begins.
    while (this.#held.size > 0) await Promise.all(this.#held);
    await this.#working;
  }

  async #work(): Promise<void> {
    // A request submitted in the same turn takes part in the first decision.
    await this.#options.breathe();
    await this.#machine.snapshots?.onRequest();
    for (;;) {
      const nowMs = this.#options.now();
      this.#endUnwanted(nowMs);
      const step = this.#queue.next(nowMs);
      if (!step) {
        // Not in a `finally`: a request submitted before that ran would find a loop that takes no more.
        this.#working = undefined;
        if (!this.#closed) this.#machine.snapshots?.onIdle();
        return;
      }
      if (step.kind === 'admit') await this.#admit(step.request, nowMs);
      else await this.#run(step.slices, nowMs);
      await this.#options.breathe();
    }
  }

  #check({ prompt }: TokenRequest): void {
    const { decoder } = this;
    if (this.#closed)
      throw new HearthError('unavailable', 'The model is being unloaded; ask again once one is loaded.');
    if (prompt.length === 0) throw invalidInput('The prompt is empty.');
    if (prompt.length > decoder.contextTokens) {
      throw new HearthError(
        'context-overflow',
        `The prompt has ${prompt.length} tokens; the context holds ${decoder.contextTokens}. Shorten it or load the model with a longer context.`,
      );
    }
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
      await snapshots?.restorePrefix(job.tokens, job.requestClass);
      const lease = cache.acquire(job.tokens, job.requestClass);
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
    const draws = this.#deviceDraws.plan(fitting);
    if (draws) await this.#draw(fitting, draws, startMs);
    else await this.#compute(fitting, startMs);
  }

  async #draw(slices: readonly Slice[], step: DrawStep, startMs: number): Promise<void> {
    let drawn: number[][];
    try {
      drawn = await this.#deviceDraws.draw(step);
    } catch (error) {
      await this.#failed(slices, error);
      return;
    }
    const endMs = this.#options.now();
    this.#deviceDraws.took(step, endMs - startMs);
    this.#account(
      slices.map((slice, i) => ({ ...slice, tokens: drawn[i]?.length ?? 0 })),
      startMs,
      endMs,
    );
    this.#guesses.measured(slices, (endMs - startMs) / step.steps);
    for (const [i, { request }] of slices.entries())
      this.#drawn(request, drawn[i] ?? [], step.slices[i]?.forbidden ?? []);
  }

  /** @param forbidden what the device left out: whatever it sampled after that has changed is dropped. */
  #drawn(job: Job, tokens: readonly number[], forbidden: readonly number[]): void {
    try {
      let finish: TokenOutcome['finish'] | undefined;
      let delivered = 0;
      for (const token of tokens) {
        if (finish || job.request.signal?.aborted || job.request.drawing?.free()?.forbidden !== forbidden) break;
        finish = this.#deliver(job, token);
        delivered++;
      }
      job.request.drawing?.drew(delivered);
      this.#statistics.count(job.requestClass, 'deviceTokens', delivered);
      // What was drawn beyond the end is forgotten; the last token was never run.
      job.sequence.truncate(job.tokens.length - 1);
      if (finish) this.#finish(job, finish);
      else this.#guesses.renew(job, 0, this.#options.now());
    } catch (error) {
      this.#fail(job, error);
    }
  }

  #account(slices: readonly Slice[], startMs: number, endMs: number): void {
    this.#queue.charge(slices, endMs - startMs, endMs);
    this.#statistics.step(slices, endMs - startMs);
  }

  async #compute(slices: readonly Slice[], startMs: number): Promise<void> {
    let logits: Float32Array[];
    try {
      logits = await this.decoder.run(slices.map(work));
    } catch (error) {
      await this.#failed(slices, error);
      return;
    }
    const endMs = this.#options.now();
    this.#queue.measured(slices, endMs - startMs);
    this.#account(slices, startMs, endMs);
    this.#guesses.measured(slices, endMs - startMs);
    for (const [i, slice] of slices.entries())
      await this.#withoutWaiting(slice.request, this.#computed(slice, logits[i]));
  }

  /** A grammar may take a second to be compiled: the others go on meanwhile. */
  async #withoutWaiting(job: Job, computed: Promise<void>): Promise<void> {
    if (await settles(computed, limits.generation.choiceMs)) return;
    this.#queue.hold(job);
    const held = computed.finally(() => {
      this.#held.delete(held);
      this.#queue.release(job);
      this.#working ??= this.#work();
    });
    this.#held.add(held);
  }

  /** Every request keeps its tokens and is admitted anew; what was cached is computed again. */
  async #recover(loss: HearthError): Promise<void> {
    const { decoder, cache } = this.#machine;
    for (const job of this.#queue) {
      if (job.lease) cache.discard(job.lease);
      job.lease = undefined;
      // What runs took there says nothing of the next machine.
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
    const { maxTokensPerRun, maxSequencesPerRun } = this.decoder;
    return { chunkTokens: maxTokensPerRun, maxSequences: maxSequencesPerRun };
  }

  async #failed(slices: readonly Slice[], error: unknown): Promise<void> {
    if (isLoss(error)) await this.#recover(error);
    else await this.#runAlone(slices, error);
  }

  /** After a failed run: the request that it happened to fails alone. */
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
      const finish = await this.#choose(job, job.drafts.slice(0, drafts), logits);
      if (!this.#queue.has(job)) return;
      // What was guessed wrong is forgotten; the last token chosen was never run.
      // One that was held may have given its sequence back.
      job.lease?.sequence.truncate(job.tokens.length - 1);
      if (finish) this.#finish(job, finish);
      else this.#guesses.renew(job, drafts, this.#options.now());
    } catch (error) {
      if (!this.#queue.has(job)) return;
      // A request that was given up while its token was chosen keeps what it has.
      if (job.request.signal?.aborted) this.#finish(job, 'cancelled');
      else this.#fail(job, error);
    }
  }

  /**
   * Chooses the token after the last one, and one more for every guess that came true. Each is drawn from the model's own
   * distribution at its place, so guesses change nothing but the speed.
   * @param logits `[1 + drafts, vocabulary]`
   */
  async #choose(
    job: Job,
    drafts: readonly number[],
    logits: Float32Array | undefined,
  ): Promise<TokenOutcome['finish'] | undefined> {
    const width = outputSize(this.decoder.spec);
    if (logits?.length !== (1 + drafts.length) * width)
      throw new Error('The decoder gave no logits for a slice that asked for them.');
    for (let row = 0; row <= drafts.length; row++) {
      const chosen = job.request.choose(logits.subarray(row * width, (row + 1) * width));
      const token = typeof chosen === 'number' ? chosen : await chosen;
      const finish = this.#deliver(job, token);
      if (finish || token !== drafts[row]) return finish;
    }
    return undefined;
  }

  #deliver(job: Job, token: number): TokenOutcome['finish'] | undefined {
    const { request, tokens } = job;
    job.firstTokenMs ??= this.#options.now();
    tokens.push(token);
    if (request.deliver(token) === 'stop') return 'stop';
    if (job.generatedTokens >= request.maxTokens) return 'length';
    return tokens.length > this.decoder.contextTokens ? 'context' : undefined;
  }

  #finish(job: Job, finish: TokenOutcome['finish']): void {
    const endedMs = this.#options.now();
    try {
      this.#end(job);
    } catch (error) {
      this.#statistics.count(job.requestClass, 'failed');
      job.reject(error);
      return;
    }
    this.#statistics.count(job.requestClass, finish === 'cancelled' ? 'cancelled' : 'finished');
    this.#statistics.count(job.requestClass, 'generatedTokens', job.generatedTokens);
    job.resolve(job.outcome(finish, endedMs));
  }

  #expire(job: Job): void {
    this.#statistics.count(job.requestClass, 'failed');
    const seconds = Math.ceil((job.request.timeoutMs ?? 0) / 1000);
    const error = new HearthError(
      'timeout',
      `The answer took longer than ${seconds} s; what was read of it stays in the cache.`,
    );
    try {
      this.#end(job);
      job.reject(error);
    } catch (other) {
      job.reject(other);
    }
  }

  /** Gives the sequence back with what it holds. */
  #end(job: Job): void {
    this.#queue.delete(job);
    if (job.lease) this.#machine.cache.release(job.lease, job.tokens);
  }

  /** What a failed request has written is in doubt, so its sequence is dropped. */
  #fail(job: Job, error: unknown): void {
    this.#statistics.count(job.requestClass, 'failed');
    this.#queue.delete(job);
    if (job.lease) this.#machine.cache.discard(job.lease);
    job.reject(error);
  }
}

/** Whether the promise, which never rejects, is done within `ms`. */
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

function work({ request, tokens, drafts, logits }: Slice) {
  const { sequence } = request;
  const start = sequence.length;
  return {
    sequence,
    tokens: [...request.tokens.slice(start, start + tokens), ...request.drafts.slice(0, drafts)],
    logits,
  };
}
