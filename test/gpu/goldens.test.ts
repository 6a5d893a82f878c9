import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../unit/goldens.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/**
 * A software GPU takes minutes for all of it, so `npm test` takes one file a family (and the GGUF of llama, which rotates
 * interleaved) and the tests that go through every kind of run: HEARTH_TEST_GOLDENS=all for the rest. Lavapipe compiles
 * each kernel for seconds, so there the families that differ most stand for all.
 */
const all = process.env['HEARTH_TEST_GOLDENS'] === 'all';
const lavapipe = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';
const chosen = lavapipe ? /^(llama GGUF|gpt-oss safetensors)$/ : / safetensors$|^llama GGUF$/;
const wanted = all ? undefined : /in uneven chunks|two sequences in one run|forks/;

for (const golden of goldenCases.filter(({ name }) => all || chosen.test(name))) {
  checkGolden(backend, golden, float32Bounds, {}, wanted);
}
