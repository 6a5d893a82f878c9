/** An answer that must begin with given bytes: which tokens may come next, and the text after those bytes. */
import { HearthError } from '../errors.ts';
import type { OutputParser, OutputPiece } from '../text/thinking.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Utf8Stream } from '../text/utf8Stream.ts';

/** Reads an answer that begins with the last token of the text before it, chosen again. */
export class HealedText implements OutputParser {
  readonly #tokenizer: Tokenizer;
  readonly #utf8 = new Utf8Stream();
  /** Bytes that are still to come again. */
  #missing: Uint8Array;

  /** @param bytes may be empty: then nothing is constrained. */
  constructor(tokenizer: Tokenizer, bytes: Uint8Array) {
    this.#tokenizer = tokenizer;
    this.#missing = bytes;
  }

  /** The logits of the tokens that go on as the text did; the same array once it has come again. */
  constrain(logits: Float32Array): Float32Array {
    if (this.#missing.length === 0) return logits;
    const allowed = tokensTowards(this.#tokenizer, this.#missing);
    if (allowed.length > 0) return onlyTokens(logits, allowed);
    throw new HearthError('unsupported', 'The vocabulary cannot spell the text before the cursor.');
  }

  push(id: number): OutputPiece[] {
    if (this.#tokenizer.isSpecial(id)) return textPiece(this.#utf8.end());
    const bytes = this.#tokenizer.bytesOf(id);
    const known = Math.min(this.#missing.length, bytes.length);
    this.#missing = this.#missing.subarray(known);
    return textPiece(this.#utf8.push(bytes.subarray(known)));
  }

  end(): OutputPiece[] {
    return textPiece(this.#utf8.end());
  }
}

const textPiece = (text: string): OutputPiece[] => (text === '' ? [] : [{ kind: 'text', text }]);

/** Token ids by their first byte: made once for a vocabulary. */
type FirstBytes = readonly (readonly number[])[];

const indexes = new WeakMap<Tokenizer, FirstBytes>();

function indexOf(tokenizer: Tokenizer): FirstBytes {
  const known = indexes.get(tokenizer);
  if (known) return known;
  const index: number[][] = Array.from({ length: 256 }, () => []);
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    const first = tokenizer.isSpecial(id) ? undefined : tokenizer.bytesOf(id)[0];
    if (first !== undefined) index[first]?.push(id);
  }
  indexes.set(tokenizer, index);
  return index;
}

/** Ids whose bytes begin with `bytes`, or begin it. `bytes` is not empty. */
export function tokensTowards(tokenizer: Tokenizer, bytes: Uint8Array): number[] {
  const candidates = indexOf(tokenizer)[bytes[0] ?? 0] ?? [];
  return candidates.filter((id) => {
    const own = tokenizer.bytesOf(id);
    const length = Math.min(own.length, bytes.length);
    for (let i = 1; i < length; i++) if (own[i] !== bytes[i]) return false;
    return true;
  });
}

/** The logits with every token outside `ids` excluded. `[vocabulary]` */
export function onlyTokens(logits: Float32Array, ids: readonly number[]): Float32Array {
  const masked = new Float32Array(logits.length).fill(Number.NEGATIVE_INFINITY);
  for (const id of ids) {
    const logit = logits[id];
    if (logit !== undefined) masked[id] = logit;
  }
  return masked;
}
