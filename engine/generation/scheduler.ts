/** The one loop that drives a decoder: `schedule → run → sample → deliver`. */
import type { Decoder } from '../backend/backend.ts';
import type { Lease, SequencePool } from '../cache/sequencePool.ts';
import { HearthError, invalidInput } from '../errors.ts';
import { nextStep, type PendingRequest, type RequestClass, type StepSlice } from './nextStep.ts';

export interface TokenRequest {
  readonly requestClass: RequestClass;
  readonly prompt: readonly number[];
  /** 0: the prompt is computed and kept in the cache, nothing is sampled. */
  readonly maxTokens: number;
  /** @param logits `[vocabulary]` */
  readonly choose: (logits: Float32Array) => number;
  /** Called with every token as it is chosen. */
  readonly deliver: (token: number) => 'continue' | 'stop';
  readonly signal?: AbortSignal | undefined;
}

export interface TokenOutcome {
  readonly finish: 'stop' | 'length' | 'context' | 'cancelled';
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly submittedMs: number;
  /** Equal to `endedMs` when nothing was generated. */
  readonly firstTokenMs: number;
  readonly endedMs: number;
}

export interface SchedulerOptions {
  readonly decoder: Decoder;
  readonly pool: SequencePool;
  readonly chunkTokens: number;
  readonly maxPending: number;
  /** Milliseconds, never going back. */
  readonly now: () => number;
  /** Lets the process take in messages (new requests, cancellations) between two steps. */
  readonly breathe: () => Promise<void>;
}

interface Job {
  readonly id: number;
  readonly request: TokenRequest;
  readonly submittedMs: number;
  /** Prompt and answer so far. */
  readonly tokens: number[];
  lease?: Lease;
  firstTokenMs?: number;
  readonly resolve: (outcome: TokenOutcome) => void;
  readonly reject: (error: unknown) => void;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #jobs = new Map<number, Job>();
  #nextId = 0;
  #working: Promise<void> | undefined;
  #closed = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /** Requests that wait or run. */
  get pending(): number {
    return this.#jobs.size;
  }

  /**
   * @returns how it ended; cancelling is an end, not an error.
   * @throws HearthError `context-overflow`, `unavailable` (too many wait), and what the decoder throws.
   */
  submit(request: TokenRequest): Promise<TokenOutcome> {
    return new Promise((resolve, reject) => {
      this.#check(request);
      const id = this.#nextId++;
      const submittedMs = this.#options.now();
      this.#jobs.set(id, { id, request, submittedMs, tokens: [...request.prompt], resolve, reject });
      this.#working ??= this.#work();
    });
  }

  /** Ends every request as cancelled; afterwards nothing runs and nothing is taken. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
  }

  async #work(): Promise<void> {
    // A request submitted in the same turn takes part in the first decision.
    await this.#options.breathe();
    for (;;) {
      this.#endCancelled();
      const step = nextStep(this.#pendingRequests(), this.#options);
      if (!step) {
        // Not in a `finally`: a request submitted before that ran would find a loop that takes no more.
        this.#working = undefined;
        return;
      }
      if (step.kind === 'admit') this.#admit(step.id);
      else await this.#run(step.slices);
      await this.#options.breathe();
    }
  }

  #check({ prompt }: TokenRequest): void {
    const { decoder, maxPending } = this.#options;
    if (this.#closed)
      throw new HearthError('unavailable', 'The model is being unloaded; ask again once one is loaded.');
    if (prompt.length === 0) throw invalidInput('The prompt is empty.');
    if (prompt.length > decoder.contextTokens) {
      throw new HearthError(
        'context-overflow',
        `The prompt has ${prompt.length} tokens; the context holds ${decoder.contextTokens}. Shorten it or load the model with a longer context.`,
      );
    }
    if (this.#jobs.size >= maxPending) {
      throw new HearthError('unavailable', `${maxPending} requests are waiting already; try again when some are done.`);
    }
  }

  *#pendingRequests(): Generator<PendingRequest> {
    for (const { id, request, lease, tokens } of this.#jobs.values()) {
      yield {
        id,
        requestClass: request.requestClass,
        arrival: id,
        admitted: lease !== undefined,
        waitingTokens: tokens.length - (lease?.sequence.length ?? 0),
        samples: request.maxTokens > 0,
      };
    }
  }

  #endCancelled(): void {
    for (const job of this.#jobs.values()) {
      if (this.#closed || job.request.signal?.aborted) this.#finish(job, 'cancelled');
    }
  }

  #admit(id: number): void {
    const job = this.#job(id);
    try {
      job.lease = this.#options.pool.acquire(job.tokens, job.request.requestClass);
    } catch (error) {
      this.#fail(job, error);
    }
  }

  async #run(slices: readonly StepSlice[]): Promise<void> {
    const work = slices.map((slice) => {
      const job = this.#job(slice.id);
      const lease = leaseOf(job);
      const start = lease.sequence.length;
      const tokens = job.tokens.slice(start, start + slice.tokens);
      return { job, slice: { sequence: lease.sequence, tokens, logits: slice.logits } };
    });
    let logits: Float32Array[];
    try {
      logits = await this.#options.decoder.run(work.map(({ slice }) => slice));
    } catch (error) {
      for (const { job } of work) this.#fail(job, error);
      return;
    }
    for (const [i, { job, slice }] of work.entries()) {
      if (job.request.maxTokens === 0 && leaseOf(job).sequence.length === job.tokens.length)
        this.#finish(job, 'length');
      else if (slice.logits === 'last') this.#deliver(job, logits[i]);
    }
  }

  #deliver(job: Job, logits: Float32Array | undefined): void {
    const { request, tokens } = job;
    try {
      if (!logits) throw new Error('The decoder gave no logits for a slice that asked for them.');
      const token = request.choose(logits);
      job.firstTokenMs ??= this.#options.now();
      tokens.push(token);
      if (request.deliver(token) === 'stop') this.#finish(job, 'stop');
      else if (tokens.length - request.prompt.length >= request.maxTokens) this.#finish(job, 'length');
      else if (tokens.length > this.#options.decoder.contextTokens) this.#finish(job, 'context');
    } catch (error) {
      this.#fail(job, error);
    }
  }

  #finish(job: Job, finish: TokenOutcome['finish']): void {
    const endedMs = this.#options.now();
    this.#jobs.delete(job.id);
    try {
      if (job.lease) this.#options.pool.release(job.lease, job.tokens);
    } catch (error) {
      job.reject(error);
      return;
    }
    job.resolve({
      finish,
      cachedTokens: job.lease?.cachedTokens ?? 0,
      generatedTokens: job.tokens.length - job.request.prompt.length,
      submittedMs: job.submittedMs,
      firstTokenMs: job.firstTokenMs ?? endedMs,
      endedMs,
    });
  }

  /** What a failed request has written is in doubt, so its sequence is dropped. */
  #fail(job: Job, error: unknown): void {
    this.#jobs.delete(job.id);
    if (job.lease) this.#options.pool.discard(job.lease);
    job.reject(error);
  }

  #job(id: number): Job {
    const job = this.#jobs.get(id);
    if (!job) throw new Error(`The step names request ${id}, which is not pending.`);
    return job;
  }
}

function leaseOf(job: Job): Lease {
  if (!job.lease) throw new Error(`Request ${job.id} runs without a sequence.`);
  return job.lease;
}
