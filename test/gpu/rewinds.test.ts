import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { float32Bounds, goldenCases } from '../unit/goldens.ts';
import { checkRewinds } from '../unit/rewinds.ts';
import { askedGoldens, lavapipe, onLavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

// Sliding windows, and states.
await onLavapipe(() => {
  for (const golden of goldenCases.filter(({ name }) => /^(gpt-oss|qwen3-next) safetensors$/.test(name))) {
    checkRewinds(backend, golden, {
      ...float32Bounds,
      withChat: lavapipe && (askedGoldens !== undefined || golden.name.startsWith('gpt-oss')),
    });
  }
});
