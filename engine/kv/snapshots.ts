/**
 * Keeps long sequences of one loaded model on the disk, so that after a restart a prompt that begins like an earlier one is
 * read instead of computed. Written while nobody asks for anything. Those used last are read as soon as the model is loaded,
 * as long as nobody asks for anything; others when a prompt is asked for that they begin.
 */
import { createHash } from 'node:crypto';
import type { Decoder, Sequence } from '../backend/backend.ts';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { PrefixCache } from './prefixCache.ts';
import { PrefixTree } from './prefixTree.ts';
import {
  listSnapshots,
  makeDiskRoom,
  readSnapshotPieces,
  removeSnapshot,
  type Snapshot,
  type SnapshotHeader,
  snapshotBytes,
  snapshotPath,
  touchSnapshot,
  writeSnapshot,
} from './snapshotFile.ts';

/** sha256 of a model's files. */
export interface Digest {
  /** Undefined until it is computed. */
  readonly known: string | undefined;
  /** Goes on computing until `signal` is aborted. @returns undefined: not yet, or never. */
  compute(signal: AbortSignal): Promise<string | undefined>;
}

export interface SnapshotOptions {
  readonly directory: string;
  /** Of all models together. */
  readonly limitBytes: number;
  /** Until it is known, nothing is written or read; it is computed while nobody asks for anything. */
  readonly digest: Digest;
  /** Its name, for people. */
  readonly model: string;
  readonly decoder: Decoder;
  readonly cache: PrefixCache;
  /** Absent: those of engine/limits.ts. */
  readonly idleMs?: number;
  readonly pauseMs?: number;
  readonly leastTokens?: number;
}

/** One snapshot takes no more of the limit than this, so that some others stay. */
const mostShare = 1 / 4;
/** The header, and a last page that is not full, take room too. */
const slackTokens = 32;
/** What is stored of a sequence's beginning is enough when it is this much of it. */
const enoughShare = 3 / 4;

