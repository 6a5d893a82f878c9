import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { defaultModelId } from '../../../engine/catalogue/catalogue.ts';
import { defaultStoreDirectory } from '../../../engine/catalogue/files.ts';
import { findInstalled, pathToLoad } from '../../../engine/catalogue/manifest.ts';
import { openModel } from '../../../engine/model/open.ts';
import { argmax } from '../goldens.ts';
import { describeShared, describeUnless, fixtureFile, sharedFile } from '../shared.ts';

/** Greedy text that llama.cpp wrote from the same weights as floats; source and command are in the file. */
interface Story {
  readonly promptIds: readonly number[];
  readonly tokens: readonly number[];
  readonly logProbabilities: readonly number[];
}

interface Comparison {
  /** Greedy tokens after llama.cpp's own text up to there. */
  readonly greedy: readonly number[];
  /** Largest difference between log-probabilities of llama.cpp's tokens. */
  readonly largest: number;
  readonly mean: number;
}

async function compare(path: string, story: Story, roundActivations: boolean): Promise<Comparison> {
  const { spec, weights, file } = await openModel(path);
  // llama.cpp kept its keys and values in f32 there.
  const backend = createOnnxBackend({ roundActivations, cachePrecision: 'f32' });
  const decoder = await backend.load(spec, weights, { contextTokens: 512 });
  await file.close();
  const sequence = decoder.createSequence();
  const greedy: number[] = [];
  const differences: number[] = [];
  let tokens = story.promptIds;
  for (const [i, expected] of story.tokens.entries()) {
    const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens, logits: 'last' }]);
    greedy.push(argmax(logits));
    differences.push(Math.abs(logProbability(logits, expected) - (story.logProbabilities[i] ?? Number.NaN)));
    tokens = [expected];
  }
  await decoder.dispose();
  const mean = differences.reduce((sum, difference) => sum + difference, 0) / differences.length;
  return { greedy, largest: Math.max(...differences), mean };
}

function logProbability(logits: Float32Array, token: number): number {
  const largest = logits[argmax(logits)] ?? 0;
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return (logits[token] ?? Number.NaN) - largest - Math.log(sum);
}

const readStory = (name: string): Story => JSON.parse(readFileSync(fixtureFile(`llamaCpp/${name}.json`), 'utf8'));

describeShared('stories260K', ['models/stories260K/stories260K-f32.gguf'], () => {
  it("is llama.cpp's story, token by token", async () => {
    const story = readStory('stories260K');
    const path = sharedFile('models/stories260K/stories260K-f32.gguf');
    const { greedy, largest } = await compare(path, story, true);
    expect(greedy).toEqual(story.tokens);
    expect(largest).toBeLessThan(1e-4);
  });
});

const smolLm2 = await findInstalled(defaultStoreDirectory(), defaultModelId);
const smolLm2Path = smolLm2 && pathToLoad(smolLm2);
const absent = smolLm2Path && existsSync(smolLm2Path) ? undefined : `${defaultModelId} is not in the model store`;

describeUnless(absent, 'SmolLM2 135M Instruct, Q4_1', () => {
  const story = readStory('smollm2-135m-instruct-q4_1');

  it("is llama.cpp's text, token by token, with exact activations", { timeout: 900_000 }, async () => {
    const { greedy, largest } = await compare(smolLm2Path ?? '', story, false);
    expect(greedy).toEqual(story.tokens);
    // 30 layers of float32 sums in llama.cpp: 2e-4 was measured.
    expect(largest).toBeLessThan(1e-3);
  });

  it('keeps the probabilities of that text within the noise of 8-bit activations', { timeout: 900_000 }, async () => {
    const { largest, mean } = await compare(smolLm2Path ?? '', story, true);
    expect(largest).toBeLessThan(0.3);
    expect(mean).toBeLessThan(0.05);
  });
});
