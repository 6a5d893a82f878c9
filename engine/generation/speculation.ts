/**
 * Guesses at the tokens that come next, verified in the run that computes them anyway: edits and answers about code repeat
 * what stands in the prompt, so what followed the last tokens before is likely to follow them again (Saxena 2023, "Prompt
 * lookup decoding"; verification as in Leviathan et al. 2023, whose rule for a certain guess is: draw from the model,
 * and go on while the draw is the guess). How long a guess pays is measured: by the time that runs take, and by how many
 * guesses came true.
 */

/** Tokens that must agree before what followed them is a guess. */
const matchTokens = 3;
/** Guesses are as long as one of these; the longest serve models of experts, whose runs cost by the experts they touch. */
const draftLengths = [0, 2, 4, 8, 16, 32, 48];
/** Weight of the newest run in the mean time of its length. */
const newest = 0.2;
/** A request of a better class waits for a run: guesses make one no longer than this, or than twice a run without any. */
const longestRunMs = 60;
/** Where guessing does not pay, one short guess in so many steps looks whether it does now. */
const probeSteps = 64;
/** Until it was measured: what a row more adds, as a share of a run of one row. */
const assumedRowShare = 0.25;
/** A request is believed to guess as well as this, weighed as so many guesses. */
const prior = { rate: 0.6, guesses: 4 };
/** How fast a request forgets how it guessed: text that copies is followed by text that does not. */
const memory = 0.9;

/** What guessing costs on one decoder. */
export class Speculation {
  /** Mean milliseconds of a run with so many guesses. */
  readonly #runMs = new Map<number, number>();

  drafter(tokens: readonly number[]): Drafter {
    return new Drafter(this, tokens);
  }

  /** A run of one sequence took so long. */
  measured(drafts: number, tookMs: number): void {
    const length = draftLengths.findLast((each) => each <= drafts) ?? 0;
    const known = this.#runMs.get(length);
    this.#runMs.set(length, known === undefined ? tookMs : known + newest * (tookMs - known));
  }

  /** The length at which a millisecond yields the most tokens, if each guess comes true with probability `rate`. */
  bestLength(rate: number): number {
    let best = 0;
    let most = 0;
    const longestMs = Math.max(longestRunMs, 2 * this.#expectedMs(0));
    for (const length of draftLengths) {
      if (this.#expectedMs(length) > longestMs) break;
      // One token is always right: the one drawn after the last guess that came true.
      const tokens = (1 - rate ** (length + 1)) / (1 - rate);
      const perMs = tokens / this.#expectedMs(length);
      if (perMs > most) [best, most] = [length, perMs];
    }
    return best;
  }

  #expectedMs(length: number): number {
    const known = this.#runMs.get(length);
    if (known !== undefined) return known;
    const one = this.#runMs.get(0) ?? 1;
    const shorter = draftLengths.findLast((each) => each < length && each > 0 && this.#runMs.has(each));
    const rowMs =
      shorter === undefined ? assumedRowShare * one : Math.max(0, ((this.#runMs.get(shorter) ?? one) - one) / shorter);
    return one + rowMs * length;
  }
}

/** The guesses of one request. */
export class Drafter {
  readonly #speculation: Speculation;
  readonly #tokens: number[] = [];
  /** Where the tokens that followed a run of tokens begin, by a hash of that run; a wrong hash is a wrong guess, no more. */
  readonly #followers = new Map<number, number>();
  #guessed = prior.guesses;
  #right = prior.rate * prior.guesses;
  #sinceProbe = 0;

  constructor(speculation: Speculation, tokens: readonly number[]) {
    this.#speculation = speculation;
    for (const token of tokens) this.take(token);
  }

  /** The next token of the text. */
  take(token: number): void {
    const hash = this.#hash();
    if (hash !== undefined) this.#followers.set(hash, this.#tokens.length);
    this.#tokens.push(token);
  }

  /** At most `most` guesses at what follows. */
  propose(most: number): number[] {
    const hash = this.#hash();
    const from = hash === undefined ? undefined : this.#followers.get(hash);
    if (from === undefined) return [];
    return this.#tokens.slice(from, from + Math.min(most, this.#length()));
  }

  /** Of so many guesses, the first `right` came true. */
  verified(guesses: number, right: number): void {
    if (guesses === 0) return;
    this.#right = memory * this.#right + right;
    this.#guessed = memory * this.#guessed + Math.min(guesses, right + 1);
  }

  #length(): number {
    const rate = Math.min(0.98, this.#right / this.#guessed);
    const best = this.#speculation.bestLength(rate);
    if (best > 0) return best;
    this.#sinceProbe = (this.#sinceProbe + 1) % probeSteps;
    return this.#sinceProbe === 0 ? (draftLengths[1] ?? 0) : 0;
  }

  #hash(): number | undefined {
    if (this.#tokens.length < matchTokens) return undefined;
    let hash = 0;
    for (const token of this.#tokens.slice(-matchTokens)) hash = (Math.imul(hash, 0x9e3779b1) + token) | 0;
    return hash;
  }
}
