/**
 * A sequence of the KV cache as every backend offers it: what it holds, how it is truncated, exported and imported.
 */
import { invalidInput } from '../errors.ts';

/** The KV cache of one token sequence in one decoder. */
export interface Sequence {
  /** Number of cached tokens. */
  readonly length: number;
  /**
   * Removes all tokens from position `length` on.
   * @returns the resulting length: less than `length` if a sliding window no longer has what that position attends to.
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

/** Views the bytes as f32; copies only if they aren't 4-byte aligned. */
export function floatsOf(bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}
