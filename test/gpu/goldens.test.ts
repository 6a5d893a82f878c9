import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../unit/goldens.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/**
 * A software GPU takes minutes for all of it, so `npm test` feeds one file a family (and the GGUF of llama, which rotates
 * interleaved) in chunks that go through every kind of run, and GPT-OSS through what sequences do besides. Lavapipe compiles
 * each kernel for seconds, so there GPT-OSS stands for all. HEARTH_TEST_GOLDENS=all: everything.
 */
const all = process.env['HEARTH_TEST_GOLDENS'] === 'all';
const lavapipe = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';
const chosen = lavapipe ? /^gpt-oss safetensors$/ : / safetensors$|^llama GGUF$/;
const chunks = /in uneven chunks/;
const sequences = /in uneven chunks|two sequences in one run|forks/;

for (const golden of goldenCases.filter(({ name }) => all || chosen.test(name))) {
  const wanted = all ? undefined : golden.name.startsWith('gpt-oss') ? sequences : chunks;
  checkGolden(backend, golden, float32Bounds, {}, wanted);
}
