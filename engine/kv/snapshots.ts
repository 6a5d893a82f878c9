/**
 * Saves long sequences of a loaded model to disk, so that after a restart a known prefix is read from disk instead of
 * prefilled. Saves while the engine is idle. Restores the most recently used snapshots right after the model is loaded,
 * while the engine is idle, and others when a prompt starts with the same tokens.
 */
import { createHash } from 'node:crypto';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Sequence, SequenceSerializer } from './blockCache.ts';
import { draftOwner, longestShared, type PrefixCache, sharedLength } from './prefixCache.ts';
import {
  listSnapshots,
  readSnapshotPieces,
  removeSnapshot,
  reserveDiskSpace,
  type Snapshot,
  type SnapshotHeader,
  snapshotBytes,
  snapshotPath,
  touchSnapshot,
  writeSnapshot,
} from './snapshotFile.ts';

/** sha256 of the model's files. */
export interface Digest {
  /** Undefined until it is computed. */
  readonly known: string | undefined;
  /** Computes until done or aborted. @returns undefined if it isn't known yet or can't be computed. */
  compute(signal: AbortSignal): Promise<string | undefined>;
}

/** The part of a decoder that snapshots depend on. */
export interface SavedDecoder {
  readonly backend: string;
  readonly spec: unknown;
  readonly contextTokens: number;
  readonly serializer: SequenceSerializer;
}

export interface SnapshotOptions {
  readonly directory: string;
  /** Limit for the snapshots of all models. */
  readonly limitBytes: number;
  /** Nothing is saved or restored until it is known; it is computed while the engine is idle. */
  readonly digest: Digest;
  /** Display name of the model. */
  readonly model: string;
  readonly decoder: SavedDecoder;
  readonly cache: PrefixCache;
  /** Defaults: engine/limits.ts. */
  readonly idleMs?: number;
  readonly pauseMs?: number;
  readonly minTokens?: number;
}

/** Largest share of the limit for one snapshot, so that others remain. */
const maxShare = 1 / 4;
/** Allowance for the header and a partly filled last block. */
const slackTokens = 32;
/** A sequence isn't saved again if a snapshot already holds this share of its tokens. */
const coveredShare = 3 / 4;

