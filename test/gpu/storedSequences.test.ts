import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { goldenCases } from '../unit/goldens.ts';
import { checkKeptStates, checkStored } from '../unit/storedSequences.ts';
import { askedGoldens, onLavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true } });
// Sliding windows in every other layer, latents, and states. Value heads of Qwen3.5's GGUF files share keys in another order.
const usual = /^(gpt-oss|deepseek-v3|qwen3-next) safetensors$/;
const all = /^(gpt-oss|deepseek-v3|qwen3-next) safetensors$|^qwen3\.5(-moe)? GGUF$/;

await onLavapipe(() => {
  for (const golden of goldenCases.filter(({ name }) => (askedGoldens === undefined ? usual : all).test(name))) {
    checkStored(backend, golden, 500);
    if (golden.name.startsWith('qwen3')) checkKeptStates(backend, golden);
  }
});
