/** The scheduler as the engine runs it, which benchmarks measure too. */
import { setImmediate } from 'node:timers/promises';
import { limits } from '../limits.ts';
import { type Machine, Scheduler, type SchedulerOptions } from './scheduler.ts';

export function engineScheduler(
  machine: Machine,
  options: Partial<Pick<SchedulerOptions, 'recover' | 'now'>> = {},
): Scheduler {
  return new Scheduler({
    ...machine,
    maxPendingPerClass: limits.generation.pendingRequestsPerClass,
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
    yieldToEventLoop: () => setImmediate(),
    ...options,
  });
}