export class Snapshots {
  readonly #options: Required<SnapshotOptions>;
  /** Empty until the digest is known. */
  #identity = '';
  #known: Promise<Set<Snapshot>> = Promise.resolve(new Set());
  readonly #preloader: SnapshotPreloader;
  #timer: NodeJS.Timeout | undefined;
  /** Aborts idle-time work. */
  #idle = new AbortController();
  #saving: Promise<void> | undefined;
  #savedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotOptions) {
    const { idleMs, pauseMs, minTokens } = limits.cache;
    this.#options = { idleMs, pauseMs, minTokens, ...options };
    if (options.digest.known !== undefined) this.#identify(options.digest.known);
    this.#preloader = new SnapshotPreloader({
      choose: () => this.#mostRecentlyUsed(),
      restore: (snapshot, signal) => this.#preloadOne(snapshot, signal),
    });
  }

  /** Call when the model is loaded: restores the most recently used snapshots. */
  start(): Promise<void> {
    return this.#preload(this.#idle.signal);
  }

  /** Call when the engine becomes idle: after a delay, continues restoring and then saves what is worth saving. */
  onIdle(): void {
    const waitMs = Math.max(this.#options.idleMs, this.#savedAtMs + this.#options.pauseMs - performance.now());
    clearTimeout(this.#timer);
    this.#idle = new AbortController();
    const { signal } = this.#idle;
    this.#timer = setTimeout(async () => {
      await this.#preload(signal);
      if (!signal.aborted) this.#saving = this.#saveIdle(signal);
    }, waitMs);
    this.#timer.unref();
  }

  /** Call when a request arrives: stops saving at once and starts no further restore. */
  async onRequest(): Promise<void> {
    clearTimeout(this.#timer);
    this.#idle.abort();
    await this.#saving;
    this.#saving = undefined;
  }

  /** Ends all background work; `restorePrefix` still works. */
  async stop(): Promise<void> {
    await this.onRequest();
    await this.#preloader.stop();
  }

  /** Saves now, without waiting for the usual interval. */
  async save(): Promise<void> {
    await this.onRequest();
    await this.#saveIdle(new AbortController().signal);
  }

  /** Restores the longest stored prefix of `tokens` into the cache if it is clearly longer than the cached one. */
  async restorePrefix(tokens: readonly number[], owner: string): Promise<void> {
    const known = await this.#known;
    const { cache, minTokens } = this.#options;
    const { shared, entries } = longest(known, tokens);
    const isWorthIt = () => shared >= cache.cachedPrefixTokens(tokens) + minTokens;
    await this.#preloader.joinOrCancel(isWorthIt() ? entries : []);
    const used = shared >= minTokens ? this.#preloader.firstUsed(entries) : [];
    // All of them share this prefix: take the one that is fastest to read.
    const [snapshot] = entries.toSorted((a, b) => a.bytes - b.bytes);
    if (snapshot && isWorthIt()) {
      const sequence = await this.#restored(snapshot, (canAllocate) => cache.evictUntil(canAllocate));
      if (sequence) {
        cache.adopt(sequence, snapshot.header.tokens, owner);
        used.push(snapshot);
      }
    }
    // If the file can't be touched, it is merely removed sooner.
    for (const { path } of used) await touchSnapshot({ path }).catch(() => {});
  }

  async #preload(signal: AbortSignal): Promise<void> {
    if (this.#identity === '') {
      const digest = await this.#options.digest.compute(signal);
      if (digest === undefined) return;
      this.#identify(digest);
    }
    await this.#preloader.run(signal);
  }

  #identify(digest: string): void {
    this.#identity = identityOf(digest, this.#options.decoder);
    this.#known = this.#list();
  }

  /**
   * @param reserve evicts if needed, and returns whether the sequence fits.
   * @returns undefined if it doesn't fit, the signal was aborted or the file is unusable. A damaged file is removed.
   */
  async #restored(
    snapshot: Snapshot,
    reserve: (canAllocate: () => boolean) => boolean,
    signal?: AbortSignal,
  ): Promise<Sequence | undefined> {
    const { path, header } = snapshot;
    const { serializer } = this.#options.decoder;
    try {
      const shape = { tokens: header.tokens.length, ranges: header.held };
      const sizes = serializer.pieceBytes(shape);
      if (JSON.stringify(sizes) !== JSON.stringify(header.pieceBytes))
        throw new HearthError('invalid-input', 'The pieces of a snapshot have unexpected sizes.');
      if (!reserve(() => serializer.canAllocate(shape))) return undefined;
      return await serializer.restore(shape, readSnapshotPieces(path, header, signal));
    } catch (error) {
      if (signal?.aborted) return undefined;
      (await this.#known).delete(snapshot);
      // The file is unreadable, or the device is full or lost: the contents may still be good.
      if (isDiskError(error) || (error instanceof HearthError && error.code !== 'invalid-input')) return undefined;
      await removeSnapshot(snapshot).catch(() => {});
      if (!(error instanceof HearthError)) throw error;
      return undefined;
    }
  }

  /** The most recently used snapshots that together fit one context window; the remaining memory is for requests. */
  async #mostRecentlyUsed(): Promise<Snapshot[]> {
    let leftTokens = this.#options.decoder.contextTokens;
    const fitting = (await this.#own()).filter(({ header: { tokens } }) => {
      if (tokens.length > leftTokens) return false;
      leftTokens -= tokens.length;
      return true;
    });
    return fitting.slice(0, limits.cache.preloadedSnapshots);
  }

  /** Evicts nothing. */
  async #preloadOne(snapshot: Snapshot, signal: AbortSignal): Promise<boolean> {
    const { cache, minTokens } = this.#options;
    const { tokens } = snapshot.header;
    if (tokens.length < cache.cachedPrefixTokens(tokens) + minTokens) return false;
    const sequence = await this.#restored(snapshot, (canAllocate) => canAllocate(), signal);
    if (sequence) cache.adopt(sequence, tokens, undefined);
    return sequence !== undefined;
  }

  async #saveIdle(signal: AbortSignal): Promise<void> {
    if (this.#identity === '') return;
    try {
      const known = await this.#list();
      this.#known = Promise.resolve(known);
      const { cache, minTokens } = this.#options;
      const longestFirst = [...cache.idle].sort((a, b) => b.tokens.length - a.tokens.length);
      for (const { sequence, tokens, owner } of longestFirst) {
        if (signal.aborted) return;
        if (owner === draftOwner) continue;
        if (tokens.length < minTokens || longest(known, tokens).shared >= coveredShare * tokens.length) continue;
        const fork = sequence.fork();
        try {
          await this.#write(fork, tokens, known, signal);
        } finally {
          fork.dispose();
        }
      }
    } catch {
      // A full or read-only disk makes the next start slower. No request fails because of it.
    }
  }

  async #write(fork: Sequence, tokens: readonly number[], known: Set<Snapshot>, signal: AbortSignal): Promise<void> {
    const { directory, limitBytes, decoder } = this.#options;
    const maxBytes = maxShare * limitBytes;
    const wholeBytes = snapshotBytes(this.#headerOf(fork, tokens));
    if (wholeBytes > maxBytes)
      fork.truncate(Math.max(0, Math.floor((tokens.length * maxBytes) / wholeBytes) - slackTokens));
    const header = this.#headerOf(fork, tokens);
    if (header.tokens.length < this.#options.minTokens || snapshotBytes(header) > maxBytes) return;
    if (longest(known, header.tokens).shared >= coveredShare * header.tokens.length) return;
    const bytes = snapshotBytes(header);
    await reserveDiskSpace(directory, bytes, limitBytes);
    const name = createHash('sha256')
      .update(JSON.stringify([header.identity, header.tokens]))
      .digest('hex');
    const path = snapshotPath(directory, name);
    await writeSnapshot(path, header, decoder.serializer.save(fork), signal);
    this.#savedAtMs = performance.now();
    await this.#removePrefixes(header, known);
    known.add({ path, bytes, usedMs: Date.now(), header });
  }

  /** Removes snapshots that are a prefix of the new one. */
  async #removePrefixes({ tokens }: SnapshotHeader, known: Set<Snapshot>): Promise<void> {
    const { shared, entries } = longest(known, tokens);
    for (const snapshot of entries.filter(({ header }) => header.tokens.length === shared)) {
      known.delete(snapshot);
      await removeSnapshot(snapshot);
    }
  }

  #headerOf(sequence: Sequence, tokens: readonly number[]): SnapshotHeader {
    const { serializer } = this.#options.decoder;
    const shape = serializer.shapeOf(sequence);
    return {
      identity: this.#identity,
      model: this.#options.model,
      tokens: tokens.slice(0, shape.tokens),
      held: shape.ranges.map((range) => [...range]),
      pieceBytes: shape.tokens === 0 ? [] : [...serializer.pieceBytes(shape)],
    };
  }

  async #list(): Promise<Set<Snapshot>> {
    return new Set(await this.#own());
  }

  /** Most recently used first. */
  async #own(): Promise<Snapshot[]> {
    const all = await listSnapshots(this.#options.directory);
    return all.filter(({ header }) => header.identity === this.#identity);
  }
}

