/**
 * Past suggestions: cached for the places that typing along them leads to, and an acceptance threshold learned from the user.
 * Pure.
 */
import { limits } from '../limits.ts';
import type { Confidence } from '../settings.ts';

export interface Place {
  document: string;
  prefix: string;
  suffix: string;
}

interface Entry extends Place {
  /** As returned by the engine, likeliest first. */
  texts: readonly string[];
}

export interface Suggestion {
  text: string;
  /** Characters after the cursor that the text contains: closing marks that the editor added while it was typed. */
  replaces: number;
}

/**
 * Past suggestions (LRU). A suggestion also serves the places that typing along it leads to, including closing brackets
 * that the editor adds after the cursor.
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

/** The text typed between two places, and the closing brackets that the editor added; undefined if one does not lead to the other. */
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

/** VS Code shows ghost text over a range only if the text contains the range's characters in order. */
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
 * Delay after a key before a request: the user's setting, or half of the recent latency if that is longer, because a slow
 * machine should not start work that the next key cancels.
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

/** Share of shown suggestions that the user should accept. `eager` shows every suggestion, so there is nothing to adapt. */
const wantedShare: Readonly<Record<Exclude<Confidence, 'eager'>, number>> = { balanced: 0.3, quiet: 0.6 };
/** Change of the strictness per suggestion; some 50 suggestions move it from one end to the other. */
const step = 0.08;
/** The strictness is between -1 and 1 (`strictness` of the engine's protocol). */
const strictest = 1;
/** Entries by model and language; the most recently used are kept. */
const mostKept = 200;
/** A user who continues typing sooner has not read the suggestion. */
const readMs = 400;
const storageKey = 'hearth.completionStrictness';

/** The part of `vscode.Memento` that is needed. */
interface Memory {
  get<T>(key: string, usual: T): T;
  update(key: string, value: unknown): Thenable<void>;
}

interface Shown {
  readonly key: string;
  readonly confidence: Exclude<Confidence, 'eager'>;
  readonly place: Place;
  readonly text: string;
  readonly sinceMs: number;
}

/**
 * Learns by model and language how sure the model must be for this user. Each shown suggestion moves the strictness: down if
 * it was accepted, up if not, in a ratio that balances when the wanted share is accepted (stochastic approximation;
 * Robbins and Monro 1951).
 */
export class Acceptance {
  readonly #memory: Memory;
  readonly #now: () => number;
  /** Most recently used last. */
  readonly #strictness: Map<string, number>;
  #shown: Shown | undefined;

  constructor(memory: Memory, now: () => number = Date.now) {
    this.#memory = memory;
    this.#now = now;
    this.#strictness = new Map(Object.entries(memory.get<Record<string, number>>(storageKey, {})));
  }

  /** 0 until something is learned. */
  strictness(model: string, languageId: string): number {
    return this.#strictness.get(keyOf(model, languageId)) ?? 0;
  }

  /** @param text the first of the suggestions at the place, as VS Code got it. */
  shown(model: string, languageId: string, confidence: Confidence, place: Place, text: string): void {
    const key = keyOf(model, languageId);
    this.#shown = confidence === 'eager' ? undefined : { key, confidence, place, text, sinceMs: this.#now() };
  }

  accepted(): void {
    if (this.#shown) this.#note(this.#shown, true);
  }

  /**
   * The user is at another place. A suggestion typed to its end counts as accepted; one that is still being typed says nothing
   * yet.
   */
  movedTo(place: Place): void {
    const shown = this.#shown;
    if (!shown) return;
    const typed = typedBetween(shown.place, place)?.typed;
    const follows = typed !== undefined && shown.text.startsWith(typed);
    if (follows && typed.length < shown.text.length) return;
    if (follows || this.#now() - shown.sinceMs >= readMs) this.#note(shown, follows);
    this.#shown = undefined;
  }

  #note({ key, confidence }: Shown, taken: boolean): void {
    this.#shown = undefined;
    const share = wantedShare[confidence];
    const moved = (this.#strictness.get(key) ?? 0) + step * (share - (taken ? 1 : 0));
    this.#strictness.delete(key);
    this.#strictness.set(key, Math.min(strictest, Math.max(-strictest, moved)));
    const [oldest] = this.#strictness.keys();
    if (this.#strictness.size > mostKept && oldest !== undefined) this.#strictness.delete(oldest);
    void this.#memory.update(storageKey, Object.fromEntries(this.#strictness));
  }
}

const keyOf = (model: string, languageId: string): string => `${languageId} ${model}`;
