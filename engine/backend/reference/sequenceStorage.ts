/** Keys and values outside the decoder: of every layer the keys, then the values, `[tokens, width]` f32. */
import type { Decoder, Sequence, SequenceShape, SequenceStorage } from '../backend.ts';
import { checkShape, floatsOf, piecesFor } from '../sequenceStorage.ts';
import { ReferenceSequence } from './cache.ts';

export class ReferenceStorage implements SequenceStorage {
  readonly format: string;
  readonly #decoder: Pick<Decoder, 'contextTokens' | 'createSequence'>;
  readonly #hasRoom: (tokens: number) => boolean;

  constructor(
    decoder: Pick<Decoder, 'contextTokens' | 'createSequence'>,
    format: string,
    hasRoom: (tokens: number) => boolean,
  ) {
    this.format = format;
    this.#decoder = decoder;
    this.#hasRoom = hasRoom;
  }

  shapeOf({ length }: Sequence): SequenceShape {
    return { tokens: length, held: [[0, length]] };
  }

  pieceBytes(shape: SequenceShape): number[] {
    checkShape(shape, this.#decoder.contextTokens, [undefined]);
    const empty = this.#create();
    empty.dispose();
    return empty.rows.map(({ width }) => 4 * width * shape.tokens);
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    if (!(sequence instanceof ReferenceSequence)) throw new Error('a sequence of another decoder');
    for (const { values, width } of sequence.rows) {
      yield new Uint8Array(values.buffer, values.byteOffset, 4 * width * sequence.length);
    }
  }

  hasRoom({ tokens }: SequenceShape): boolean {
    return this.#hasRoom(tokens);
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.#create();
    try {
      for await (const [index, piece] of piecesFor(sizes, pieces)) sequence.rows[index]?.write(0, floatsOf(piece));
      sequence.length = shape.tokens;
      return sequence;
    } catch (error) {
      sequence.dispose();
      throw error;
    }
  }

  #create(): ReferenceSequence {
    const sequence = this.#decoder.createSequence();
    if (!(sequence instanceof ReferenceSequence)) throw new Error('a decoder of another backend');
    return sequence;
  }
}
