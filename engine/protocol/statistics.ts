/** The scheduler's counters by request class, as the protocol carries them. */
import * as z from 'zod';

const classStatistics = z.object({
  submitted: z.number(),
  finished: z.number(),
  cancelled: z.number(),
  /** Includes timeouts. */
  failed: z.number(),
  /** Refused because too many requests waited; not counted as submitted. */
  refused: z.number(),
  cachedTokens: z.number(),
  /** Prompt tokens, and each sampled token that was fed back. */
  computedTokens: z.number(),
  generatedTokens: z.number(),
  /** Answer tokens sampled on the device, including those of running requests; the host sampled the others. */
  deviceTokens: z.number(),
  /** Draft tokens that were verified. */
  draftTokens: z.number(),
  /** Draft tokens that were accepted. */
  acceptedTokens: z.number(),
  /** Total time from submission to admission. */
  waitedMs: z.number(),
  longestWaitMs: z.number(),
  /** Decode passes. A request of a better class waits for one of them. */
  answerSteps: z.number(),
  /** Milliseconds of the last 100 decode passes. */
  recentStepMs: z.array(z.number()),
});
export type ClassStatistics = z.infer<typeof classStatistics>;

export const schedulerStatistics = z.object({
  steps: z.number(),
  /** Total over all steps; divided by `steps`, the mean batch size. */
  slices: z.number(),
  busyMs: z.number(),
  /** Requests that gave their sequence back because better ones needed memory. */
  suspensions: z.number(),
  classes: z.object({
    keystroke: classStatistics,
    chat: classStatistics,
    summary: classStatistics,
    'warm-up': classStatistics,
  }),
});
export type SchedulerStatistics = z.infer<typeof schedulerStatistics>;
