import { limits } from '../limits.ts';

/** Weight of the newest latency in the running mean. */
const newest = 0.3;

/**
 * How long to wait after a key before asking. At least what the user set; half of the recent answer time where that is
 * more, because a slow machine should not begin work that the next key throws away.
 */
export class AdaptiveDebounce {
  private meanMs = 0;

  note(latencyMs: number): void {
    this.meanMs = this.meanMs === 0 ? latencyMs : this.meanMs + newest * (latencyMs - this.meanMs);
  }

  delayMs(leastMs: number): number {
    return Math.max(leastMs, Math.min(limits.completion.debounceMs, this.meanMs / 2));
  }
}
