import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkChunkings } from '../unit/chunkings.ts';
import { lavapipe, onLavapipe } from './adapters.ts';

// Kernels of one row and of many add in another order: lavapipe's logits differed by up to 2.7e-5, the answers by nothing.
// SwiftShader takes half a minute for 300 passes.
const without = lavapipe ? [] : ['parts of three', 'single tokens'];
await onLavapipe(() => checkChunkings(createWebgpuBackend({ gpu: { validate: true } }), 1e-4, without));
