import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../unit/goldens.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });
for (const golden of goldenCases) checkGolden(backend, golden, float32Bounds);
