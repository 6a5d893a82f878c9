/** How sure a model is of a completion, and what else it would have said. */
import type { SampleObserver } from './generate.ts';

export type Confidence = 'eager' | 'balanced' | 'quiet';

/**
 * Least mean log-probability of the first tokens of a text that is shown. Measured with SmolLM2 on held-out lines:
 * docs/proof.md, "Which completions are shown".
 */
const leastLogProbability: Readonly<Record<Confidence, number>> = {
  eager: Number.NEGATIVE_INFINITY,
  balanced: -0.5,
  quiet: -0.2,
};

export const isSureEnough = (logProbability: number | undefined, confidence: Confidence): boolean =>
  logProbability === undefined || logProbability >= leastLogProbability[confidence];

/** Most suggestions of a line are shorter; a device may draw what follows. */
const observedTokens = 16;

/** A token that a text may begin with. */
export interface FirstToken {
  readonly id: number;
  readonly logProbability: number;
}

export class ConfidenceMeter implements SampleObserver {
  readonly tokens = observedTokens;
  readonly #endIds: ReadonlySet<number>;
  readonly #wanted: number;
  #sum = 0;
  #count = 0;
  /** The likeliest first tokens beside the one that was chosen. */
  otherFirst: readonly FirstToken[] = [];

  /** @param first the token that was forced, or how many others to remember */
  constructor(endIds: ReadonlySet<number>, first: FirstToken | number) {
    this.#endIds = endIds;
    this.#wanted = typeof first === 'number' ? first : 0;
    if (typeof first === 'object') this.#add(first.logProbability);
  }

  get logProbability(): number | undefined {
    return this.#count === 0 ? undefined : this.#sum / this.#count;
  }

  sampled(logits: Float32Array, token: number): void {
    if (this.#count === 0 && this.#wanted > 0) {
      const ids = largest(logits, this.#wanted + 1 + this.#endIds.size);
      const others = ids.filter((id) => id !== token && !this.#endIds.has(id)).slice(0, this.#wanted);
      this.otherFirst = others.map((id) => ({ id, logProbability: logProbabilityOf(logits, id) }));
    }
    this.#add(logProbabilityOf(logits, token));
  }

  #add(logProbability: number): void {
    this.#sum += logProbability;
    this.#count++;
  }
}

/** `[vocabulary]` */
function logProbabilityOf(logits: Float32Array, token: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > highest) highest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  return (logits[token] ?? Number.NEGATIVE_INFINITY) - highest - Math.log(sum);
}

function largest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? Number.NEGATIVE_INFINITY;
    if (logit === Number.NEGATIVE_INFINITY) continue;
    if (ids.length === count && logit <= (logits[ids[count - 1] ?? 0] ?? 0)) continue;
    const at = ids.findIndex((other) => logit > (logits[other] ?? 0));
    ids.splice(at < 0 ? ids.length : at, 0, id);
    ids.length = Math.min(ids.length, count);
  }
  return ids;
}
