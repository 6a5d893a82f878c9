/** What each request guesses to come next, and what that costs and yields. */
import type { Decoder } from '../backend/backend.ts';
import type { Job } from './job.ts';
import type { StepSlice } from './nextStep.ts';
import type { RequestQueue } from './requestQueue.ts';
import type { Speculation } from './speculation.ts';
import type { StatisticsRecorder } from './statistics.ts';

interface Guesser {
  readonly decoder: Pick<Decoder, 'contextTokens'>;
  readonly speculation?: Speculation;
}

export class Guesses {
  readonly #machine: () => Guesser;
  readonly #queue: Pick<RequestQueue<Job>, 'isPressed'>;
  readonly #statistics: StatisticsRecorder;

  /** `machine`: after a loss it is another one. */
  constructor(machine: () => Guesser, queue: Pick<RequestQueue<Job>, 'isPressed'>, statistics: StatisticsRecorder) {
    this.#machine = machine;
    this.#queue = queue;
    this.#statistics = statistics;
  }

  /** What a run took: of one decoding sequence it says what guesses cost. */
  measured([first, second]: readonly StepSlice<Job>[], runMs: number): void {
    if (first?.tokens === 1 && !second) first.request.drafter?.ran(first.drafts, runMs);
  }

  /** After a step: looks at what came of the guesses that it verified, and makes new ones. */
  renew(job: Job, verified: number, nowMs: number): void {
    const { speculation, decoder } = this.#machine();
    if (!speculation) return;
    const fresh = job.tokens.slice(job.verifiedTokens);
    job.verifiedTokens = job.tokens.length;
    if (job.drafter) {
      for (const token of fresh) job.drafter.take(token);
      this.#statistics.guessed(job.requestClass, verified, fresh.length - 1);
    } else {
      job.drafter = speculation.drafter(job.tokens);
    }
    const room = Math.min(job.request.maxTokens - job.generatedTokens, decoder.contextTokens - job.tokens.length);
    job.drafts = job.drafter.propose(Math.max(0, room), this.#queue.isPressed(job, nowMs));
  }
}
