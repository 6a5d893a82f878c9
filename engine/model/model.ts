/** A checkpoint opened for use: what it computes, its weights, and how text becomes ids for it. */
import type { TensorFile } from '../formats/tensor.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { EmbeddingSpec } from './embedding.ts';
import type { DecoderSpec } from './spec.ts';
import type { DecoderWeights } from './weights.ts';

export interface Model {
  /** Directory or file the checkpoint was opened from. */
  readonly path: string;
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
  /** Absent for checkpoints without a vocabulary (test checkpoints): ids only. */
  readonly tokenizer?: Tokenizer;
  /** Of an embedding model, whose spec is `headless`. */
  readonly embedding?: EmbeddingSpec;
  readonly file: TensorFile;
}
