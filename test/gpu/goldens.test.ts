import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../unit/goldens.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });
const dense = goldenCases.filter(({ name }) => /^(llama|qwen2|qwen3|qwen3-yarn) /.test(name));
for (const golden of dense) checkGolden(backend, golden, float32Bounds);
