import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { goldenCases } from '../unit/goldens.ts';
import { checkStored } from '../unit/storedSequences.ts';

const backend = createWebgpuBackend({ gpu: { validate: true } });
const lavapipe = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';
// Sliding windows in every other layer, and latents; lavapipe compiles each kernel for seconds.
const wanted = lavapipe ? /^gpt-oss safetensors$/ : /^(gpt-oss|deepseek-v3) safetensors$/;

for (const golden of goldenCases.filter(({ name }) => wanted.test(name))) checkStored(backend, golden, 500);
