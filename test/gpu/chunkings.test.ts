import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkChunkings } from '../unit/chunkings.ts';

checkChunkings(createWebgpuBackend({ gpu: { validate: true } }));
