/** Stretches of other files that resemble the lines at the cursor, and how a list of them changes as little as it can. */
import { limits } from '../limits.ts';

export interface Snippet {
  path: string;
  text: string;
}

const windowLines = 20;
/** Below, two stretches share no more than the language's own words. */
const leastLikeness = 0.2;

/** The stretch of each file that is most like `around`, the best file first, at most `count`. */
export function similarStretches(around: string, files: readonly Snippet[], count: number): Snippet[] {
  const wanted = wordsOf(around);
  const best = files.map(({ path, text }) => ({ path, ...bestWindow(wanted, text.split('\n')) }));
  return best
    .filter(({ likeness }) => likeness >= leastLikeness)
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, count)
    .map(({ path, text }) => ({ path, text }));
}

function bestWindow(wanted: ReadonlySet<string>, lines: readonly string[]): { likeness: number; text: string } {
  let best = { likeness: 0, text: '' };
  for (let start = 0; start < lines.length; start += windowLines / 2) {
    const text = lines.slice(start, start + windowLines).join('\n');
    const likeness = jaccard(wanted, wordsOf(text));
    if (likeness > best.likeness) best = { likeness, text };
  }
  return best;
}

const wordsOf = (text: string): Set<string> => new Set(text.match(/[\p{L}\p{N}_$]{2,}/gu) ?? []);

/** Jaccard, 1912: what both share, of all that either has. */
function jaccard(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let shared = 0;
  for (const word of a) if (b.has(word)) shared += 1;
  return shared / Math.max(1, a.size + b.size - shared);
}

/** As many as have room; of a long one that has none, the lines that are most like `around`. */
export function fitting(snippets: readonly Snippet[], around: string, maxChars: number): Snippet[] {
  const wanted = wordsOf(around);
  let room = maxChars;
  return snippets.flatMap(({ path, text }) => {
    const lines = text.split('\n');
    const isCut = text.length > room && lines.length > windowLines;
    // Where none has a word in common, the beginning says what it is.
    const best = isCut ? bestWindow(wanted, lines).text || lines.slice(0, windowLines).join('\n') : text;
    if (best.length > room) return [];
    room -= best.length;
    return [{ path, text: best }];
  });
}

/**
 * The new list in the old one's order: what stays keeps its place and what is new comes last, so that the prompt's
 * beginning, and with it the engine's cache, stays.
 */
export function keepOrder(before: readonly Snippet[], now: readonly Snippet[]): Snippet[] {
  const same = (a: Snippet) => (b: Snippet) => a.path === b.path && a.text === b.text;
  const kept = before.filter((old) => now.some(same(old)));
  return [...kept, ...now.filter((own) => !kept.some(same(own)))];
}

/**
 * The snippets of each file's prompt. They stay while keys are typed, because the engine reads everything after a changed
 * one again. A pause brings those of the cursor's new place, once the engine has read the prompt with them.
 */
export class SnippetLists {
  /** By document, most recent last. */
  readonly #lists = new Map<string, readonly Snippet[]>();

  of(document: string): readonly Snippet[] | undefined {
    return this.#lists.get(document);
  }

  keep(document: string, snippets: readonly Snippet[]): void {
    this.#lists.delete(document);
    this.#lists.set(document, snippets);
    const [oldest] = this.#lists.keys();
    if (oldest !== undefined && this.#lists.size > limits.completion.visitedFiles) this.#lists.delete(oldest);
  }
}
