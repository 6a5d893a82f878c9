import { existsSync } from 'node:fs';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, checkShortContext, float32Bounds, type GoldenCase, goldenCases } from '../unit/goldens.ts';
import { checkHiddenStates } from '../unit/hiddenStates.ts';
import { fixtureFile, sharedFile } from '../unit/shared.ts';
import { askedGoldens, lavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/** FP8 turned into floats by a converter: too large to keep here. */
const large: GoldenCase = {
  name: 'deepseek-v3-fp8 GGUF',
  path: sharedFile('goldens/gguf/deepseek-v3-fp8-f32.gguf'),
  golden: fixtureFile('goldens/deepseek-v3-fp8/golden.safetensors'),
};
const cases = [...goldenCases, ...(existsSync(large.path) ? [large] : [])];

// The kernels are those of other tests.
if (!lavapipe) {
  checkHiddenStates(backend);
  checkShortContext(backend, float32Bounds);
}

/**
 * A software GPU takes minutes for all tests, so in `npm test` SwiftShader runs one file per family (and llama's GGUF, which rotates
 * interleaved pairs) in chunks, and lavapipe runs GPT-OSS, also in steps of 2 to 16 tokens and with the sequence operations. Qwen3.5 has the kernels of
 * Qwen3-Next, and longrope changes angles alone. With HEARTH_TEST_GOLDENS, every test of the cases that it matches.
 */
const usual = lavapipe ? /^gpt-oss safetensors$/ : /^(?!qwen3\.5|phi3-longrope).* safetensors$|^llama GGUF$/;
const chosen = askedGoldens === undefined ? usual : new RegExp(askedGoldens === 'all' ? '' : askedGoldens);
const usualTests = lavapipe
  ? /in uneven chunks|in steps of 2 to 16|two sequences in one run|forks/
  : /in uneven chunks/;

for (const golden of cases.filter(({ name }) => chosen.test(name))) {
  checkGolden(backend, golden, float32Bounds, {}, askedGoldens === undefined ? usualTests : undefined);
}
