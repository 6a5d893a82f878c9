/**
 * The KV cache of a decoder: its sequences, the blocks that they share, and whether more fit. Every decision about memory
 * is made here; a backend supplies memory by block (`BlockStorage`).
 */
import { HearthError } from '../errors.ts';
import { type BlockCopy, type BlockGroup, BlockPool, BlockTable, heldBlocks } from './blocks.ts';
import {
  type CacheDemand,
  checkShape,
  piecesFor,
  type Sequence,
  type SequenceSerializer,
  type SequenceShape,
} from './sequence.ts';

/** What a backend supplies. It copies the blocks that `BlockCache.prepare` names. */
export interface BlockStorage {
  /** Names the byte layout of `read`: everything that it depends on besides weights and spec. */
  readonly format: string;
  readonly groups: readonly BlockGroup[];
  /** For each layer its group, and the bytes of one block. */
  readonly layers: readonly { readonly group: number; readonly blockBytes: number }[];
  readonly capacityBytes: number;
  /** Bytes of all blocks of a sequence in one layer, by position. */
  read(sequence: CachedSequence, layer: number): Promise<Uint8Array>;
  /** Takes ownership of the bytes that `read` returned for a sequence with the same ranges. */
  write(sequence: CachedSequence, layer: number, bytes: Uint8Array): Promise<void>;
  /** `from`: it is a fork of this sequence. */
  created?(sequence: CachedSequence, from?: CachedSequence): void;
  /** The sequence has lost blocks. */
  changed?(sequence: CachedSequence): void;
  disposed?(sequence: CachedSequence): void;
}

/** A sequence as blocks of a `BlockCache`. */
export class CachedSequence implements Sequence {
  readonly id: number;
  length = 0;
  /** One for each window group. */
  readonly tables: readonly BlockTable[];
  readonly #cache: BlockCache;

  constructor(id: number, cache: BlockCache, tables: readonly BlockTable[]) {
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
    let reached = Math.min(length, this.length);
    for (let before = -1; before !== reached; ) {
      before = reached;
      reached = this.tables.reduce((least, table) => table.reachable(least), reached);
    }
    return reached;
  }

  setCheckpoints(lengths: readonly number[]): void {
    for (const table of this.tables) table.setCheckpoints(lengths);
  }

  fork(): CachedSequence {
    return this.#cache.fork(this);
  }

  dispose(): void {
    this.#cache.dispose(this);
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

  create(): CachedSequence {
    return this.#add(this.pools.map((pool) => new BlockTable(pool)));
  }

  fork(sequence: CachedSequence): CachedSequence {
    const tables = sequence.tables.map((table) => table.fork());
    // Blocks of tokens that the device is about to write stay with the original.
    for (const table of tables) table.truncate(sequence.length);
    return this.#add(tables, sequence);
  }

  #add(tables: readonly BlockTable[], from?: CachedSequence): CachedSequence {
    const sequence = new CachedSequence(this.#created++, this, tables);
    sequence.length = from?.length ?? 0;
    this.#sequences.add(sequence);
    this.storage.created?.(sequence, from);
    return sequence;
  }

  dispose(sequence: CachedSequence): void {
    if (!this.#sequences.delete(sequence)) return;
    for (const table of sequence.tables) table.truncate(0);
    sequence.length = 0;
    this.storage.disposed?.(sequence);
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
    return this.#fits((group) =>
      demands.reduce((sum, { sequence, tokens }) => {
        const { length, tables } = this.#require(sequence);
        return sum + (tables[group]?.blocksNeeded(length, length + tokens) ?? 0);
      }, 0),
    );
  }

  /** @throws HearthError `out-of-memory` if the tokens about to be appended don't fit. */
  requireRoom(demands: readonly CacheDemand[]): void {
    if (this.hasRoom(demands)) return;
    throw new HearthError(
      'out-of-memory',
      'The open conversations fill the KV cache. Nothing was changed. Close one, or load the model with a shorter context.',
    );
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
        const { length, tables } = this.#require(sequence);
        return tables[group]?.prepare(length, length + tokens) ?? [];
      }),
    );
  }

  #fits(blocksOf: (group: number) => number): boolean {
    const needed = this.pools.map((_, group) => blocksOf(group));
    const bytes = this.pools.reduce((sum, { group }, i) => sum + (needed[i] ?? 0) * group.blockBytes, this.usedBytes);
    return (
      bytes <= this.storage.capacityBytes && this.pools.every(({ freeBlocks }, i) => (needed[i] ?? 0) <= freeBlocks)
    );
  }

  #require(sequence: Sequence): CachedSequence {
    const own = this.own(sequence);
    if (!own) throw new Error('The sequence was disposed or belongs to another decoder.');
    return own;
  }

  // Export and import: for each layer one piece, the blocks of the sequence by position.

  shapeOf(sequence: Sequence): SequenceShape {
    const { length, tables } = this.#require(sequence);
    return { tokens: length, ranges: tables.map((table) => table.held(length)) };
  }

  pieceBytes(shape: SequenceShape): number[] {
    const windows = this.pools.map(({ group }) => group.slidingWindow);
    checkShape(shape, this.#contextTokens, windows);
    const blocks = this.#blocksOf(shape);
    return this.storage.layers.map(({ group, blockBytes }) => (blocks[group] ?? 0) * blockBytes);
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const own = this.#require(sequence);
    for (const layer of this.storage.layers.keys()) yield await this.storage.read(own, layer);
  }

  canAllocate(shape: SequenceShape): boolean {
    const blocks = this.#blocksOf(shape);
    return this.#fits((group) => blocks[group] ?? 0);
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
