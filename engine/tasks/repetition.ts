/** Notices a text that goes round in a circle. Exact: only the very same characters count. */

/**
 * A cycle counts once it has come as often, and is as long in all. People write rules of dashes, rows of zeros, runs of
 * equal lines and base64 padding, but not two thousand characters of them.
 */
const leastTurns = 6;
const leastChars = 2_000;
/** Of the end of the text, what is looked at: a cycle may have up to a sixth of it. */
const windowChars = 12_288;
/** Looked at after as many characters, so that each costs some 24 comparisons. */
const stepChars = 512;

export class RepetitionWatch {
  #tail = '';
  #unseen = 0;

  /** Whether the text so far ends in a cycle. */
  push(text: string): boolean {
    this.#tail = (this.#tail + text).slice(-windowChars);
    this.#unseen += text.length;
    if (this.#unseen < stepChars) return false;
    this.#unseen = 0;
    return endsInCycle(this.#tail);
  }
}

/** By the prefix function (Knuth, Morris, Pratt) of the text read backwards: period = length - border. */
export function endsInCycle(text: string): boolean {
  const length = text.length;
  const borders = new Uint32Array(length + 1);
  for (let end = 1, border = 0; end < length; end += 1) {
    const char = text.charCodeAt(length - 1 - end);
    while (border > 0 && text.charCodeAt(length - 1 - border) !== char) border = borders[border] ?? 0;
    if (text.charCodeAt(length - 1 - border) === char) border += 1;
    borders[end + 1] = border;
    const chars = end + 1;
    if (chars >= leastChars && chars >= leastTurns * (chars - border)) return true;
  }
  return false;
}
