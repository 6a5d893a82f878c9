/**
 * For sorting files by when they were used. A date in the future is of the time before the clock was set back, so such a file
 * comes before all that were used since.
 */
export const usedOrder = (ms: number): number => (ms > Date.now() + toleranceMs ? ms - Number.MAX_SAFE_INTEGER : ms);

/** Between this clock and the one that dates files, which may be a server's. */
const toleranceMs = 60_000;
