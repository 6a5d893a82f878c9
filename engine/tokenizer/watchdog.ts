/** Stops synchronous work that takes too long. */
import { createContext, Script } from 'node:vm';

const context = createContext({ work: undefined });
const script = new Script('work()');

/** Thrown by `withDeadline`, and inside `work`. */
export class DeadlineError extends Error {}

/**
 * Runs `work` and stops it after `milliseconds`. V8 checks for termination in every loop and call, so only a single
 * native operation can overrun. `work` must not leave shared state inconsistent.
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
