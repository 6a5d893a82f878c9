/** Matrices larger than a binding are cut: the golden models with every matrix in pieces of a few rows, heads or experts. */
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../unit/goldens.ts';
import { askedGoldens, lavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true, atMost: { pieceBytes: 25_000 } }, cachePrecision: 'f32' });

/** Grouped heads with biases and experts; heads of a latent; a dense network. */
const all = /^(gpt-oss|deepseek-v3|llama) safetensors$/;
/** Half a minute each: `npm run proof:gpu` takes all three on both adapters. */
const usual = lavapipe ? /^deepseek-v3 safetensors$/ : /^llama safetensors$/;
const chosen = askedGoldens === undefined ? usual : all;
for (const golden of goldenCases.filter(({ name }) => chosen.test(name))) {
  checkGolden(backend, { ...golden, name: `${golden.name} in pieces` }, float32Bounds, {}, /in uneven chunks/);
}
