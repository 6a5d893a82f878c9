/** Gives each request its draft tokens, and measures their cost and their acceptance. */
import type { Decoder } from '../backend/backend.ts';
import type { Job } from './job.ts';
import type { StepSlice } from './nextStep.ts';
import type { RequestQueue } from './requestQueue.ts';
import type { Speculation } from './speculation.ts';
import type { StatisticsRecorder } from './statistics.ts';

interface Machine {
  readonly decoder: Pick<Decoder, 'contextTokens'>;
  readonly speculation?: Speculation;
}

export class DraftTokens {
  readonly #machine: () => Machine;
  readonly #queue: Pick<RequestQueue<Job>, 'isTypingBefore'>;
  readonly #statistics: StatisticsRecorder;

  /** @param machine the current one; it is replaced after a device loss. */
  constructor(
    machine: () => Machine,
    queue: Pick<RequestQueue<Job>, 'isTypingBefore'>,
    statistics: StatisticsRecorder,
  ) {
    this.#machine = machine;
    this.#queue = queue;
    this.#statistics = statistics;
  }

  /** Only a pass of one decoding sequence shows the cost of draft tokens. */
  measured([first, second]: readonly StepSlice<Job>[], passMs: number): void {
    if (first?.tokens === 1 && !second) first.request.drafter?.ran(first.drafts, passMs);
  }

  /** After a step that verified `verified` draft tokens: counts the accepted ones and proposes new ones. */
  renew(job: Job, verified: number, nowMs: number): void {
    const { speculation, decoder } = this.#machine();
    if (!speculation) return;
    const fresh = job.tokens.slice(job.verifiedTokens);
    job.verifiedTokens = job.tokens.length;
    if (job.drafter) {
      for (const token of fresh) job.drafter.take(token);
      this.#statistics.verified(job.requestClass, verified, fresh.length - 1);
    } else {
      job.drafter = speculation.drafter(job.tokens);
    }
    const room = Math.min(job.request.maxTokens - job.generatedTokens, decoder.contextTokens - job.tokens.length);
    job.drafts = job.drafter.propose(Math.max(0, room), this.#queue.isTypingBefore(job, nowMs));
  }
}
