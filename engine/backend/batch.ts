/** What every backend asks of a batch before it changes anything. */
import { HearthError, invalidInput } from '../errors.ts';
import type { Decoder, Sequence, SequenceSlice } from './backend.ts';

export type OwnSlice<Own extends Sequence> = Omit<SequenceSlice, 'sequence'> & { readonly sequence: Own };

/**
 * The batch with its sequences as the decoder's own.
 * @param own the sequence as the decoder made it, or undefined: another decoder's, or one that was disposed.
 * @throws HearthError `context-overflow`, `invalid-input`.
 */
export function checkedBatch<Own extends Sequence>(
  batch: readonly SequenceSlice[],
  decoder: Decoder,
  own: (sequence: Sequence) => Own | undefined,
): OwnSlice<Own>[] {
  const slices = batch.map((slice) => {
    const sequence = own(slice.sequence);
    if (!sequence) throw new Error('a sequence of another decoder, or one that was disposed');
    return { ...slice, sequence };
  });
  if (new Set(slices.map(({ sequence }) => sequence)).size < slices.length) {
    throw new Error('a sequence may appear once in a run');
  }
  const tokens = slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
  if (slices.length > decoder.maxSequencesPerRun) throw new Error('a run larger than maxSequencesPerRun');
  if (tokens > decoder.maxTokensPerRun) throw new Error('a run larger than maxTokensPerRun');
  for (const slice of slices) checkTokens(slice, decoder);
  return slices;
}

function checkTokens({ sequence, tokens }: SequenceSlice, { contextTokens, spec }: Decoder): void {
  const needed = sequence.length + tokens.length;
  if (needed > contextTokens) {
    throw new HearthError(
      'context-overflow',
      `${needed} tokens do not fit the context of ${contextTokens}; nothing was changed. Shorten the prompt.`,
    );
  }
  const strange = tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= spec.vocabularySize);
  if (strange !== undefined) throw invalidInput(`Token ${strange} is not in the vocabulary.`);
}
