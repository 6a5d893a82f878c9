import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { float32Bounds, goldenCases } from '../unit/goldens.ts';
import { checkRewinds } from '../unit/rewinds.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });
const withChat = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';

// Sliding windows, and states.
for (const golden of goldenCases.filter(({ name }) => /^(gpt-oss|qwen3-next) safetensors$/.test(name))) {
  checkRewinds(backend, golden, { ...float32Bounds, withChat: withChat && golden.name.startsWith('gpt-oss') });
}
