/**
 * Byte-pair merging (Sennrich et al. 2016): repeatedly merges the adjacent pair with the lowest rank, the leftmost
 * among equals. Both kinds of vocabulary use this loop. Byte-level vocabularies rank by position in the merge list,
 * SentencePiece by the score of the merged token.
 */
import type { Sliced } from './tokenizer.ts';

/** Maps pairs of symbols to the merged symbol and its rank. */
export class MergeTable {
  /** Open addressing. Entry: left + 1 (0: free), right, rank, merged. */
  readonly #entries: Int32Array;
  readonly #mask: number;

  constructor(capacity: number) {
    const slots = 2 ** Math.ceil(Math.log2(Math.max(2, capacity * 2)));
    this.#entries = new Int32Array(slots * 4);
    this.#mask = slots - 1;
  }

  /** The first entry for a pair wins. `rank` is below 2^21. */
  add(left: number, right: number, rank: number, merged: number): void {
    const entry = this.#locate(left, right);
    const entries = this.#entries;
    if (entries[entry] !== 0) return;
    entries[entry] = left + 1;
    entries[entry + 1] = right;
    entries[entry + 2] = rank;
    entries[entry + 3] = merged;
  }

  /** An entry for `rank` and `merged`, or -1. */
  find(left: number, right: number): number {
    const entry = this.#locate(left, right);
    return this.#entries[entry] === 0 ? -1 : entry;
  }

  rank(entry: number): number {
    return this.#entries[entry + 2] ?? 0;
  }

  merged(entry: number): number {
    return this.#entries[entry + 3] ?? 0;
  }

  #locate(left: number, right: number): number {
    const entries = this.#entries;
    let slot = Math.imul(Math.imul(left, 0x9e3779b1) ^ right, 0x85ebca6b);
    slot = (slot ^ (slot >>> 15)) & this.#mask;
    for (; ; slot = (slot + 1) & this.#mask) {
      const entry = slot * 4;
      const stored = entries[entry];
      if (stored === 0 || (stored === left + 1 && entries[entry + 1] === right)) return entry;
    }
  }
}

/** Symbols merged between two pauses: about a millisecond. */
const symbolsOfSlice = 4096;

/** Heap keys are rank · 2^31 + position: exact as doubles, and ordered like the merges. */
const positions = 2 ** 31;
const gone = -1;

/** Merges `symbols` in place. @returns the number of remaining symbols. */
export function* mergePairs(symbols: Int32Array, table: MergeTable): Sliced<number> {
  const count = symbols.length;
  const next = new Int32Array(count);
  const previous = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    next[i] = i + 1 < count ? i + 1 : gone;
    previous[i] = i - 1;
  }
  const heap: number[] = [];

  const offer = (left: number): void => {
    const right = next[left] ?? gone;
    if (right === gone) return;
    const entry = table.find(symbols[left] ?? 0, symbols[right] ?? 0);
    if (entry >= 0) pushHeap(heap, table.rank(entry) * positions + left);
  };
  for (let i = 0; i < count; i++) {
    if (i % symbolsOfSlice === symbolsOfSlice - 1) yield;
    offer(i);
  }

  let merges = 0;
  for (let key = popHeap(heap); key !== undefined; key = popHeap(heap)) {
    if (++merges % symbolsOfSlice === 0) yield;
    const rank = Math.floor(key / positions);
    const left = key - rank * positions;
    const right = next[left] ?? gone;
    if (symbols[left] === gone || right === gone) continue;
    const entry = table.find(symbols[left] ?? 0, symbols[right] ?? 0);
    // The pair is stale: a neighbour has merged since. The new pair was offered as well.
    if (entry < 0 || table.rank(entry) !== rank) continue;
    symbols[left] = table.merged(entry);
    symbols[right] = gone;
    const after = next[right] ?? gone;
    next[left] = after;
    if (after !== gone) previous[after] = left;
    const before = previous[left] ?? gone;
    if (before !== gone) offer(before);
    offer(left);
  }
  return compact(symbols);
}

function compact(symbols: Int32Array): number {
  let kept = 0;
  for (const symbol of symbols) if (symbol !== gone) symbols[kept++] = symbol;
  return kept;
}

function pushHeap(heap: number[], key: number): void {
  let at = heap.length;
  heap.push(key);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent] ?? 0;
    if (above <= key) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = key;
}

function popHeap(heap: number[]): number | undefined {
  const least = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return least;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] ?? 0) < (heap[child] ?? 0)) child++;
    const below = heap[child] ?? 0;
    if (below >= last) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
  return least;
}
