/** Logits processors constrain an answer while it is generated. Their answers alone decide where the device may sample. */

/** The constraint on the next tokens. */
export type NextTokens =
  /**
   * The sampler chooses among all tokens except `forbidden`, for up to `tokens` tokens. The processor is asked again after each token:
   * if its answer is another kind, or another `forbidden` list (by identity), later tokens are dropped and sampled again.
   */
  | { readonly kind: 'free'; readonly tokens: number; readonly forbidden: readonly number[] }
  | { readonly kind: 'forced'; readonly token: number }
  /** `allowed`: `[⌈vocabulary / 32⌉]`, a bit for every token that may come next, the lowest first. */
  | { readonly kind: 'mask'; readonly allowed: Int32Array }
  /** Not known yet; ask again after `ready`. */
  | { readonly kind: 'pending'; readonly ready: () => Promise<void> };

export type FreeTokens = Extract<NextTokens, { readonly kind: 'free' }>;

export interface LogitsProcessor {
  /** Called before each token, possibly several times; has no side effect on later answers. */
  next(): NextTokens;
  /** Called with every token of the answer, including forced ones. */
  take?(token: number): void;
}

const nothing: readonly number[] = [];

export const free: FreeTokens = { kind: 'free', tokens: Number.POSITIVE_INFINITY, forbidden: nothing };

/** Combines processors: the first pending one wins, else the first that forces a token, else the first mask. */
export function nextTokens(processors: readonly LogitsProcessor[]): NextTokens {
  const answers = processors.map((processor) => processor.next());
  for (const kind of ['pending', 'forced', 'mask'] as const) {
    const found = answers.find((answer) => answer.kind === kind);
    if (found) return found;
  }
  const all = answers.flatMap((answer) => (answer.kind === 'free' ? [answer] : []));
  return {
    kind: 'free',
    tokens: Math.min(free.tokens, ...all.map(({ tokens }) => tokens)),
    forbidden: all.find(({ forbidden }) => forbidden.length > 0)?.forbidden ?? nothing,
  };
}

/** A copy in which the logits of tokens outside `allowed` are `-Infinity`. */
export function onlyAllowed(logits: Float32Array, allowed: Int32Array): Float32Array {
  const kept = new Float32Array(logits.length).fill(Number.NEGATIVE_INFINITY);
  for (let word = 0; word < allowed.length; word++) {
    // Most words of most masks are 0.
    for (let bits = allowed[word] ?? 0; bits !== 0; bits &= bits - 1) {
      const id = 32 * word + (31 - Math.clz32(bits & -bits));
      if (id < kept.length) kept[id] = logits[id] ?? Number.NEGATIVE_INFINITY;
    }
  }
  return kept;
}

/** A copy with the logits of `forbidden` at `-Infinity`; the same array if nothing is forbidden. */
export function without(logits: Float32Array, forbidden: readonly number[]): Float32Array {
  if (forbidden.length === 0) return logits;
  const kept = logits.slice();
  for (const id of forbidden) if (id < kept.length) kept[id] = Number.NEGATIVE_INFINITY;
  return kept;
}

/** `[⌈vocabulary / 32⌉]` with a bit for each of `ids`. */
export function bitsOf(ids: readonly number[], vocabularySize: number): Int32Array<ArrayBuffer> {
  const bits = new Int32Array(Math.ceil(vocabularySize / 32));
  for (const id of ids) bits[id >> 5] = (bits[id >> 5] ?? 0) | (1 << (id & 31));
  return bits;
}

// Forbids end tokens before the answer has `minTokens`. A grammar, or a plan that forbids tokens, takes precedence.

export class MinimumTokens implements LogitsProcessor {
  readonly #endIds: readonly number[];
  #left: number;

  constructor(minTokens: number, endIds: Iterable<number>) {
    this.#left = minTokens;
    this.#endIds = [...endIds];
  }

  next(): NextTokens {
    return this.#left > 0 ? { kind: 'free', tokens: this.#left, forbidden: this.#endIds } : free;
  }

  take(): void {
    this.#left--;
  }
}
