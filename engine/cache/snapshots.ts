/**
 * Keeps long sequences of one loaded model on the disk, so that after a restart a prompt that begins like an earlier one is
 * read instead of computed. Written while nobody asks for anything; read when a prompt is asked for that they begin.
 */
import { createHash } from 'node:crypto';
import type { Decoder, Sequence } from '../backend/backend.ts';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { PrefixCache } from './prefixCache.ts';
import { PrefixTree } from './prefixTree.ts';
import { readSnapshotPieces, type SnapshotHeader, snapshotBytes, writeSnapshot } from './snapshotFile.ts';
import {
  listSnapshots,
  makeDiskRoom,
  removeSnapshot,
  type Snapshot,
  snapshotPath,
  touchSnapshot,
} from './snapshotFolder.ts';

export interface SnapshotOptions {
  readonly directory: string;
  /** Of all models together. */
  readonly limitBytes: number;
  /** sha256 of the model's file. */
  readonly digest: string;
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
  readonly #identity: string;
  #known: Promise<PrefixTree<Snapshot>>;
  #timer: NodeJS.Timeout | undefined;
  #saving: { readonly done: Promise<void>; readonly stop: AbortController } | undefined;
  #savedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: SnapshotOptions) {
    const { idleMs, pauseMs, leastTokens } = limits.cache;
    this.#options = { idleMs, pauseMs, leastTokens, ...options };
    this.#identity = identityOf(options);
    this.#known = this.#list();
  }

  /** Nobody asks for anything now: after a while what is worth it is written. */
  rest(): void {
    const waitMs = Math.max(this.#options.idleMs, this.#savedAtMs + this.#options.pauseMs - performance.now());
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const stop = new AbortController();
      this.#saving = { stop, done: this.#saveIdle(stop.signal) };
    }, waitMs);
    this.#timer.unref();
  }

  /** Something is asked for: writing ends at once, and what it held is free. */
  async wake(): Promise<void> {
    clearTimeout(this.#timer);
    this.#saving?.stop.abort();
    await this.#saving?.done;
    this.#saving = undefined;
  }

  /** Writes now what is worth it, whatever was written lately. */
  async save(): Promise<void> {
    await this.wake();
    await this.#saveIdle(new AbortController().signal);
  }

  /** Puts the longest stored beginning of `tokens` into the cache, where it is well longer than what is there. */
  async recall(tokens: readonly number[], owner: string): Promise<void> {
    const known = await this.#known;
    const { shared, values } = known.longest(tokens);
    const [snapshot] = values;
    if (!snapshot || shared < this.#options.cache.known(tokens) + this.#options.leastTokens) return;
    try {
      const sequence = await this.#restored(snapshot);
      if (sequence) this.#options.cache.adopt(sequence, snapshot.header.tokens, owner);
    } catch (error) {
      known.delete(snapshot.header.tokens, snapshot);
      // The file is gone or cannot be read now, or the device has no room or is gone: nothing is wrong with its contents.
      if (isDiskError(error) || (error instanceof HearthError && error.code !== 'invalid-input')) return;
      await removeSnapshot(snapshot).catch(() => {});
      if (!(error instanceof HearthError)) throw error;
      return;
    }
    // Where it cannot be written, it goes as if it had not been used.
    await touchSnapshot(snapshot).catch(() => {});
  }

  async #restored({ path, header }: Snapshot): Promise<Sequence | undefined> {
    const { cache, decoder } = this.#options;
    const { storage } = decoder;
    const shape = { tokens: header.tokens.length, held: header.held };
    const sizes = storage.pieceBytes(shape);
    if (JSON.stringify(sizes) !== JSON.stringify(header.pieceBytes))
      throw new HearthError('invalid-input', 'A stored sequence has pieces of other sizes.');
    if (!cache.makeRoomWhere(() => storage.hasRoom(shape))) return undefined;
    return storage.restore(shape, readSnapshotPieces(path, header));
  }

  async #saveIdle(signal: AbortSignal): Promise<void> {
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
    for (const snapshot of await listSnapshots(this.#options.directory)) {
      if (snapshot.header.identity === this.#identity) tree.insert(snapshot.header.tokens, snapshot);
    }
    return tree;
  }
}

/** Whatever the values follow from: two sequences of one identity and the same tokens are the same. */
function identityOf({ digest, decoder }: SnapshotOptions): string {
  const { backend, storage, spec } = decoder;
  return createHash('sha256')
    .update(JSON.stringify([digest, backend, storage.format, spec]))
    .digest('hex');
}

const isDiskError = (error: unknown): boolean => error instanceof Error && 'syscall' in error;
