/** A checkpoint opened for use: its spec, weights and tokenizer. */
import type { TensorFile } from '../formats/tensor.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { EmbeddingSpec } from './spec/embedding.ts';
import type { DecoderSpec } from './spec/spec.ts';
import type { DecoderWeights } from './weights/weights.ts';

export interface Checkpoint {
  /** Directory or file the checkpoint was opened from. */
  readonly path: string;
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
  /** Present for embedding models, whose spec is `headless`. */
  readonly embedding?: EmbeddingSpec;
  readonly file: TensorFile;
  /** As the file states it; absent if it doesn't. */
  readonly licence?: string;
  /**
   * Takes as long as everything else that opening does. @returns undefined for test checkpoints without a vocabulary.
   * @throws HearthError `invalid-input` or `unsupported`, naming the fault.
   */
  readTokenizer(): Promise<Tokenizer | undefined>;
}

/** A checkpoint with its tokenizer, if it has one. */
export interface Model extends Omit<Checkpoint, 'readTokenizer'> {
  readonly tokenizer?: Tokenizer;
}
