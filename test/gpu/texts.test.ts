/**
 * Trained models give the same text on the GPU as on the CPU: llama.cpp's greedy text, against which the CPU backend is tested
 * as well (test/unit/backend/onnxStories.test.ts). HEARTH_TEST_GOLDENS=all: the whole texts, and SmolLM2.
 */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { defaultModelId } from '../../engine/catalogue/catalogue.ts';
import { defaultStoreDirectory } from '../../engine/catalogue/files.ts';
import { findInstalled, pathToLoad } from '../../engine/catalogue/manifest.ts';
import { openModel } from '../../engine/model/open.ts';
import { figure } from '../figures.ts';
import { argmax } from '../unit/goldens.ts';
import { fixtureFile, sharedFile } from '../unit/shared.ts';
import { askedGoldens } from './adapters.ts';

interface Story {
  readonly promptIds: readonly number[];
  readonly tokens: readonly number[];
}

const backend = createWebgpuBackend({ gpu: { validate: true } });
const whole = askedGoldens === 'all';

async function expectStory(path: string, name: string, most: number): Promise<void> {
  const story: Story = JSON.parse(readFileSync(fixtureFile(`llamaCpp/${name}.json`), 'utf8'));
  const { spec, weights, file } = await openModel(path);
  const decoder = await backend.load(spec, weights, { contextTokens: 512 });
  await file.close();
  const sequence = decoder.createSequence();
  const text: number[] = [];
  let tokens = story.promptIds;
  while (text.length < Math.min(most, story.tokens.length)) {
    const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens, logits: 'last' }]);
    tokens = [argmax(logits)];
    text.push(...tokens);
  }
  await decoder.dispose();
  const equal = text.findIndex((token, i) => token !== story.tokens[i]);
  figure({ text: name, tokens: text.length, equal: equal < 0 ? text.length : equal });
  expect(text).toEqual(story.tokens.slice(0, text.length));
}

describe('on the GPU, with an f16 KV cache', () => {
  const stories = sharedFile('models/stories260K/stories260K-f32.gguf');
  it('stories260K writes the story of the CPU', async ({ skip }) => {
    if (!existsSync(stories)) skip('../shared lacks models/stories260K');
    await expectStory(stories, 'stories260K', whole ? 200 : 24);
  });

  it('SmolLM2 135M writes the function of the CPU', async ({ skip }) => {
    const found = await findInstalled(defaultStoreDirectory(), defaultModelId);
    if (!found) return skip(`${defaultModelId} is not in the model store (hearth models pull)`);
    if (!whole) skip('a software GPU takes minutes for it: npm run proof:gpu');
    await expectStory(pathToLoad(found), 'smollm2-135m-instruct-q4_1', 64);
  });
});
