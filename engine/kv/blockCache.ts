/** Sequences of the KV cache as every backend offers them, and the cache of the production backends that holds them. */
import { invalidInput } from '../errors.ts';
import { type BlockCopy, type BlockGroup, BlockPool, BlockTable, heldBlocks, noRoomFor } from './blocks.ts';
import { StateTable } from './states.ts';

/** The KV cache of one token sequence in one decoder. */
export interface Sequence {
  /** Number of cached tokens. */
  readonly length: number;
  /**
   * Removes all tokens from position `length` on.
   * @returns the resulting length: less than `length` if a sliding window no longer has what that position attends to,
   * or if the state of recurrent layers at that position was not kept.
   */
  truncate(length: number): number;
  /** The length that `truncate(length)` would return. */
  reachable(length: number): number;
  /**
   * Sets the lengths, past or future, that a caller is likely to truncate to; replaces earlier ones and is copied to
   * forks. The sequence keeps a checkpoint of its sliding windows at most of these lengths (`selectCheckpoints`).
   */
  setCheckpoints(lengths: readonly number[]): void;
  /** A sequence with the same cached tokens. Shares memory if the backend can. */
  fork(): Sequence;
  dispose(): void;
}

/** The largest length up to `length` that all parts of a sequence can be truncated to. */
export function reachableByAll(parts: readonly Pick<Sequence, 'reachable'>[], length: number): number {
  const reached = parts.reduce((least, part) => part.reachable(least), length);
  // An earlier part may not be able to reach the length that a later part fell back to.
  return reached === length ? length : reachableByAll(parts, reached);
}

/** The sequence as the backend's own type. @throws Error if it was disposed or belongs to another decoder. */
export function requireOwn<Own extends Sequence>(own: Own | undefined): Own {
  if (!own) throw new Error('The sequence was disposed or belongs to another decoder.');
  return own;
}

/** A sequence and the number of tokens about to be appended to it. */
export interface CacheDemand {
  readonly sequence: Sequence;
  readonly tokens: number;
}

/** Which tokens of a sequence are cached. */
export interface SequenceShape {
  readonly tokens: number;
  /**
   * For each window group (layers with the same sliding window): cached position ranges, flattened as start, end,
   * start, end, …
   */
  readonly ranges: readonly (readonly number[])[];
}

/** Exports a sequence's keys and values and imports them again. A restored sequence computes bit-identical results. */
export interface SequenceSerializer {
  /** Names the byte layout: everything that the bytes depend on besides weights and spec. */
  readonly format: string;
  shapeOf(sequence: Sequence): SequenceShape;
  /**
   * Byte lengths of the pieces of such a sequence, in order.
   * @throws HearthError `invalid-input` if this decoder can't hold that shape.
   */
  pieceBytes(shape: SequenceShape): readonly number[];
  /** The sequence must not change until the iteration ends. */
  save(sequence: Sequence): AsyncIterable<Uint8Array>;
  /** Whether the KV cache can take such a sequence now. */
  canAllocate(shape: SequenceShape): boolean;
  /**
   * Takes ownership of the pieces' memory.
   * @throws HearthError `out-of-memory`, `device-lost`, and errors of `pieces`; the partial sequence is then disposed.
   */
  restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence>;
}

// Validation of restored sequences.

/**
 * @param windows sliding window of each window group in tokens; undefined: full attention.
 * @throws HearthError `invalid-input` unless the shape fits the context and the sequence can be continued.
 */
export function checkShape(
  { tokens, ranges }: SequenceShape,
  contextTokens: number,
  windows: readonly (number | undefined)[],
): void {
  const fits = Number.isInteger(tokens) && tokens > 0 && tokens <= contextTokens && ranges.length === windows.length;
  if (fits && windows.every((window, group) => canContinue(ranges[group] ?? [], tokens, window))) return;
  throw invalidInput(`A stored sequence of ${tokens} tokens doesn't fit this model.`);
}

/** Ranges must ascend without touching, and the last one must hold everything that the next token attends to. */
function canContinue(ranges: readonly number[], tokens: number, window: number | undefined): boolean {
  const ascends = ranges.every((at, i) => Number.isInteger(at) && at > (ranges[i - 1] ?? -1));
  const firstSeen = window === undefined ? 0 : Math.max(0, tokens - window + 1);
  const [first = tokens, end] = ranges.slice(-2);
  return ascends && ranges.length % 2 === 0 && end === tokens && first <= firstSeen;
}

