/**
 * From logits to the next token. The steps run in the order of transformers' generate (`_get_logits_processor`):
 * logit bias, repetition penalty, presence penalty, temperature, top-k, top-p, min-p, sample. llama.cpp's default chain
 * applies the temperature last, so its top-p keeps another set; model cards publish values for this order.
 */
import { notFinite, type SamplingParams } from './backend.ts';

export interface SamplerSettings extends SamplingParams {
  readonly logitBias: ReadonlyMap<number, number>;
}

export const greedy: SamplerSettings = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  logitBias: new Map(),
};

/** The tokens that penalties apply to. */
export interface TokenHistory {
  /** Prompt and answer. */
  readonly sequence: ReadonlySet<number>;
  /** Answer only. */
  readonly generated: ReadonlySet<number>;
}

export const emptyHistory: TokenHistory = { sequence: new Set(), generated: new Set() };

/** `weights[i]` is the unnormalised probability of `ids[i]`. */
export interface Candidates {
  readonly ids: Int32Array;
  readonly weights: Float64Array;
}

/**
 * @param logits `[vocabulary]`, left unchanged; `-Infinity` excludes a token.
 * @param random uniform in [0, 1); not called when greedy.
 */
export function sample(
  logits: Float32Array,
  settings: SamplerSettings,
  history: TokenHistory,
  random: () => number,
): number {
  const adjusted = penalise(logits, settings, history);
  if (settings.temperature === 0 || settings.topK === 1) return argmax(adjusted);
  return choose(distribution(adjusted, settings), random());
}

/** The candidates from which `sample` chooses. */
export function candidatesOf(logits: Float32Array, settings: SamplerSettings, history: TokenHistory): Candidates {
  return distribution(penalise(logits, settings, history), settings);
}

/** Whether the history changes logits. */
export const penalises = ({ repetitionPenalty, presencePenalty }: SamplingParams): boolean =>
  repetitionPenalty !== 1 || presencePenalty !== 0;

/** The logits with bias and penalties; the same array if there are none. */
export function penalise(logits: Float32Array, settings: SamplerSettings, history: TokenHistory): Float32Array {
  const { logitBias, repetitionPenalty, presencePenalty } = settings;
  if (logitBias.size === 0 && !penalises(settings)) return logits;
  const adjusted = logits.slice();
  const change = (id: number, to: (logit: number) => number): void => {
    const logit = adjusted[id];
    if (logit !== undefined) adjusted[id] = to(logit);
  };
  for (const [id, bias] of logitBias) change(id, (logit) => logit + bias);
  if (repetitionPenalty !== 1) {
    for (const id of history.sequence) {
      change(id, (logit) => (logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty));
    }
  }
  if (presencePenalty !== 0) {
    for (const id of history.generated) change(id, (logit) => logit - presencePenalty);
  }
  return adjusted;
}

/** A copy with the logits of `forbidden` at `-Infinity`; the same array if nothing is forbidden. */
export function without(logits: Float32Array, forbidden: readonly number[]): Float32Array {
  if (forbidden.length === 0) return logits;
  const kept = logits.slice();
  for (const id of forbidden) if (id < kept.length) kept[id] = Number.NEGATIVE_INFINITY;
  return kept;
}

/** The most probable token; the lowest id among equals. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let bestLogit = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? 0;
    if (logit > bestLogit) {
      bestLogit = logit;
      best = id;
    } else if (Number.isNaN(logit)) throw notFinite();
  }
  if (bestLogit === Number.POSITIVE_INFINITY) throw notFinite();
  if (bestLogit === Number.NEGATIVE_INFINITY) throw new Error(`None of ${logits.length} tokens is allowed.`);
  return best;
}

/**
 * Natural logarithm of the share of the largest weight under which weights are dropped: 200,000 of them together weigh
 * less than 1e-15.
 */
const negligibleLogarithm = -48;

function distribution(logits: Float32Array, settings: SamplerSettings): Candidates {
  const { temperature, topK, topP, minP } = settings;
  // The largest weight is 1: exp cannot overflow, and min-p needs no division by the sum.
  const largest = logits[argmax(logits)] ?? 0;
  const ids =
    topK > 0 && topK < logits.length
      ? largestK(logits, topK)
      : idsFrom(logits, largest + temperature * negligibleLogarithm);
  const weights = new Float64Array(ids.length);
  for (let i = 0; i < ids.length; i++) weights[i] = Math.exp(((logits[ids[i] ?? 0] ?? 0) - largest) / temperature);
  const kept = new Selection(ids, weights);
  const sum = kept.sum();
  if (minP > 0) kept.keepAtLeast(minP);
  if (topP < 1) {
    // Weights below this sum to less than 1 - p, so the nucleus doesn't need them, and the rest is small.
    kept.keepAtLeast(((1 - topP) * sum) / ids.length);
    kept.keepMass(topP * sum);
  }
  return kept.candidates();
}

function idsFrom(logits: Float32Array, leastLogit: number): Int32Array {
  const ids = new Int32Array(logits.length);
  let count = 0;
  for (let id = 0; id < logits.length; id++) {
    if ((logits[id] ?? 0) >= leastLogit) ids[count++] = id;
  }
  return ids.subarray(0, count);
}

