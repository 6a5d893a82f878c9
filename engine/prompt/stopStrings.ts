/** Ends a stream at the first stop string. Holds back only text that may still become one. */
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';

export interface Stopped {
  /** Text that may be shown now; never part of a stop string. */
  readonly text: string;
  /** The stop string that was found. Nothing more may be pushed. */
  readonly stop?: string;
}

export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';

  /** @throws HearthError `invalid-input` for an empty stop string, or too many or too long ones. */
  constructor(stops: readonly string[]) {
    const { stopStrings, stopStringChars } = limits.text;
    if (stops.length > stopStrings) throw invalidInput(`At most ${stopStrings} stop strings are possible.`);
    for (const stop of stops) {
      if (stop === '') throw invalidInput('A stop string must not be empty.');
      if (stop.length > stopStringChars) throw invalidInput(`A stop string has at most ${stopStringChars} characters.`);
    }
    this.#stops = stops;
  }

  push(text: string): Stopped {
    const seen = this.#held + text;
    const first = firstOf(seen, this.#stops);
    if (first !== undefined) {
      this.#held = '';
      return { text: seen.slice(0, first.at), stop: first.stop };
    }
    const held = partialMatchLength(seen, this.#stops);
    this.#held = seen.slice(seen.length - held);
    return { text: seen.slice(0, seen.length - held) };
  }

  /** Returns the text that was held back. */
  end(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }
}

function firstOf(text: string, stops: readonly string[]): { at: number; stop: string } | undefined {
  let first: { at: number; stop: string } | undefined;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at >= 0 && (first === undefined || at < first.at)) first = { at, stop };
  }
  return first;
}

/** Length of the longest end of `text` that begins, but is not all of, one of `patterns`. */
export function partialMatchLength(text: string, patterns: readonly string[]): number {
  const longest = Math.max(0, ...patterns.map((pattern) => pattern.length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (patterns.some((pattern) => pattern.length > length && pattern.startsWith(end))) return length;
  }
  return 0;
}