/** Yields the pieces with their index. @throws Error if a piece doesn't have its size or is missing. */
export async function* piecesFor(
  sizes: readonly number[],
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly [number, Uint8Array]> {
  let index = 0;
  for await (const piece of pieces) {
    if (piece.byteLength !== sizes[index]) throw new Error(`Piece ${index} of a stored sequence has the wrong size.`);
    yield [index++, piece];
  }
  if (index < sizes.length) throw new Error('A stored sequence is missing pieces.');
}

// The KV cache of a decoder: its sequences, the blocks that they share, and whether more fit. Every decision about memory
// is made here; a backend supplies memory by block (`BlockStorage`).

/** What a backend supplies. It copies the blocks that `BlockCache.prepare` names. */
export interface BlockStorage {
  /** Names the byte layout of `read`: everything that it depends on besides weights and spec. */
  readonly format: string;
  readonly groups: readonly BlockGroup[];
  /** The group of each layer, and the bytes of one of its blocks. */
  readonly layers: readonly { readonly group: number; readonly blockBytes: number }[];
  readonly capacityBytes: number;
  /** Bytes of all blocks of a sequence in one layer, by position. */
  read(sequence: CachedSequence, layer: number): Promise<Uint8Array>;
  /** Takes ownership of the bytes that `read` returned for a sequence with the same ranges. */
  write(sequence: CachedSequence, layer: number, bytes: Uint8Array): Promise<void>;
  /** `from`: the sequence that it was forked from. */
  created?(sequence: CachedSequence, from?: CachedSequence): void;
  /** The sequence has lost blocks. */
  changed?(sequence: CachedSequence): void;
  disposed?(sequence: CachedSequence): void;
}

/** A sequence as blocks of a `BlockCache`. */
export class CachedSequence implements Sequence {
  readonly id: number;
  length = 0;
  /** One for each window group, and one for the states of recurrent layers. */
  readonly tables: readonly (BlockTable | StateTable)[];
  readonly #cache: BlockCache;

  constructor(id: number, cache: BlockCache, tables: CachedSequence['tables']) {
    this.id = id;
    this.#cache = cache;
    this.tables = tables;
  }

  truncate(length: number): number {
    if (!Number.isInteger(length) || length < 0) throw new RangeError(`A sequence can't have ${length} tokens.`);
    if (length >= this.length) return this.length;
    this.length = this.reachable(length);
    for (const table of this.tables) table.truncate(this.length);
    this.#cache.storage.changed?.(this);
    return this.length;
  }

  reachable(length: number): number {
    return reachableByAll(this.tables, Math.min(length, this.length));
  }

  setCheckpoints(lengths: readonly number[]): void {
    for (const table of this.tables) table.setCheckpoints(lengths);
  }

  /**
   * Most tokens of a pass that starts at `length` and ends no later than the next position whose state must be kept.
   */
  tokensUntilCheckpoint(length: number): number {
    const states = this.tables.find((table) => table instanceof StateTable);
    return states?.tokensUntilCheckpoint(length) ?? Number.POSITIVE_INFINITY;
  }

  fork(): CachedSequence {
    return this.#cache.create(this);
  }

  dispose(): void {
    if (!this.#cache.forget(this)) return;
    for (const table of this.tables) table.truncate(0);
    this.length = 0;
    this.#cache.storage.disposed?.(this);
  }

  /**
   * Appends the tokens that a forward pass has written. Releases blocks that it didn't need, except those of `ahead` more
   * tokens that the device is about to write.
   */
  advance(tokens: number, ahead = 0): void {
    this.length += tokens;
    const lost = this.tables.map((table) => {
      table.truncate(this.length + ahead);
      return table.slide(this.length);
    });
    if (lost.includes(true)) this.#cache.storage.changed?.(this);
  }
}

export class BlockCache implements SequenceSerializer {
  readonly storage: BlockStorage;
  readonly pools: readonly BlockPool[];
  readonly #contextTokens: number;
  readonly #sequences = new Set<CachedSequence>();
  #created = 0;

  constructor(storage: BlockStorage, contextTokens: number) {
    this.storage = storage;
    this.pools = storage.groups.map((group) => new BlockPool(group));
    this.#contextTokens = contextTokens;
  }

  get format(): string {
    return this.storage.format;
  }

  get usedBytes(): number {
    return this.pools.reduce((sum, { usedBlocks, group }) => sum + usedBlocks * group.blockBytes, 0);
  }

  /** An empty sequence, or a fork. */
  create(from?: CachedSequence): CachedSequence {
    const newTables = () =>
      this.pools.map((pool) => (pool.group.isState ? new StateTable(pool) : new BlockTable(pool)));
    const sequence = new CachedSequence(
      this.#created++,
      this,
      from?.tables.map((table) => table.fork()) ?? newTables(),
    );
    sequence.length = from?.length ?? 0;
    // Blocks of tokens that the device is about to write stay with the original.
    for (const table of sequence.tables) table.truncate(sequence.length);
    this.#sequences.add(sequence);
    this.storage.created?.(sequence, from);
    return sequence;
  }

  /** For `CachedSequence.dispose`. @returns false if it was disposed before. */
  forget(sequence: CachedSequence): boolean {
    return this.#sequences.delete(sequence);
  }

  /** Forgets every sequence: the decoder is disposed. */
  clear(): void {
    this.#sequences.clear();
  }

  /** Undefined for a disposed sequence or one of another decoder. */
  own(sequence: Sequence): CachedSequence | undefined {
    return sequence instanceof CachedSequence && this.#sequences.has(sequence) ? sequence : undefined;
  }

  /** See `Decoder.canAllocate`. */
  hasRoom(demands: readonly CacheDemand[]): boolean {
    const needed = this.pools.map((_, group) =>
      demands.reduce((sum, { sequence, tokens }) => {
        const { length, tables } = requireOwn(this.own(sequence));
        return sum + (tables[group]?.blocksNeeded(length, length + tokens) ?? 0);
      }, 0),
    );
    return this.#fits(needed);
  }

  /** @throws HearthError `out-of-memory` if the tokens about to be appended don't fit. */
  requireRoom(demands: readonly CacheDemand[]): void {
    if (!this.hasRoom(demands)) throw noRoomFor(demands);
  }

  /**
   * Takes the blocks for the tokens about to be appended.
   * @returns for each group the blocks to copy before anything is written.
   * @throws HearthError `out-of-memory`; nothing is changed then.
   */
  prepare(demands: readonly CacheDemand[]): (readonly BlockCopy[])[] {
    this.requireRoom(demands);
    return this.pools.map((_, group) =>
      demands.flatMap(({ sequence, tokens }) => {
        const { length, tables } = requireOwn(this.own(sequence));
        return tables[group]?.prepare(length, length + tokens) ?? [];
      }),
    );
  }

  #fits(needed: readonly number[]): boolean {
    const bytes = this.pools.reduce((sum, { group }, i) => sum + (needed[i] ?? 0) * group.blockBytes, this.usedBytes);
    return (
      bytes <= this.storage.capacityBytes && this.pools.every(({ freeBlocks }, i) => (needed[i] ?? 0) <= freeBlocks)
    );
  }

  // Export and import: for each layer one piece, the blocks of the sequence by position.

  shapeOf(sequence: Sequence): SequenceShape {
    const { length, tables } = requireOwn(this.own(sequence));
    return { tokens: length, ranges: tables.map((table) => table.held(length)) };
  }

  pieceBytes(shape: SequenceShape): number[] {
    // The next token needs the last state only.
    const windows = this.pools.map(({ group }) => (group.isState ? 1 : group.slidingWindow));
    checkShape(shape, this.#contextTokens, windows);
    const blocks = this.#blocksOf(shape);
    return this.storage.layers.map(({ group, blockBytes }) => (blocks[group] ?? 0) * blockBytes);
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const own = requireOwn(this.own(sequence));
    for (const layer of this.storage.layers.keys()) yield await this.storage.read(own, layer);
  }

  canAllocate(shape: SequenceShape): boolean {
    return this.#fits(this.#blocksOf(shape));
  }

  #blocksOf({ ranges }: SequenceShape): number[] {
    return this.pools.map(({ group }, i) => heldBlocks(ranges[i] ?? [], group.blockTokens).size);
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<CachedSequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.create();
    // The next piece is read while this one is written.
    let writing = Promise.resolve();
    try {
      for (const [group, table] of sequence.tables.entries()) table.hold(shape.ranges[group] ?? []);
      sequence.length = shape.tokens;
      for await (const [layer, piece] of piecesFor(sizes, pieces)) {
        await writing;
        writing = this.storage.write(sequence, layer, piece);
        writing.catch(() => {});
      }
      await writing;
      return sequence;
    } catch (error) {
      await writing.catch(() => {});
      sequence.dispose();
      throw error;
    }
  }
}
