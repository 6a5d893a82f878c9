import { existsSync } from 'node:fs';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, type GoldenCase, goldenCases } from '../unit/goldens.ts';
import { checkHiddenStates } from '../unit/hiddenStates.ts';
import { fixtureFile, sharedFile } from '../unit/shared.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/** FP8 turned into floats by a converter: too large to keep here. */
const large: GoldenCase = {
  name: 'deepseek-v3-fp8 GGUF',
  path: sharedFile('goldens/gguf/deepseek-v3-fp8-f32.gguf'),
  golden: fixtureFile('goldens/deepseek-v3-fp8/golden.safetensors'),
};
const cases = [...goldenCases, ...(existsSync(large.path) ? [large] : [])];

// Lavapipe compiles each kernel for seconds, and the kernels are those of other tests.
if (process.env['HEARTH_TEST_ADAPTER'] !== 'lavapipe') checkHiddenStates(backend);

/**
 * A software GPU takes minutes for all of it, so `npm test` feeds one file a family (and the GGUF of llama, which rotates
 * interleaved) in chunks, and GPT-OSS in steps of 2 to 16 and through what sequences do besides. Lavapipe compiles
 * each kernel for seconds, so there GPT-OSS stands for all. Qwen3.5 has the kernels of Qwen3-Next. HEARTH_TEST_GOLDENS: every test of the cases that it matches
 * (scripts/proof-gpu.ts), or of `all`.
 */
const asked = process.env['HEARTH_TEST_GOLDENS'];
const lavapipe = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';
const usual = lavapipe ? /^gpt-oss safetensors$/ : /^(?!qwen3\.5).* safetensors$|^llama GGUF$/;
const chosen = asked === undefined ? usual : new RegExp(asked === 'all' ? '' : asked);
const chunks = /in uneven chunks/;
const sequences = /in uneven chunks|in steps of 2 to 16|two sequences in one run|forks/;

for (const golden of cases.filter(({ name }) => chosen.test(name))) {
  const wanted = golden.name.startsWith('gpt-oss') ? sequences : chunks;
  checkGolden(backend, golden, float32Bounds, {}, asked === undefined ? wanted : undefined);
}
