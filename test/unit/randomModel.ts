/** A small model of Llama's family with random weights of one type. */
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Model, openModel } from '../../engine/model/open.ts';
import { type BenchType, writeRandomModel } from '../../scripts/bench/randomModel.ts';
import { temporaryFolder } from './temporaryFolder.ts';

export const randomShape = {
  layers: 1,
  hiddenSize: 256,
  intermediateSize: 512,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 64,
  vocabularySize: 512,
  ropeTheta: 1e4,
  contextTokens: 512,
};

/** Closed when the test has finished. */
export async function randomModel(type: BenchType, own = randomShape): Promise<Model> {
  const path = join(temporaryFolder(), `${type}.gguf`);
  writeRandomModel(type, own, type, path);
  const model = await openModel(path);
  onTestFinished(() => model.file.close());
  return model;
}