export class Snapshots {
  readonly #options: Required<SnapshotOptions>;
  /** Empty until the digest is known. */
  #identity = '';
  #known: Promise<PrefixTree<Snapshot>> = Promise.resolve(new PrefixTree());
  readonly #ahead: RestoreAhead;
  #timer: NodeJS.Timeout | undefined;
  /** Ends what is done while nobody asks for anything. */
  #idle = new AbortController();
  #saving: Promise<void> | undefined;
  #savedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotOptions) {
    const { idleMs, pauseMs, leastTokens } = limits.cache;
    this.#options = { idleMs, pauseMs, leastTokens, ...options };
    if (options.digest.known !== undefined) this.#identify(options.digest.known);
    this.#ahead = new RestoreAhead({
      choose: () => this.#usedLast(),
      restore: (snapshot, signal) => this.#restoreAhead(snapshot, signal),
    });
  }

  /** The model is loaded and nobody has asked for anything yet: what was used last is read. */
  start(): Promise<void> {
    return this.#readAhead(this.#idle.signal);
  }

  /** Nobody asks for anything now: after a while what was not read at the start is, and what is worth it is written. */
  rest(): void {
    const waitMs = Math.max(this.#options.idleMs, this.#savedAtMs + this.#options.pauseMs - performance.now());
    clearTimeout(this.#timer);
    this.#idle = new AbortController();
    const { signal } = this.#idle;
    this.#timer = setTimeout(async () => {
      await this.#readAhead(signal);
      if (!signal.aborted) this.#saving = this.#saveIdle(signal);
    }, waitMs);
    this.#timer.unref();
  }

  /** Something is asked for: writing ends at once, and what it held is free; no other read ahead begins. */
  async wake(): Promise<void> {
    clearTimeout(this.#timer);
    this.#idle.abort();
    await this.#saving;
    this.#saving = undefined;
  }

  /** Nothing is read or written any more but for a request. */
  async stop(): Promise<void> {
    await this.wake();
    await this.#ahead.stop();
  }

  /** Writes now what is worth it, whatever was written lately. */
  async save(): Promise<void> {
    await this.wake();
    await this.#saveIdle(new AbortController().signal);
  }

  /** Puts the longest stored beginning of `tokens` into the cache, where it is well longer than what is there. */
  async recall(tokens: readonly number[], owner: string): Promise<void> {
    const known = await this.#known;
    const { cache, leastTokens } = this.#options;
    const { shared, values } = known.longest(tokens);
    const isWorthIt = () => shared >= cache.known(tokens) + leastTokens;
    await this.#ahead.settle(isWorthIt() ? values : []);
    const used = shared >= leastTokens ? this.#ahead.firstUsed(values) : [];
    // They all begin so: the one that is read fastest.
    const [snapshot] = values.toSorted((a, b) => a.bytes - b.bytes);
    if (snapshot && isWorthIt()) {
      const sequence = await this.#restored(snapshot, (hasRoom) => cache.makeRoomWhere(hasRoom));
      if (sequence) {
        cache.adopt(sequence, snapshot.header.tokens, owner);
        used.push(snapshot);
      }
    }
    // Where it cannot be written, it goes as if it had not been used.
    for (const { path } of used) await touchSnapshot({ path }).catch(() => {});
  }

  async #readAhead(signal: AbortSignal): Promise<void> {
    if (this.#identity === '') {
      const digest = await this.#options.digest.compute(signal);
      if (digest === undefined) return;
      this.#identify(digest);
    }
    await this.#ahead.run(signal);
  }

  #identify(digest: string): void {
    this.#identity = identityOf(digest, this.#options.decoder);
    this.#known = this.#list();
  }

  /**
   * @param makeRoom whether there is room, or has been made
   * @returns undefined where there is none, the signal was aborted or the file cannot be used; one that is not what was written is removed.
   */
  async #restored(
    snapshot: Snapshot,
    makeRoom: (hasRoom: () => boolean) => boolean,
    signal?: AbortSignal,
  ): Promise<Sequence | undefined> {
    const { path, header } = snapshot;
    const { storage } = this.#options.decoder;
    try {
      const shape = { tokens: header.tokens.length, held: header.held };
      const sizes = storage.pieceBytes(shape);
      if (JSON.stringify(sizes) !== JSON.stringify(header.pieceBytes))
        throw new HearthError('invalid-input', 'A stored sequence has pieces of other sizes.');
      if (!makeRoom(() => storage.hasRoom(shape))) return undefined;
      return await storage.restore(shape, readSnapshotPieces(path, header, signal));
    } catch (error) {
      if (signal?.aborted) return undefined;
      (await this.#known).delete(header.tokens, snapshot);
      // The file is gone or cannot be read now, or the device has no room or is gone: nothing is wrong with its contents.
      if (isDiskError(error) || (error instanceof HearthError && error.code !== 'invalid-input')) return undefined;
      await removeSnapshot(snapshot).catch(() => {});
      if (!(error instanceof HearthError)) throw error;
      return undefined;
    }
  }

  /** Some that were used last, together no longer than one context: memory is for what is used. */
  async #usedLast(): Promise<Snapshot[]> {
    let leftTokens = this.#options.decoder.contextTokens;
    const fitting = (await this.#own()).filter(({ header: { tokens } }) => {
      if (tokens.length > leftTokens) return false;
      leftTokens -= tokens.length;
      return true;
    });
    return fitting.slice(0, limits.cache.restoredAhead);
  }

  /** Drops nothing that is in memory. */
  async #restoreAhead(snapshot: Snapshot, signal: AbortSignal): Promise<boolean> {
    const { cache, leastTokens } = this.#options;
    const { tokens } = snapshot.header;
    if (tokens.length < cache.known(tokens) + leastTokens) return false;
    const sequence = await this.#restored(snapshot, (hasRoom) => hasRoom(), signal);
    if (sequence) cache.adopt(sequence, tokens, undefined);
    return sequence !== undefined;
  }

  async #saveIdle(signal: AbortSignal): Promise<void> {
    if (this.#identity === '') return;
    try {
      const known = await this.#list();
      this.#known = Promise.resolve(known);
      const { cache, leastTokens } = this.#options;
      const longestFirst = [...cache.idle].sort((a, b) => b.tokens.length - a.tokens.length);
      for (const { sequence, tokens } of longestFirst) {
        if (signal.aborted) return;
        if (tokens.length < leastTokens || known.longest(tokens).shared >= enoughShare * tokens.length) continue;
        const fork = sequence.fork();
        try {
          await this.#write(fork, tokens, known, signal);
        } finally {
          fork.dispose();
        }
      }
    } catch {
      // A full or read-only disk costs the next start time, and is no failure of anything that was asked for.
    }
  }

  async #write(
    fork: Sequence,
    tokens: readonly number[],
    known: PrefixTree<Snapshot>,
    signal: AbortSignal,
  ): Promise<void> {
    const { directory, limitBytes, decoder } = this.#options;
    const mostBytes = mostShare * limitBytes;
    const wholeBytes = snapshotBytes(this.#headerOf(fork, tokens));
    if (wholeBytes > mostBytes)
      fork.truncate(Math.max(0, Math.floor((tokens.length * mostBytes) / wholeBytes) - slackTokens));
    const header = this.#headerOf(fork, tokens);
    if (header.tokens.length < this.#options.leastTokens || snapshotBytes(header) > mostBytes) return;
    if (known.longest(header.tokens).shared >= enoughShare * header.tokens.length) return;
    const bytes = snapshotBytes(header);
    await makeDiskRoom(directory, bytes, limitBytes);
    const name = createHash('sha256')
      .update(JSON.stringify([header.identity, header.tokens]))
      .digest('hex');
    const path = snapshotPath(directory, name);
    await writeSnapshot(path, header, decoder.storage.save(fork), signal);
    this.#savedAtMs = performance.now();
    await this.#replaceBeginnings(header, known);
    known.insert(header.tokens, { path, bytes, usedMs: Date.now(), header });
  }

  /** A stored sequence that the new one begins with is of no more use. */
  async #replaceBeginnings({ tokens }: SnapshotHeader, known: PrefixTree<Snapshot>): Promise<void> {
    const { shared, values } = known.longest(tokens);
    for (const snapshot of values.filter(({ header }) => header.tokens.length === shared)) {
      known.delete(snapshot.header.tokens, snapshot);
      await removeSnapshot(snapshot);
    }
  }

  #headerOf(sequence: Sequence, tokens: readonly number[]): SnapshotHeader {
    const { storage } = this.#options.decoder;
    const shape = storage.shapeOf(sequence);
    return {
      identity: this.#identity,
      model: this.#options.model,
      tokens: tokens.slice(0, shape.tokens),
      held: shape.held.map((stretches) => [...stretches]),
      pieceBytes: shape.tokens === 0 ? [] : [...storage.pieceBytes(shape)],
    };
  }

  async #list(): Promise<PrefixTree<Snapshot>> {
    const tree = new PrefixTree<Snapshot>();
    for (const snapshot of await this.#own()) tree.insert(snapshot.header.tokens, snapshot);
    return tree;
  }

  /** Last used first. */
  async #own(): Promise<Snapshot[]> {
    const all = await listSnapshots(this.#options.directory);
    return all.filter(({ header }) => header.identity === this.#identity);
  }
}

