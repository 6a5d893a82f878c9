/** Logits processors constrain an answer while it is generated. They alone decide where the device may sample. */

import { HearthError } from '../errors.ts';
import { type OutputParser, type OutputPiece, piece } from '../prompt/conversation.ts';
import { type Tokenizer, Utf8Stream } from '../tokenizer/tokenizer.ts';

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

// Ends thinking after a token limit or on request, by forcing the tokens with which the model ends it.

interface ThinkingLimitOptions {
  /** Knows whether the model is thinking; it gets each token before `take`. */
  readonly parser: OutputParser;
  /** Tokens that end thinking and begin the answer. */
  readonly close: readonly number[];
  /** Absent: no limit. */
  readonly maxTokens?: number | undefined;
  /** Abort it to end thinking now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Whether the token ends a sentence or a line. */
  readonly endsSentence: (token: number) => boolean;
}

/** Within this many tokens of the limit (at most a quarter of it), thinking already ends at the end of a sentence. */
const graceTokens = 16;

export class ThinkingLimit implements LogitsProcessor {
  readonly #options: ThinkingLimitOptions;
  #thoughtTokens = 0;
  #last: number | undefined;
  #closing: number[] = [];

  constructor(options: ThinkingLimitOptions) {
    this.#options = options;
  }

  next(): NextTokens {
    if (this.#closing.length === 0 && this.#mustEnd()) this.#closing = [...this.#options.close];
    const [token] = this.#closing;
    if (token !== undefined) return { kind: 'forced', token };
    const { parser, maxTokens } = this.#options;
    return parser.isThinking && maxTokens !== undefined ? { ...free, tokens: maxTokens - this.#thoughtTokens } : free;
  }

  take(token: number): void {
    this.#last = token;
    if (this.#closing.length > 0) this.#closing.shift();
    else if (this.#options.parser.isThinking) this.#thoughtTokens++;
  }

  #mustEnd(): boolean {
    const { parser, maxTokens = Number.POSITIVE_INFINITY, answerNow, endsSentence } = this.#options;
    if (!parser.isThinking) return false;
    if (answerNow?.aborted || this.#thoughtTokens >= maxTokens) return true;
    const grace = Math.min(graceTokens, maxTokens / 4);
    return this.#thoughtTokens >= maxTokens - grace && this.#last !== undefined && endsSentence(this.#last);
  }
}

// Token healing: an answer must begin with given bytes; only the text after them is shown.

/** Parses an answer that begins with the bytes of the prompt's last token, and constrains it to them. */
export class HealedText implements OutputParser, LogitsProcessor {
  readonly isThinking = false;
  readonly #tokenizer: Tokenizer;
  readonly #utf8 = new Utf8Stream();
  /** Bytes that the answer must still repeat. */
  #missing: Uint8Array;

  /** @param bytes empty: no constraint. */
  constructor(tokenizer: Tokenizer, bytes: Uint8Array) {
    this.#tokenizer = tokenizer;
    this.#missing = bytes;
  }

  /** Allows only tokens that repeat the bytes; every token once they are repeated. */
  next(): NextTokens {
    if (this.#missing.length === 0) return free;
    const allowed = tokensTowards(this.#tokenizer, this.#missing);
    if (allowed.length > 0) return { kind: 'mask', allowed: bitsOf(allowed, this.#tokenizer.vocabularySize) };
    throw new HearthError('unsupported', "The model's vocabulary can't spell the text before the cursor.");
  }

  push(id: number): OutputPiece[] {
    if (this.#tokenizer.isSpecial(id)) return piece('text', this.#utf8.end());
    const bytes = this.#tokenizer.bytesOf(id);
    const known = Math.min(this.#missing.length, bytes.length);
    this.#missing = this.#missing.subarray(known);
    return piece('text', this.#utf8.push(bytes.subarray(known)));
  }

  end(): OutputPiece[] {
    return piece('text', this.#utf8.end());
  }
}

/** Token ids by their first two bytes, `256 · first + second`; those of a single byte at `oneByte + first`. */
type ByBeginning = ReadonlyMap<number, readonly number[]>;

const oneByte = 1 << 16;
const indexes = new WeakMap<Tokenizer, ByBeginning>();

/** Indexes the vocabulary once, so that the first completion doesn't wait for it. */
export function prepareHealing(tokenizer: Tokenizer): ByBeginning {
  const known = indexes.get(tokenizer);
  if (known) return known;
  const index = new Map<number, number[]>();
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    if (tokenizer.isSpecial(id)) continue;
    const [first, second] = tokenizer.bytesOf(id);
    if (first === undefined) continue;
    const key = second === undefined ? oneByte + first : 256 * first + second;
    const ids = index.get(key);
    if (ids) ids.push(id);
    else index.set(key, [id]);
  }
  indexes.set(tokenizer, index);
  return index;
}

/** Ids whose bytes begin with `bytes` or are a prefix of it. `bytes` must not be empty. */
export function tokensTowards(tokenizer: Tokenizer, bytes: Uint8Array): number[] {
  const index = prepareHealing(tokenizer);
  const [first = 0, second] = bytes;
  const seconds = second === undefined ? Array.from({ length: 256 }, (_, byte) => byte) : [second];
  const keys = [oneByte + first, ...seconds.map((byte) => 256 * first + byte)];
  const candidates = keys.flatMap((key) => index.get(key) ?? []);
  return candidates.filter((id) => {
    const own = tokenizer.bytesOf(id);
    const length = Math.min(own.length, bytes.length);
    for (let i = 2; i < length; i++) if (own[i] !== bytes[i]) return false;
    return true;
  });
}
