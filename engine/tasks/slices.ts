/** Runs long synchronous work in slices, so that completions, cancellations and status requests are not delayed. */
import { setImmediate } from 'node:timers/promises';
import { HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Sliced } from '../tokenizer/tokenizer.ts';

export interface SliceOptions {
  readonly signal?: AbortSignal | undefined;
  /** By `performance.now()`. */
  readonly deadlineMs?: number | undefined;
}

/** @throws HearthError `cancelled` or `timeout` between two slices, which abandons the work. */
export async function runInSlices<Result>(
  work: Sliced<Result>,
  { signal, deadlineMs = Number.POSITIVE_INFINITY }: SliceOptions = {},
): Promise<Result> {
  for (;;) {
    throwIfAborted(signal);
    const started = performance.now();
    if (started > deadlineMs) throw new HearthError('timeout', 'The request timed out before its prompt was prepared.');
    while (performance.now() - started < limits.generation.sliceMs) {
      const step = work.next();
      if (step.done) return step.value;
    }
    await nextTurn();
  }
}

let lastTurn: Promise<void> = Promise.resolve();

/** Runs one slice in each turn of the event loop, for all requests together. */
function nextTurn(): Promise<void> {
  lastTurn = lastTurn.then(() => setImmediate());
  return lastTurn;
}
