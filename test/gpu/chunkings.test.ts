import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkChunkings } from '../unit/chunkings.ts';

// Kernels of one row and of many add in another order: lavapipe's logits differed by up to 2.7e-5, the answers by nothing.
// SwiftShader takes half a minute for 300 passes, and `npm test` cuts the prompt in three ways there (all: npm run proof:gpu).
const slow = ['parts of three', 'single tokens'];
const usual = [...slow, 'four tokens behind the rest', 'quarters', 'uneven parts'];
const others = process.env['HEARTH_TEST_GOLDENS'] === 'all' ? slow : usual;
const without = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe' ? [] : others;
checkChunkings(createWebgpuBackend({ gpu: { validate: true } }), 1e-4, without);
