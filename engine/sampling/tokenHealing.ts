/** Token healing: an answer must begin with given bytes; only the text after them is shown. */
import { HearthError } from '../errors.ts';
import { type OutputParser, type OutputPiece, piece } from '../prompt/output.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { Utf8Stream } from '../tokenizer/utf8Stream.ts';
import { bitsOf, free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

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
