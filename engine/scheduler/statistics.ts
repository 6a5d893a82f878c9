/** Counts the scheduler's work by request class, since the scheduler was created. */
import type { ClassStatistics, SchedulerStatistics } from '../protocol/statistics.ts';
import type { RequestClass, StepSlice } from './job.ts';

type Counted = Exclude<keyof ClassStatistics, 'longestWaitMs' | 'recentStepMs'>;

const recentSteps = 100;

const nothing = (): ClassStatistics => ({
  submitted: 0,
  finished: 0,
  cancelled: 0,
  failed: 0,
  refused: 0,
  cachedTokens: 0,
  computedTokens: 0,
  generatedTokens: 0,
  deviceTokens: 0,
  draftTokens: 0,
  acceptedTokens: 0,
  waitedMs: 0,
  longestWaitMs: 0,
  answerSteps: 0,
  recentStepMs: [],
});

export class StatisticsRecorder {
  readonly #classes: Record<RequestClass, ClassStatistics> = {
    keystroke: nothing(),
    chat: nothing(),
    summary: nothing(),
    'warm-up': nothing(),
  };
  #steps = 0;
  #slices = 0;
  #busyMs = 0;
  #suspensions = 0;

  count(requestClass: RequestClass, what: Counted, by = 1): void {
    this.#classes[requestClass][what] += by;
  }

  admitted(requestClass: RequestClass, waitedMs: number, cachedTokens: number): void {
    const counts = this.#classes[requestClass];
    counts.waitedMs += waitedMs;
    counts.longestWaitMs = Math.max(counts.longestWaitMs, waitedMs);
    counts.cachedTokens += cachedTokens;
  }

  step(slices: readonly StepSlice<{ readonly requestClass: RequestClass }>[], tookMs: number): void {
    this.#steps++;
    this.#slices += slices.length;
    this.#busyMs += tookMs;
    for (const { request, tokens, drafts } of slices)
      this.count(request.requestClass, 'computedTokens', tokens + drafts);
    const answering = slices.filter(({ tokens, logits }) => tokens === 1 && logits !== 'none');
    for (const name of new Set(answering.map(({ request }) => request.requestClass))) this.#answered(name, tookMs);
  }

  #answered(requestClass: RequestClass, tookMs: number): void {
    const counts = this.#classes[requestClass];
    counts.answerSteps++;
    counts.recentStepMs.push(tookMs);
    if (counts.recentStepMs.length > recentSteps) counts.recentStepMs.shift();
  }

  verified(requestClass: RequestClass, drafts: number, accepted: number): void {
    if (drafts === 0) return;
    this.count(requestClass, 'draftTokens', drafts);
    this.count(requestClass, 'acceptedTokens', accepted);
  }

  suspended(): void {
    this.#suspensions++;
  }

  snapshot(): SchedulerStatistics {
    return {
      steps: this.#steps,
      slices: this.#slices,
      busyMs: this.#busyMs,
      suspensions: this.#suspensions,
      classes: structuredClone(this.#classes),
    };
  }
}
