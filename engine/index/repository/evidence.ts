/** Scores a chunk's text for a question by more than common words. Pure. */
import type { Query } from './query.ts';

/** Added to a score of at most 1. */
const weights = {
  literal: 0.5,
  flag: 0.8,
  flagRead: 0.5,
  name: 0.15,
  definition: 0.5,
  wantedDefinition: 1,
  call: 0.9,
  pair: 0.05,
  pairs: 0.25,
  raise: 0.15,
};

const escaped = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);

const partOfName = /[\p{L}\p{N}_$]/u;
/** With type arguments, or as a macro. */
const callStart = /(?:<[^()\n]{0,60}>|!|::<[^()\n]{0,60}>)?\s*\(/y;

/** Whether a text contains a name as a whole word, and calls it; undefined if it doesn't contain it. */
function usesOf(text: string, name: string): 'named' | 'called' | undefined {
  let found: 'named' | undefined;
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + name.length)) {
    const end = at + name.length;
    if (partOfName.test(text[at - 1] ?? '') || partOfName.test(text[end] ?? '')) continue;
    callStart.lastIndex = end;
    if (callStart.test(text)) return 'called';
    found = 'named';
  }
  return found;
}

interface Read {
  readonly text: string;
  readonly lower: string;
  /** Names that the chunk defines. */
  readonly defined: ReadonlySet<string>;
  readonly isTest: boolean;
}

export class Evidence {
  readonly #query: Query;
  readonly #names: readonly string[];
  readonly #flags: readonly { readonly long: string; readonly variable: RegExp }[];
  readonly #literals: readonly string[];

  /** @param names the names in the question that are worth searching for. */
  constructor(query: Query, names: readonly string[]) {
    this.#query = query;
    this.#names = names;
    this.#flags = query.flags.map((flag) => ({
      long: flag.toLowerCase(),
      variable: new RegExp(flag.toLowerCase().split(/[-_]/).map(escaped).join('[-_]?'), 'i'),
    }));
    this.#literals = query.literals.slice(0, 30).map((literal) => literal.toLowerCase());
  }

  of(chunk: Read): number {
    return this.#ofNames(chunk) + this.#ofLiterals(chunk) + this.#ofFlags(chunk) + this.#ofPairs(chunk);
  }

  /** Score of one line, for choosing an excerpt. */
  ofLine(line: string): number {
    const lower = line.toLowerCase();
    const named = this.#names.filter((name) => usesOf(line, name) !== undefined).length;
    const literal = this.#literals.filter((own) => lower.includes(own)).length;
    const flagged = this.#flags.filter(({ variable }) => variable.test(lower)).length;
    return named + 2 * literal + 2 * flagged;
  }

  #ofNames({ text, defined, isTest }: Read): number {
    const { relation } = this.#query;
    let sum = 0;
    for (const name of this.#names) {
      const use = usesOf(text, name);
      if (use === undefined) continue;
      sum += weights.name;
      const isDefined = defined.has(name);
      if (relation === 'callers') sum += use === 'called' && !isDefined ? weights.call : 0;
      else if (relation === 'tests') sum += isTest ? weights.call : 0;
      else if (isDefined) sum += relation === 'definition' ? weights.wantedDefinition : weights.definition;
    }
    // Many names in a question describe one file; they are not that many questions.
    return sum / Math.sqrt(Math.max(1, this.#names.length));
  }

  #ofLiterals({ lower }: Read): number {
    const found = this.#literals.filter((literal) => lower.includes(literal));
    if (found.length === 0) return 0;
    const chars = found.reduce((sum, { length }) => sum + length, 0);
    const all = this.#literals.reduce((sum, { length }) => sum + length, 0);
    const raises = /\b(?:raise|throw|panic|bail|errorf?|exception|fatal|warn)\b/.test(lower) ? weights.raise : 0;
    return weights.literal * (0.5 + chars / (2 * all)) + raises;
  }

  /** The declaration of a flag has its typed form; code that reads it has a variable. */
  #ofFlags({ lower }: Read): number {
    return this.#flags.reduce((sum, { long, variable }) => {
      if (lower.includes(`-${long}`) || lower.includes(`"${long}"`) || lower.includes(`'${long}'`)) {
        return sum + weights.flag;
      }
      return sum + (variable.test(lower) ? weights.flagRead : 0);
    }, 0);
  }

  #ofPairs({ lower }: Read): number {
    const { pairs } = this.#query;
    const found = pairs.filter((pair) => lower.includes(pair)).length;
    return Math.min(weights.pairs, weights.pair * found);
  }
}

