/**
 * Sort key for files by last use. A date in the future comes from before the clock was set back, so such a file counts
 * as older than all others.
 */
export const usedOrder = (ms: number): number => (ms > Date.now() + toleranceMs ? ms - Number.MAX_SAFE_INTEGER : ms);

/** Tolerated difference between this clock and the file system's, which may be a server's. */
const toleranceMs = 60_000;
