/** Measures how much of a completion's prompt is in the prefix cache at each key of a recording. */
import type { DecoderMemory } from '../../engine/backend/backend.ts';
import { usualContextTokens } from '../../engine/backend/memoryPlan.ts';
import type { Sequence } from '../../engine/kv/blockCache.ts';
import { PrefixCache } from '../../engine/kv/prefixCache.ts';
import { limits as engineLimits } from '../../engine/limits.ts';
import { completionToWarm, promptAfterCut } from '../../engine/tasks/completionPrompt.ts';
import type { Tokenizer } from '../../engine/tokenizer/tokenizer.ts';
import { momentAt, type Snippet, SnippetLists, worthAsking } from '../../extension/completion/moment.ts';
import { limits } from '../../extension/limits.ts';
import type { Key } from './typing.ts';

export interface Typist {
  readonly tokenizer: Tokenizer;
  /** Prefill speed. A request that the next key cancels keeps its prefilled tokens. */
  readonly tokensPerSecond: number;
  readonly languageOf: (path: string) => string;
  /** What the extension would find for this place; `before` is the list that it replaces. */
  readonly find: (key: Key, before: readonly Snippet[]) => Snippet[];
}

export interface CachedShare {
  /** Keys that could ask for a completion. */
  readonly keys: number;
  /** Of these, how many had more than 95 % of their prompt cached. */
  readonly cached: number;
  /** Uncached prompt tokens at each key. */
  readonly missing: number[];
  readonly minutes: number;
}

const enough = 0.95;
const answerTokens = 64;

/** The extension's and the engine's own decisions with simulated time. */
export function cachedShare(recording: Iterable<Key>, typist: Typist): CachedShare {
  const reader = new Reader(typist.tokensPerSecond);
  const lists = new SnippetLists();
  const missing: number[] = [];
  let [keys, cached, lastMs] = [0, 0, 0];
  let afterwards: () => readonly number[] | undefined = () => undefined;
  let last: Key | undefined;
  const promptOf = (key: Key, snippets: readonly Snippet[]) => {
    const { lines, line, character, path } = key;
    const languageId = typist.languageOf(path);
    const document = { languageId, lineCount: lines.length, lineAt: (at: number) => ({ text: lines[at] ?? '' }) };
    const moment = momentAt(document, { line, character });
    const source = { ...moment, path, snippets };
    const { ids, nearsCut } = completionToWarm(typist.tokenizer, contextTokens, source, answerTokens);
    const asks = worthAsking(moment, typist.tokenizer.fillInTheMiddle !== undefined);
    const afterCut = () => promptAfterCut(typist.tokenizer, contextTokens, source, answerTokens)?.ids;
    return { ids, asks, ahead: nearsCut ? afterCut : () => undefined };
  };
  for (const key of recording) {
    if (last && key.atMs - last.atMs > limits.completion.restMs) pause(last, key.atMs);
    else readOn(key.atMs);
    last = key;
    lastMs = key.atMs;
    if (key.isJump) continue;
    const list = lists.of(key.path) ?? typist.find(key, []);
    lists.keep(key.path, list);
    const { ids, asks, ahead } = promptOf(key, list);
    afterwards = ahead;
    if (!asks) continue;
    const had = reader.cachedTokens(ids);
    keys += 1;
    missing.push(ids.length - had);
    if (had > enough * ids.length) cached += 1;
    reader.begin(ids, 'keystroke', key.atMs + debounceMs);
  }
  return { keys, cached, missing, minutes: lastMs / 60_000 };

  /** Prefills for the answer, then for the prompt after the next cut. @returns when both were done */
  function readOn(untilMs: number): number {
    const readMs = reader.readUntil(untilMs);
    const ids = readMs < untilMs ? afterwards() : undefined;
    afterwards = () => undefined;
    if (!ids) return readMs;
    reader.begin(ids, 'warm-up', readMs);
    return reader.readUntil(untilMs);
  }

  /** The extension's work between a key and the next one. */
  function pause(key: Key, untilMs: number): void {
    const idleMs = key.isJump ? limits.completion.restMs : limits.completion.idleMs;
    const freeMs = Math.max(key.atMs + idleMs, readOn(untilMs));
    if (freeMs >= untilMs) return;
    const kept = lists.of(key.path);
    const found = typist.find(key, kept ?? []);
    reader.begin(promptOf(key, kept ?? found).ids, 'warm-up', freeMs);
    const readMs = reader.readUntil(untilMs);
    reader.begin(promptOf(key, found).ids, 'warm-up', readMs);
    if (reader.readUntil(untilMs) < untilMs) lists.keep(key.path, found);
  }
}

/** The default model's context. */
const contextTokens = 8192;
const debounceMs = 50;

/** Prefills prompts into the engine's prefix cache at a constant speed. */
class Reader {
  readonly #msPerToken: number;
  readonly #cache = new PrefixCache({
    decoder: new CountedMemory(),
    maxIdle: (owner) => (owner === 'warm-up' ? idle['warm-up'] : idle.keystroke),
  });
  #work: { readonly ids: readonly number[]; readonly owner: string; readonly fromMs: number } | undefined;

  constructor(tokensPerSecond: number) {
    this.#msPerToken = 1000 / tokensPerSecond;
  }

  cachedTokens(ids: readonly number[]): number {
    return this.#cache.cachedPrefixTokens(ids.slice(0, -1));
  }

  begin(ids: readonly number[], owner: string, fromMs: number): void {
    this.#work = { ids, owner, fromMs };
  }

  /** @returns when it was done; `untilMs` if that cancelled it. */
  readUntil(untilMs: number): number {
    const work = this.#work;
    this.#work = undefined;
    if (!work) return 0;
    if (work.fromMs >= untilMs) return untilMs;
    const lease = this.#cache.acquire(work.ids, work.owner);
    const needed = work.ids.length - lease.cachedTokens;
    const read = Math.min(needed, Math.floor((untilMs - work.fromMs) / this.#msPerToken));
    if (lease.sequence instanceof CountedSequence) lease.sequence.length += read;
    this.#cache.release(lease, work.ids);
    return Math.min(untilMs, work.fromMs + needed * this.#msPerToken);
  }
}

const idle = engineLimits.generation.idleSequences;

class CountedSequence implements Sequence {
  readonly #live: Set<CountedSequence>;
  length: number;

  constructor(live: Set<CountedSequence>, length = 0) {
    this.#live = live;
    this.length = length;
    live.add(this);
  }

  truncate(length: number): number {
    this.length = Math.min(this.length, length);
    return this.length;
  }

  reachable(length: number): number {
    return Math.min(this.length, length);
  }

  setCheckpoints(): void {}

  fork(): CountedSequence {
    return new CountedSequence(this.#live, this.length);
  }

  dispose(): void {
    this.#live.delete(this);
  }
}

/** Memory counted in tokens, with the CPU backend's limit. */
class CountedMemory {
  readonly #live = new Set<CountedSequence>();

  createSequence(): CountedSequence {
    return new CountedSequence(this.#live);
  }

  canAllocate(): boolean {
    return true;
  }

  memory(): DecoderMemory {
    const cacheBytes = [...this.#live].reduce((sum, { length }) => sum + length, 0);
    return { weightBytes: 0, cacheBytes, cacheCapacityBytes: cacheBytes, cacheBytesPerValue: 1, idleLimitBytes };
  }
}

const idleLimitBytes = usualContextTokens;