/** Chooses the lines of a chunk that answer a question, with the enclosing definitions. Pure. */

export interface Stretch {
  /** From 1, both included. */
  readonly firstLine: number;
  readonly lastLine: number;
}

/** Lines of an excerpt. A chunk of up to `wholeLines` is kept whole. */
const excerptLines = 20;
const wholeLines = 26;
/** A smaller stretch is extended into its file. */
const leastLines = 5;
/** Two stretches this close are joined. */
const joinedGap = 3;
/** A heading further above than this is named separately instead of being included. */
const headingReach = 6;

/** Score of a line for the question. */
type LineScore = (line: string, number: number) => number;

/** The best lines of a chunk. `headingIn`: the last line of a stretch that begins a definition. */
export function excerptOf(
  lines: readonly string[],
  chunk: Stretch,
  score: LineScore,
  headingIn: (stretch: Stretch) => number | undefined,
): Stretch {
  const length = chunk.lastLine - chunk.firstLine + 1;
  if (length <= wholeLines) return grown(chunk, lines);
  const scores = Array.from({ length }, (_, at) => score(lines[chunk.firstLine - 1 + at] ?? '', chunk.firstLine + at));
  let best = 0;
  let bestSum = Number.NEGATIVE_INFINITY;
  for (let start = 0; start <= length - excerptLines; start++) {
    // Centres the excerpt on the matches.
    let sum = 0;
    for (let at = 0; at < excerptLines; at++) {
      sum += (scores[start + at] ?? 0) * (1 - Math.abs(at - excerptLines / 2) / (2 * excerptLines));
    }
    if (sum > bestSum) [best, bestSum] = [start, sum];
  }
  const firstLine = chunk.firstLine + best;
  const heading = headingIn({ firstLine: Math.max(chunk.firstLine, firstLine - headingReach), lastLine: firstLine });
  return grown({ firstLine: heading ?? firstLine, lastLine: firstLine + excerptLines - 1 }, lines);
}

/** Grows in both directions until it has enough lines that are not blank. */
function grown({ firstLine, lastLine }: Stretch, lines: readonly string[]): Stretch {
  const last = lines.length - (lines.at(-1) === '' ? 1 : 0);
  const filled = (): number => lines.slice(firstLine - 1, lastLine).filter((line) => line.trim() !== '').length;
  while (filled() < leastLines && (firstLine > 1 || lastLine < last)) {
    firstLine = Math.max(1, firstLine - 1);
    lastLine = Math.min(last, lastLine + 1);
  }
  return { firstLine, lastLine };
}

/** Whether two stretches of a file should be joined. */
export const touches = (a: Stretch, b: Stretch): boolean =>
  a.firstLine <= b.lastLine + joinedGap && b.firstLine <= a.lastLine + joinedGap;

/** The words of a text, for `areTwins`. */
export const wordsOf = (text: string): ReadonlySet<string> => new Set(text.match(/[\p{L}\p{N}_$]+/gu) ?? []);

const twinShare = 0.8;
const leastTwinWords = 6;

/** Whether two texts are nearly equal, like builds of one source for several targets. */
export function areTwins(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const [small, large] = a.size < b.size ? [a, b] : [b, a];
  if (small.size < leastTwinWords || small.size < twinShare * large.size) return false;
  let shared = 0;
  for (const word of small) if (large.has(word)) shared++;
  return shared >= twinShare * (small.size + large.size - shared);
}