const longest = (known: Iterable<Snapshot>, tokens: readonly number[]) =>
  longestShared(known, ({ header }) => sharedLength(header.tokens, tokens));

/** Digest of everything that the cached values depend on: equal identity and equal tokens give equal values. */
function identityOf(digest: string, { backend, serializer, spec }: SavedDecoder): string {
  return createHash('sha256')
    .update(JSON.stringify([digest, backend, serializer.format, spec]))
    .digest('hex');
}

const isDiskError = (error: unknown): boolean => error instanceof Error && 'syscall' in error;

// Restores snapshots in the background, one at a time. A request waits for the restore that it needs and cancels any
// other.

interface PreloaderOptions {
  /** Snapshots to restore, in order; called once. */
  readonly choose: () => Promise<readonly Snapshot[]>;
  /** Restores one snapshot; returns early when the signal is aborted. @returns whether it is in memory. */
  readonly restore: (snapshot: Snapshot, signal: AbortSignal) => Promise<boolean>;
}

class SnapshotPreloader {
  readonly #options: PreloaderOptions;
  #remaining: Snapshot[] | undefined;
  #current: { readonly path: string; readonly stop: AbortController; readonly done: Promise<boolean> } | undefined;
  /** Paths of restored snapshots that no request has used. */
  readonly #unused = new Set<string>();

  constructor(options: PreloaderOptions) {
    this.#options = options;
  }

  /**
   * Restores the remaining snapshots; starts no further one after `signal` is aborted. A cancelled one is retried by
   * the next call.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      this.#remaining ??= [...(await this.#options.choose())];
      for (let [next] = this.#remaining; next && !signal.aborted && !this.#current; [next] = this.#remaining) {
        const { path } = next;
        const stop = new AbortController();
        this.#current = { path, stop, done: this.#options.restore(next, stop.signal) };
        if (await this.#current.done) this.#unused.add(path);
        if (!stop.signal.aborted) this.#remaining.shift();
        this.#current = undefined;
      }
    } catch {
      // No request depends on it; a request that does will report the error.
      this.#current = undefined;
      this.#remaining = [];
    }
  }

  /**
   * Waits for the restore in progress if it is one of `wanted`; cancels it otherwise. Nothing is half restored
   * afterwards.
   */
  async joinOrCancel(wanted: readonly Snapshot[]): Promise<void> {
    const current = this.#current;
    if (!current) return;
    if (!wanted.some(({ path }) => path === current.path)) current.stop.abort();
    await current.done.catch(() => {});
  }

  /** Cancels the restore in progress and starts no further one. */
  async stop(): Promise<void> {
    this.#remaining = [];
    await this.joinOrCancel([]);
  }

  /** The restored snapshots among these that a request uses for the first time. */
  firstUsed(among: readonly Snapshot[]): Snapshot[] {
    return among.filter(({ path }) => this.#unused.delete(path));
  }
}
