import { limits } from '../limits.ts';

export interface Place {
  document: string;
  prefix: string;
  suffix: string;
}

interface Entry extends Place {
  /** As the engine gave them, the likeliest first. */
  texts: readonly string[];
}

export interface Suggestion {
  text: string;
  /** Characters after the cursor that the text contains: closing marks that the editor added while it was typed. */
  replaces: number;
}

/**
 * Past suggestions, least recently used first out. A suggestion also answers for the places that typing along it leads
 * to, closing brackets that the editor puts behind the cursor included.
 */
export class CompletionCache {
  /** Most recently used last. */
  #entries: Entry[] = [];

  get size(): number {
    return this.#entries.length;
  }

  put(place: Place, texts: readonly string[]): void {
    this.#entries = this.#entries.filter((entry) => !samePlace(entry, place));
    this.#entries.push({ ...place, texts });
    if (this.#entries.length > limits.completion.cacheEntries) this.#entries.shift();
  }

  /** The rest of the cached suggestions after the typed text; empty if there was no suggestion. */
  get(place: Place): Suggestion[] | undefined {
    for (let index = this.#entries.length - 1; index >= 0; index--) {
      const entry = this.#entries[index];
      const suggestions = entry === undefined ? undefined : remainders(entry, place);
      if (entry === undefined || suggestions === undefined) continue;
      this.#entries.splice(index, 1);
      this.#entries.push(entry);
      return suggestions;
    }
    return undefined;
  }

  clear(): void {
    this.#entries = [];
  }
}

export const samePlace = (entry: Place, place: Place): boolean =>
  entry.document === place.document && entry.prefix === place.prefix && entry.suffix === place.suffix;

/** What was typed from one place to the other, and the closing marks that the editor added; undefined: they lead elsewhere. */
export function typedBetween(from: Place, to: Place): { readonly typed: string; readonly added: string } | undefined {
  if (from.document !== to.document || !to.prefix.startsWith(from.prefix)) return undefined;
  const typed = to.prefix.slice(from.prefix.length);
  const added = addedMarks(from.suffix, to.suffix);
  return added === undefined || added.length > typed.length ? undefined : { typed, added };
}

function remainders(entry: Entry, place: Place): Suggestion[] | undefined {
  if (samePlace(entry, place)) return entry.texts.map((text) => ({ text, replaces: 0 }));
  const between = typedBetween(entry, place);
  if (between === undefined || between.typed === '') return undefined;
  const { typed, added } = between;
  const left = entry.texts.flatMap((text) => {
    const rest = text.slice(typed.length);
    if (!text.startsWith(typed) || rest === '' || !containsInOrder(rest, added)) return [];
    return [{ text: rest, replaces: added.length }];
  });
  return left.length > 0 ? left : undefined;
}

const mostAdded = 4;

/** The closing marks that the editor added after the cursor, often none. The suffix may have been cut at its end. */
function addedMarks(before: string, now: string): string | undefined {
  for (let length = 0; length <= mostAdded; length++) {
    const added = now.slice(0, length);
    if (!/^[)\]}"'`]*$/.test(added)) return undefined;
    const rest = now.slice(length);
    const isCut = rest.length >= limits.completion.suffixChars - mostAdded - 1 && before.startsWith(rest);
    if (before === rest || (length > 0 && isCut)) return added;
  }
  return undefined;
}

/** VS Code shows a text in grey over a range as long as it holds the range's characters in their order. */
function containsInOrder(text: string, marks: string): boolean {
  let at = 0;
  for (const mark of marks) {
    at = text.indexOf(mark, at) + 1;
    if (at === 0) return false;
  }
  return true;
}

/** Weight of the newest latency in the running mean. */
const newest = 0.3;

/**
 * Delay after a key before a request. At least the user's setting; half of the recent latency if that is
 * longer, because a slow machine should not begin work that the next key cancels.
 */
export class AdaptiveDebounce {
  #meanMs = 0;

  note(latencyMs: number): void {
    this.#meanMs = this.#meanMs === 0 ? latencyMs : this.#meanMs + newest * (latencyMs - this.#meanMs);
  }

  delayMs(leastMs: number): number {
    return Math.max(leastMs, Math.min(limits.completion.debounceMs, this.#meanMs / 2));
  }
}
