import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkChunkings } from '../unit/chunkings.ts';

// Kernels of one row and of many add in another order: lavapipe's logits differed by up to 2.7e-5, the answers by nothing.
checkChunkings(createWebgpuBackend({ gpu: { validate: true } }), 1e-4);
