/** Interface of a family file: builds a `DecoderSpec` from either format, and finds its weights. */
import type { TensorFile } from '../../formats/tensor.ts';
import type { DecoderSpec } from '../spec/spec.ts';
import type { DecoderWeights } from '../weights/weights.ts';
import type { GgufKeys, GgufSource } from './ggufKeys.ts';

export interface FamilyBuilder {
  /** `model_type` values in config.json. */
  readonly modelTypes: readonly string[];
  /** `general.architecture` in a GGUF. */
  readonly ggufArchitecture: string;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the key. */
  specFromConfig(config: unknown): DecoderSpec;
  specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec>;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the tensor. */
  weightsFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights;
  weightsFromGguf(spec: DecoderSpec, file: TensorFile): DecoderWeights;
}
