/** The lines of a chunk that answer a question, with the signature and the names they stand in. Pure. */

export interface Stretch {
  /** From 1, both included. */
  readonly firstLine: number;
  readonly lastLine: number;
}

/** What is read well at once; a smaller chunk goes whole. */
const excerptLines = 20;
const wholeLines = 26;
/** A smaller stretch tells nothing: it grows into its file. */
const leastLines = 5;
/** Two stretches this close are one. */
const joinedGap = 3;
/** A heading further above than this is named beside the lines instead of standing in them. */
const headingReach = 6;

/** How much a line says about the question. */
export type LineScore = (line: string, number: number) => number;

/** The best lines of a chunk. `headings`: first lines of the definitions that may enclose them. */
export function excerptOf(
  lines: readonly string[],
  chunk: Stretch,
  score: LineScore,
  headings: readonly number[],
): Stretch {
  const length = chunk.lastLine - chunk.firstLine + 1;
  if (length <= wholeLines) return grown(chunk, lines);
  const scores = Array.from({ length }, (_, at) => score(lines[chunk.firstLine - 1 + at] ?? '', chunk.firstLine + at));
  let best = 0;
  let bestSum = Number.NEGATIVE_INFINITY;
  for (let start = 0; start <= length - excerptLines; start++) {
    // The middle of what matched should lie in the middle of the lines.
    let sum = 0;
    for (let at = 0; at < excerptLines; at++) {
      sum += (scores[start + at] ?? 0) * (1 - Math.abs(at - excerptLines / 2) / (2 * excerptLines));
    }
    if (sum > bestSum) [best, bestSum] = [start, sum];
  }
  const firstLine = chunk.firstLine + best;
  const heading = headings.findLast((line) => line <= firstLine && line >= firstLine - headingReach);
  return grown(
    { firstLine: Math.max(chunk.firstLine, heading ?? firstLine), lastLine: firstLine + excerptLines - 1 },
    lines,
  );
}

/** To both sides, until it holds enough lines that are not blank. */
function grown({ firstLine, lastLine }: Stretch, lines: readonly string[]): Stretch {
  const last = lines.length - (lines.at(-1) === '' ? 1 : 0);
  const filled = (): number => lines.slice(firstLine - 1, lastLine).filter((line) => line.trim() !== '').length;
  while (filled() < leastLines && (firstLine > 1 || lastLine < last)) {
    firstLine = Math.max(1, firstLine - 1);
    lastLine = Math.min(last, lastLine + 1);
  }
  return { firstLine, lastLine };
}

/** Whether two stretches of a file are better one. */
export const touches = (a: Stretch, b: Stretch): boolean =>
  a.firstLine <= b.lastLine + joinedGap && b.firstLine <= a.lastLine + joinedGap;

/** The words of a text, for `areTwins`. */
export const wordsOf = (text: string): ReadonlySet<string> => new Set(text.match(/[\p{L}\p{N}_$]+/gu) ?? []);

const twinShare = 0.8;
const leastTwinWords = 6;

/** Whether two texts say the same, as builds of one source for several targets do. */
export function areTwins(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  if (small.size < leastTwinWords || small.size < twinShare * large.size) return false;
  let shared = 0;
  for (const word of small) if (large.has(word)) shared++;
  return shared >= twinShare * (small.size + large.size - shared);
}
