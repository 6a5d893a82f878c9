/** The scheduler's counters as they cross the channel, by request class. */
import * as z from 'zod';

const classStatistics = z.object({
  submitted: z.number(),
  finished: z.number(),
  cancelled: z.number(),
  /** Timeouts among them. */
  failed: z.number(),
  /** Refused because too many waited; not among the submitted. */
  refused: z.number(),
  cachedTokens: z.number(),
  /** Of prompts, and each sampled one that was fed back. */
  computedTokens: z.number(),
  generatedTokens: z.number(),
  /** Tokens of answers, running ones included, that the device sampled itself; the host sampled the others from logits. */
  deviceTokens: z.number(),
  /** Guesses at coming tokens that were verified, and how many of them came true. */
  draftTokens: z.number(),
  acceptedTokens: z.number(),
  /** From submission to admission, over all that were admitted. */
  waitedMs: z.number(),
  longestWaitMs: z.number(),
  /** Runs that computed tokens of answers, not of prompts: what a request of a better class waits for. */
  answerSteps: z.number(),
  /** Milliseconds of the last 100 of them. */
  recentStepMs: z.array(z.number()),
});
export type ClassStatistics = z.infer<typeof classStatistics>;

export const schedulerStatistics = z.object({
  steps: z.number(),
  /** Over all steps: divided by `steps`, how many sequences a run took. */
  slices: z.number(),
  busyMs: z.number(),
  /** Requests that gave their sequence back because better ones needed the memory. */
  suspensions: z.number(),
  classes: z.object({
    keystroke: classStatistics,
    chat: classStatistics,
    summary: classStatistics,
    'warm-up': classStatistics,
  }),
});
export type SchedulerStatistics = z.infer<typeof schedulerStatistics>;
