/**
 * Guesses at the tokens that come next, verified in the run that computes them anyway: edits and answers about code repeat
 * what stands in the prompt, so what followed the last tokens before is likely to follow them again (Saxena 2023, "Prompt
 * lookup decoding"; verification as in Leviathan et al. 2023, whose rule for a certain guess is: draw from the model,
 * and go on while the draw is the guess). How long a guess pays is measured: by the time that runs take, and by how many
 * tokens came as foretold, which is seen without guessing, too.
 */

/** Tokens that must agree before what followed them is a guess. */
const matchTokens = 3;
/** Guesses are as long as one of these; the longest serve models of experts, whose runs cost by the experts they touch. */
const draftLengths = [2, 4, 8, 16, 32, 48];
/** What guesses may add to a run, for which a request of a better class waits: the larger of both. */
interface Delay {
  readonly ms: number;
  /** Of a run without guesses. */
  readonly share: number;
}
const otherwise: Delay = { ms: 40, share: 1 };
/** Nobody feels this while they type. */
const whenAwaited: Delay = { ms: 10, share: 0.9 };
/** Of the last so many measurements the middle one counts: a run during which the machine did something else says nothing. */
const remembered = 5;
/** Until a length was measured as often as this, it is believed to be as cheap as shorter ones foretell. */
const settled = 3;
/** Guesses have to pay by this much: what they cost is known no better. */
const worthwhile = 1.05;
/** One guess in so many is the next longer one, since what it costs may have been measured wrong or have changed. */
const probeSteps = 64;
/** At least one run in so many goes without guesses, more often at first: its time is what that of the others is measured by. */
const plainSteps = 32;
/** Until it was measured: what a row more adds, as a share of a run of one row. */
const assumedRowShare = 0.25;
/** A request is believed to foretell as well as this, weighed as so many tokens. */
const prior = { rate: 0.6, tokens: 4 };
/** How fast a request forgets how well it foretold a token: text that copies is followed by text that does not. */
const memory = 0.95;

/** The last measurements of one thing. */
class Measurements {
  readonly #last: number[] = [];

  get count(): number {
    return this.#last.length;
  }

  get middle(): number {
    return this.#last.toSorted((a, b) => a - b)[(this.#last.length - 1) >> 1] ?? Number.NaN;
  }

  add(value: number): void {
    this.#last.push(value);
    if (this.#last.length > remembered) this.#last.shift();
  }
}

/**
 * What guessing costs on one decoder. Runs are measured in runs without guesses of the same request at about the same time:
 * they take longer behind a longer context and on a busy machine, and their ratio hardly changes.
 */
export class Speculation {
  /** Of runs with so many guesses. */
  readonly #costs = new Map<number, Measurements>();
  /** Milliseconds of the last run without guesses of any request. */
  lastPlainMs: number | undefined;

  drafter(tokens: readonly number[]): Drafter {
    return new Drafter(this, tokens);
  }

  /** A run with so many guesses took as long as `cost` without any. */
  measured(guesses: number, cost: number): void {
    // Others are cut off by the end of the answer.
    if (!draftLengths.includes(guesses)) return;
    const known = this.#costs.get(guesses) ?? new Measurements();
    known.add(cost);
    this.#costs.set(guesses, known);
  }

  /**
   * The length at which a millisecond yields the most tokens, if each guess comes true with probability `rate`.
   * @param mostCost of a run, in runs without guesses
   */
  bestLength(rate: number, mostCost: number): number {
    let best = 0;
    let most = worthwhile;
    for (const length of this.#lengths(mostCost)) {
      // One token is always right: the one drawn after the last guess that came true.
      const tokens = (1 - rate ** (length + 1)) / (1 - rate);
      const yielded = tokens / this.#cost(length);
      if (yielded > most) [best, most] = [length, yielded];
    }
    return best;
  }

  /** The next longer guess, where a run of it stays below `mostCost`. */
  longer(length: number, mostCost: number): number {
    return this.#lengths(mostCost).find((each) => each > length) ?? length;
  }

  #lengths(mostCost: number): number[] {
    const tooLong = draftLengths.findIndex((length) => this.#cost(length) > mostCost);
    return draftLengths.slice(0, tooLong < 0 ? undefined : tooLong);
  }