/** Ids of the k largest logits, in order, by a heap whose root is the least of them: no sort of the vocabulary. */
function largestK(logits: Float32Array, k: number): Int32Array {
  const heap = new Int32Array(k);
  const logit = (id: number): number => logits[id] ?? 0;
  const sinkFrom = (start: number): void => {
    const moved = heap[start] ?? 0;
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= k) break;
      if (child + 1 < k && before(logit, heap[child] ?? 0, heap[child + 1] ?? 0)) child++;
      if (!before(logit, moved, heap[child] ?? 0)) break;
      heap[at] = heap[child] ?? 0;
      at = child;
    }
    heap[at] = moved;
  };
  for (let id = 0; id < k; id++) heap[id] = id;
  for (let at = (k >> 1) - 1; at >= 0; at--) sinkFrom(at);
  let least = logit(heap[0] ?? 0);
  for (let id = k; id < logits.length; id++) {
    // A later id never displaces an equal logit, so ties go to the lower id.
    if (logit(id) <= least) continue;
    heap[0] = id;
    sinkFrom(0);
    least = logit(heap[0] ?? 0);
  }
  return heap.sort();
}

/** Whether `a` ranks before `b`: larger first, the lower id among equals. */
function before(key: (id: number) => number, a: number, b: number): boolean {
  const [keyA, keyB] = [key(a), key(b)];
  return keyA > keyB || (keyA === keyB && a < b);
}

/** Candidates that are narrowed in place. Kept ones come first, in the order of their ids. */
class Selection {
  #ids: Int32Array;
  #weights: Float64Array;
  #count: number;

  constructor(ids: Int32Array, weights: Float64Array) {
    this.#ids = ids;
    this.#weights = weights;
    this.#count = ids.length;
  }

  sum(): number {
    let sum = 0;
    for (let i = 0; i < this.#count; i++) sum += this.#weight(i);
    return sum;
  }

  keepAtLeast(least: number): void {
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      const weight = this.#weight(i);
      if (weight < least) continue;
      this.#ids[kept] = this.#ids[i] ?? 0;
      this.#weights[kept++] = weight;
    }
    this.#count = kept;
  }

  /**
   * Keeps the fewest largest weights whose sum reaches `mass`, at least one: quickselect by mass, linear on average, where a
   * sort would visit the whole vocabulary log(n) times.
   */
  keepMass(mass: number): void {
    const [ids, weights] = [this.#ids.slice(0, this.#count), this.#weights.slice(0, this.#count)];
    const kept = this.#partitionMass(mass);
    let last = 0;
    for (let i = 1; i < kept; i++) if (this.#ranksBefore(last, i)) last = i;
    const [least, leastId] = [this.#weight(last), this.#ids[last] ?? 0];
    [this.#ids, this.#weights, this.#count] = [ids, weights, 0];
    for (const [i, weight] of weights.entries()) {
      const id = ids[i] ?? 0;
      if (weight < least || (weight === least && id > leastId)) continue;
      ids[this.#count] = id;
      weights[this.#count++] = weight;
    }
  }

  /** Moves what `keepMass` keeps to the front. @returns how many. */
  #partitionMass(mass: number): number {
    let low = 0;
    let high = this.#count;
    let missing = mass;
    while (high - low > 1) {
      const { middle, massBefore } = this.#partition(low, high);
      if (massBefore >= missing) high = middle;
      else {
        // The pivot stands at `middle` and ranks right after the part before it.
        missing -= massBefore + this.#weight(middle);
        low = middle + 1;
        if (missing <= 0) break;
      }
    }
    return Math.max(1, missing > 0 ? high : low);
  }

  candidates(): Candidates {
    return { ids: this.#ids.subarray(0, this.#count), weights: this.#weights.subarray(0, this.#count) };
  }

  /** Moves the items that rank before a pivot to its left. */
  #partition(low: number, high: number): { middle: number; massBefore: number } {
    const last = high - 1;
    this.#swap(this.#medianOfThree(low, (low + high) >> 1, last), last);
    const pivot = this.#weight(last);
    const pivotId = this.#ids[last] ?? 0;
    let middle = low;
    let massBefore = 0;
    for (let i = low; i < last; i++) {
      const weight = this.#weight(i);
      if (weight < pivot || (weight === pivot && (this.#ids[i] ?? 0) > pivotId)) continue;
      massBefore += weight;
      this.#swap(i, middle++);
    }
    this.#swap(middle, last);
    return { middle, massBefore };
  }

  #medianOfThree(a: number, b: number, c: number): number {
    if (this.#ranksBefore(a, b)) return this.#ranksBefore(b, c) ? b : this.#ranksBefore(a, c) ? c : a;
    return this.#ranksBefore(a, c) ? a : this.#ranksBefore(b, c) ? c : b;
  }

  #ranksBefore(i: number, j: number): boolean {
    const [a, b] = [this.#weight(i), this.#weight(j)];
    return a > b || (a === b && (this.#ids[i] ?? 0) < (this.#ids[j] ?? 0));
  }

  #weight(i: number): number {
    return this.#weights[i] ?? 0;
  }

  #swap(i: number, j: number): void {
    const [id, weight] = [this.#ids[i] ?? 0, this.#weight(i)];
    this.#ids[i] = this.#ids[j] ?? 0;
    this.#weights[i] = this.#weight(j);
    this.#ids[j] = id;
    this.#weights[j] = weight;
  }
}

function choose({ ids, weights }: Candidates, uniform: number): number {
  let sum = 0;
  for (const weight of weights) sum += weight;
  let left = uniform * sum;
  let chosen = 0;
  for (let i = 0; i < ids.length; i++) {
    const weight = weights[i] ?? 0;
    // Never choose a weight of 0, even if rounding leaves a remainder after the last candidate.
    if (weight > 0) chosen = ids[i] ?? 0;
    left -= weight;
    if (left < 0) break;
  }
  return chosen;
}
