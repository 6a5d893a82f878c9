/** What a chunk's text says for a question beyond the words that it shares with it. Pure. */
import type { Query } from './query.ts';

/** Added to a score of at most 1. */
const weights = {
  literal: 0.5,
  flag: 0.8,
  flagRead: 0.5,
  name: 0.15,
  definition: 0.5,
  call: 0.9,
  pair: 0.05,
  pairs: 0.25,
  raise: 0.15,
};

const escaped = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);

export interface Read {
  readonly text: string;
  readonly lower: string;
  /** Names that the chunk defines. */
  readonly defined: ReadonlySet<string>;
  readonly isTest: boolean;
}

/** Compiled once a question. */
export class Evidence {
  readonly #query: Query;
  readonly #names: readonly { readonly name: string; readonly word: RegExp; readonly call: RegExp }[];
  readonly #flags: readonly { readonly long: string; readonly variable: RegExp }[];
  readonly #literals: readonly string[];

  /** @param names of the question, those that are worth looking for */
  constructor(query: Query, names: readonly string[]) {
    this.#query = query;
    this.#names = names.map((name) => {
      const exact = escaped(name);
      const before = String.raw`(?<![\p{L}\p{N}_$])`;
      return {
        name,
        word: new RegExp(`${before}${exact}(?![\\p{L}\\p{N}_$])`, 'u'),
        call: new RegExp(`${before}${exact}(?:<[^()\\n]{0,60}>|!|::<[^()\\n]{0,60}>)?\\s*\\(`, 'u'),
      };
    });
    this.#flags = query.flags.map((flag) => ({
      long: flag.toLowerCase(),
      variable: new RegExp(flag.toLowerCase().split(/[-_]/).map(escaped).join('[-_]?'), 'i'),
    }));
    this.#literals = query.literals.slice(0, 30).map((literal) => literal.toLowerCase());
  }

  of(chunk: Read): number {
    return this.#ofNames(chunk) + this.#ofLiterals(chunk) + this.#ofFlags(chunk) + this.#ofPairs(chunk);
  }

  /** How much one line has of it, for choosing an excerpt. */
  ofLine(line: string): number {
    const lower = line.toLowerCase();
    const named = this.#names.filter(({ name, word }) => line.includes(name) && word.test(line)).length;
    const literal = this.#literals.filter((own) => lower.includes(own)).length;
    const flagged = this.#flags.filter(({ variable }) => variable.test(lower)).length;
    return named + 2 * literal + 2 * flagged;
  }

  #ofNames({ text, defined, isTest }: Read): number {
    const { relation } = this.#query;
    let sum = 0;
    for (const { name, word, call } of this.#names) {
      if (!text.includes(name) || !word.test(text)) continue;
      const isDefined = defined.has(name);
      const called = !isDefined && call.test(text);
      sum += weights.name;
      if (relation === 'callers') sum += called ? weights.call : 0;
      else if (relation === 'tests') sum += isTest ? weights.call : 0;
      else if (isDefined) sum += weights.definition;
    }
    // Many names in a question are a description of a file, not that many questions.
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

  /** Where a flag is declared it stands as it is typed; where it is read, as a variable. */
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
