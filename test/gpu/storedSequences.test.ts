import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { goldenCases } from '../unit/goldens.ts';
import { checkStored } from '../unit/storedSequences.ts';
import { onLavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true } });
// Sliding windows in every other layer, and latents.
const wanted = /^(gpt-oss|deepseek-v3) safetensors$/;

await onLavapipe(() => {
  for (const golden of goldenCases.filter(({ name }) => wanted.test(name))) checkStored(backend, golden, 500);
});
