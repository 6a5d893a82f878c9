/** The scheduler's counters by request class, as sent to clients. */
import * as z from 'zod';

const classStatistics = z.object({
  submitted: z.number(),
  finished: z.number(),
  cancelled: z.number(),
  /** Includes timeouts. */
  failed: z.number(),
  /** Rejected because the queue was full. Not counted as submitted. */
  refused: z.number(),
  cachedTokens: z.number(),
  /** Tokens computed: prompt tokens, and sampled tokens fed back. */
  computedTokens: z.number(),
  generatedTokens: z.number(),
  /** Answer tokens sampled on the device, including running requests. The host samples the others from logits. */
  deviceTokens: z.number(),
  /** Draft tokens that were verified. */
  draftTokens: z.number(),
  /** Draft tokens that were accepted. */
  acceptedTokens: z.number(),
  /** Total time from submission to admission. */
  waitedMs: z.number(),
  longestWaitMs: z.number(),
  /** Forward passes for decode, not prefill. A request of a higher class waits for at most one of them. */
  answerSteps: z.number(),
  /** Durations of the last 100 of them. */
  recentStepMs: z.array(z.number()),
});
export type ClassStatistics = z.infer<typeof classStatistics>;

export const schedulerStatistics = z.object({
  steps: z.number(),
  /** Sum over all steps; divided by `steps`, the mean batch size. */
  slices: z.number(),
  busyMs: z.number(),
  /** Requests that were pre-empted to free memory for higher classes. */
  suspensions: z.number(),
  classes: z.object({
    keystroke: classStatistics,
    chat: classStatistics,
    summary: classStatistics,
    'warm-up': classStatistics,
  }),
});
export type SchedulerStatistics = z.infer<typeof schedulerStatistics>;
