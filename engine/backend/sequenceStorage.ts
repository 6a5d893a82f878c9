/** What every backend asks of a stored sequence before it takes it in. */
import { invalidInput } from '../errors.ts';
import type { SequenceShape } from './backend.ts';

/**
 * @param windows how far each group of layers sees; undefined: back to the first token.
 * @throws HearthError `invalid-input` unless it is the shape of a sequence within the context that can be continued.
 */
export function checkShape(
  { tokens, held }: SequenceShape,
  contextTokens: number,
  windows: readonly (number | undefined)[],
): void {
  const fits = Number.isInteger(tokens) && tokens > 0 && tokens <= contextTokens && held.length === windows.length;
  if (fits && windows.every((window, group) => canContinue(held[group] ?? [], tokens, window))) return;
  throw invalidInput(`A stored sequence of ${tokens} tokens does not fit this model.`);
}

/** Stretches ascend, lie apart from each other, and the last one has all that the next token sees. */
function canContinue(stretches: readonly number[], tokens: number, window: number | undefined): boolean {
  const ascends = stretches.every((at, i) => Number.isInteger(at) && at > (stretches[i - 1] ?? -1));
  const firstSeen = window === undefined ? 0 : Math.max(0, tokens - window + 1);
  const [first = tokens, end] = stretches.slice(-2);
  return ascends && stretches.length % 2 === 0 && end === tokens && first <= firstSeen;
}

/** The pieces with their places. @throws Error when they are not of these sizes. */
export async function* piecesFor(
  sizes: readonly number[],
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly [number, Uint8Array]> {
  let index = 0;
  for await (const piece of pieces) {
    if (piece.byteLength !== sizes[index]) throw new Error(`piece ${index} of a stored sequence has another size`);
    yield [index++, piece];
  }
  if (index < sizes.length) throw new Error('a stored sequence lacks pieces');
}

/** The bytes as floats, without a copy where they lie at a multiple of four. */
export function floatsOf(bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}
