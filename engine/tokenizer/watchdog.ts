/** Ends synchronous work that takes too long. */
import { createContext, Script } from 'node:vm';

const context = createContext({ work: undefined });
const script = new Script('work()');

/** Thrown into `work` and out of `withDeadline`. */
export class DeadlineError extends Error {}

/**
 * Runs `work`, which is stopped wherever it is after `milliseconds`: V8 looks for the request to stop in every loop
 * and call, so only a single native operation can overrun. `work` must leave nothing half done that others see.
 */
export function withDeadline<T>(milliseconds: number, work: () => T): T {
  let result: { value: T } | undefined;
  const outer: unknown = context['work'];
  context['work'] = () => {
    result = { value: work() };
  };
  try {
    script.runInContext(context, { timeout: milliseconds });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new DeadlineError(`stopped after ${milliseconds} ms`);
  } finally {
    context['work'] = outer;
  }
  if (result === undefined) throw new Error('The work did not run.');
  return result.value;
}
