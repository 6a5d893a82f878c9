/** Which tokens may come next when the answer must begin with given bytes. */
import type { Tokenizer } from '../text/tokenizer.ts';

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
