import { limits } from '../limits.ts';

/** How long to wait before the engine is started again after it ended unasked. Pure: the caller brings the clock. */
export class Backoff {
  private crashes = 0;

  /**
   * The wait in milliseconds after a crash of a run that lasted `ranMs`, or undefined when trying again is hopeless.
   */
  next(ranMs: number): number | undefined {
    if (ranMs >= limits.engine.healthyAfterMs) this.crashes = 0;
    const delayMs = limits.engine.restartDelaysMs[this.crashes];
    this.crashes += 1;
    return delayMs;
  }

  reset(): void {
    this.crashes = 0;
  }
}
