/**
 * How far back a sequence can go. Layers with a sliding window forget what no later token sees; what is seen from some
 * lengths they keep, so that a sequence can be truncated to those.
 */

/** Tokens that a sliding window keeps beyond what the next token sees, so that a short way back costs nothing. */
export const rewindTokens = 256;

/** What is seen from every multiple of this is kept. */
export const snapshotTokens = (slidingWindow: number): number => Math.max(512, 4 * slidingWindow);

/** Lengths that one sequence keeps besides: what bounds their memory. */
export const mostMarks = 8;

/** Of the lengths at which a rewind is likely those that are kept: the first, which conversations share, and the last ones. */
export function chosenMarks(lengths: readonly number[]): number[] {
  const ascending = [...new Set(lengths)].filter((length) => length > 0).sort((a, b) => a - b);
  return ascending.length > mostMarks ? [...ascending.slice(0, 1), ...ascending.slice(1 - mostMarks)] : ascending;
}