  #cost(length: number): number {
    const known = this.#costs.get(length);
    if (known && known.count >= settled) return known.middle;
    const foretold = this.#foretold(length);
    return known ? Math.min(known.middle, foretold) : foretold;
  }

  #foretold(length: number): number {
    const shorter = draftLengths.findLast((each) => each < length && this.#costs.has(each));
    const rowShare =
      shorter === undefined ? assumedRowShare : Math.max(0, (this.#costs.get(shorter)?.middle ?? 1) - 1) / shorter;
    return 1 + rowShare * length;
  }
}

/** The guesses of one request. */
export class Drafter {
  readonly #speculation: Speculation;
  readonly #tokens: number[] = [];
  /** Where the tokens that followed a run of tokens begin, by a hash of that run; a wrong hash is a wrong guess, no more. */
  readonly #followers = new Map<number, number>();
  readonly #plainMs = new Measurements();
  /** Tokens that were foretold, whether or not they were guessed, and how many of them came true. */
  #foretold = prior.tokens;
  #right = prior.rate * prior.tokens;
  #sinceProbe = 0;
  /** Runs with guesses since the last one without, and how many there may be. */
  #sincePlain = 0;
  #untilPlain = 0;

  constructor(speculation: Speculation, tokens: readonly number[]) {
    this.#speculation = speculation;
    for (const token of tokens) this.#learn(token);
  }

  /** The next token of the text. */
  take(token: number): void {
    const from = this.#follower();
    if (from !== undefined) {
      this.#foretold = memory * this.#foretold + 1;
      this.#right = memory * this.#right + (this.#tokens[from] === token ? 1 : 0);
    }
    this.#learn(token);
  }

  #learn(token: number): void {
    const hash = this.#hash();
    if (hash !== undefined) this.#followers.set(hash, this.#tokens.length);
    this.#tokens.push(token);
  }

  /**
   * At most `most` guesses at what follows.
   * @param isAwaited somebody may ask for something more urgent during the run
   */
  propose(most: number, isAwaited: boolean): number[] {
    const from = this.#follower();
    if (from === undefined) return [];
    if (this.#sincePlain >= this.#untilPlain) {
      this.#goesPlain();
      return [];
    }
    const length = Math.min(most, this.#length(isAwaited));
    const period = this.#tokens.length - from;
    // What follows the end of the text is what was just guessed.
    return Array.from({ length }, (_, i) => this.#tokens[from + (i % period)] ?? 0);
  }

  /** A run of this sequence alone, with so many guesses, took so long. */
  ran(guesses: number, tookMs: number): void {
    if (guesses > 0) {
      this.#sincePlain++;
      if (this.#plainMs.middle > 0) this.#speculation.measured(guesses, tookMs / this.#plainMs.middle);
      return;
    }
    this.#goesPlain();
    this.#plainMs.add(tookMs);
    this.#speculation.lastPlainMs = this.#plainMs.middle;
  }

  #goesPlain(): void {
    this.#sincePlain = 0;
    this.#untilPlain = Math.min(plainSteps, 2 * this.#untilPlain + 4);
  }

  #length(isAwaited: boolean): number {
    const rate = Math.min(0.98, this.#right / this.#foretold);
    const mostCost = this.#mostCost(isAwaited ? whenAwaited : otherwise);
    const best = this.#speculation.bestLength(rate, mostCost);
    this.#sinceProbe = (this.#sinceProbe + 1) % probeSteps;
    return this.#sinceProbe === 0 ? this.#speculation.longer(best, mostCost) : best;
  }

  #mostCost({ ms, share }: Delay): number {
    const plainMs = this.#plainMs.count > 0 ? this.#plainMs.middle : this.#speculation.lastPlainMs;
    return 1 + (plainMs === undefined ? share : Math.max(share, ms / plainMs));
  }

  /** Where the tokens begin that are likely to follow. */
  #follower(): number | undefined {
    const hash = this.#hash();
    return hash === undefined ? undefined : this.#followers.get(hash);
  }

  #hash(): number | undefined {
    if (this.#tokens.length < matchTokens) return undefined;
    let hash = 0;
    for (const token of this.#tokens.slice(-matchTokens)) hash = (Math.imul(hash, 0x9e3779b1) + token) | 0;
    return hash;
  }
}
