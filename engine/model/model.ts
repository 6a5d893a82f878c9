/** A checkpoint opened for use: what it computes, its weights, and how text becomes ids for it. */
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
  /** Of an embedding model, whose spec is `headless`. */
  readonly embedding?: EmbeddingSpec;
  readonly file: TensorFile;
  /**
   * Takes as long as opening all the rest. @returns undefined for checkpoints without a vocabulary (test checkpoints): ids only.
   * @throws HearthError `invalid-input` or `unsupported` naming what is wrong.
   */
  readTokenizer(): Promise<Tokenizer | undefined>;
}

/** A checkpoint with its vocabulary, where it has one. */
export interface Model extends Omit<Checkpoint, 'readTokenizer'> {
  readonly tokenizer?: Tokenizer;
}
