import { limits } from '../limits.ts';

interface Entry {
  document: string;
  prefix: string;
  suffix: string;
  multiline: boolean;
  /** As the model gave it; it is trimmed anew wherever it is shown. */
  text: string;
}

export interface Place {
  document: string;
  prefix: string;
  suffix: string;
}

export interface Hit {
  /** What is left of the model's text after what has been typed of it. */
  text: string;
  multiline: boolean;
}

/**
 * Past suggestions, least recently used first out. A suggestion also answers for the places that typing along it leads
 * to, closing brackets that the editor puts behind the cursor included.
 */
export class CompletionCache {
  /** Most recently used last. */
  private entries: Entry[] = [];

  get size(): number {
    return this.entries.length;
  }

  put(place: Place, text: string, multiline: boolean): void {
    this.entries = this.entries.filter((entry) => !samePlace(entry, place));
    this.entries.push({ ...place, text, multiline });
    if (this.entries.length > limits.completion.cacheEntries) this.entries.shift();
  }

  get(place: Place): Hit | undefined {
    for (let index = this.entries.length - 1; index >= 0; index--) {
      const entry = this.entries[index];
      const text = entry === undefined ? undefined : remainder(entry, place);
      if (entry === undefined || text === undefined) continue;
      this.entries.splice(index, 1);
      this.entries.push(entry);
      return { text, multiline: entry.multiline };
    }
    return undefined;
  }

  clear(): void {
    this.entries = [];
  }
}

export const samePlace = (entry: Place, place: Place): boolean =>
  entry.document === place.document && entry.prefix === place.prefix && entry.suffix === place.suffix;

function remainder(entry: Entry, place: Place): string | undefined {
  if (entry.document !== place.document || !place.prefix.startsWith(entry.prefix)) return undefined;
  const typed = place.prefix.slice(entry.prefix.length);
  if (!entry.text.startsWith(typed)) return undefined;
  if (!sameSuffix(entry.suffix, place.suffix, typed)) return undefined;
  const text = entry.text.slice(typed.length);
  return text === '' && typed !== '' ? undefined : text;
}

/** Equal, or only the closing halves of what was typed were added by the editor. The end may have been cut off. */
function sameSuffix(before: string, now: string, typed: string): boolean {
  if (before === now) return true;
  const added = /^[)\]}"'`]{1,4}/.exec(now)?.[0] ?? '';
  if (added === '' || added.length > typed.length) return false;
  const rest = now.slice(added.length);
  return before === rest || (rest.length >= limits.completion.suffixChars - added.length && before.startsWith(rest));
}

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
