/** What bends an answer while it is written: before a token is chosen, and told of each that was. */

export interface Steer {
  /** What must be known before the next token; `undefined`: all is. */
  settle?(): Promise<void> | undefined;
  /** The token that comes next whatever the logits say. */
  forced(): number | undefined;
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next, the lowest first; `undefined`: all may. */
  allowed(): Int32Array | undefined;
  /** `allowed` never says anything, so that a device may draw whatever is not forced. */
  readonly onlyForces?: true;
  /** Called with every token of the answer, forced ones too. */
  take(token: number): void;
}

/** The logits of the tokens that may come next; the others' are `-Infinity`. */
export function onlyAllowed(logits: Float32Array, allowed: Int32Array): Float32Array {
  const kept = new Float32Array(logits.length).fill(Number.NEGATIVE_INFINITY);
  for (let word = 0; word < allowed.length; word++) {
    // Most words of most masks have no bit at all.
    for (let bits = allowed[word] ?? 0; bits !== 0; bits &= bits - 1) {
      const id = 32 * word + (31 - Math.clz32(bits & -bits));
      if (id < kept.length) kept[id] = logits[id] ?? Number.NEGATIVE_INFINITY;
    }
  }
  return kept;
}