/** Whatever the values follow from: two sequences of one identity and the same tokens are the same. */
function identityOf(digest: string, { backend, storage, spec }: Decoder): string {
  return createHash('sha256')
    .update(JSON.stringify([digest, backend, storage.format, spec]))
    .digest('hex');
}

const isDiskError = (error: unknown): boolean => error instanceof Error && 'syscall' in error;

// Reads stored sequences while nobody asks for anything, one after the other; a request joins the read that it wants, and ends another.

interface RestoreAheadOptions {
  /** What is worth it, first to last; asked once. */
  readonly choose: () => Promise<readonly Snapshot[]>;
  /** Puts one into memory; resolves early once the signal is aborted. @returns whether it is there now. */
  readonly restore: (snapshot: Snapshot, signal: AbortSignal) => Promise<boolean>;
}

class RestoreAhead {
  readonly #options: RestoreAheadOptions;
  #left: Snapshot[] | undefined;
  #reading: { readonly path: string; readonly stop: AbortController; readonly done: Promise<boolean> } | undefined;
  /** Paths of those in memory that nobody has asked for yet. */
  readonly #unused = new Set<string>();

  constructor(options: RestoreAheadOptions) {
    this.#options = options;
  }

  /** Reads what is left; begins no other one after `signal`. One that was ended is read again at the next run. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      this.#left ??= [...(await this.#options.choose())];
      for (let [next] = this.#left; next && !signal.aborted && !this.#reading; [next] = this.#left) {
        const { path } = next;
        const stop = new AbortController();
        this.#reading = { path, stop, done: this.#options.restore(next, stop.signal) };
        if (await this.#reading.done) this.#unused.add(path);
        if (!stop.signal.aborted) this.#left.shift();
        this.#reading = undefined;
      }
    } catch {
      // Nobody has asked for it; whoever does hears what is wrong.
      this.#reading = undefined;
      this.#left = [];
    }
  }

  /** Waits for the read in progress if it is of one of these, and ends it otherwise. Afterwards it holds nothing half read. */
  async settle(wanted: readonly Snapshot[]): Promise<void> {
    const reading = this.#reading;
    if (!reading) return;
    if (!wanted.some(({ path }) => path === reading.path)) reading.stop.abort();
    await reading.done.catch(() => {});
  }

  /** Reads nothing more. */
  async stop(): Promise<void> {
    this.#left = [];
    await this.settle([]);
  }

  /** Of these, those that were read ahead and are asked for now for the first time. */
  firstUsed(among: readonly Snapshot[]): Snapshot[] {
    return among.filter(({ path }) => this.#unused.delete(path));
  }
}
