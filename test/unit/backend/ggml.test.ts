import { createGgmlBackend } from '../../../engine/backend/ggml/index.ts';
import { checkGolden, checkShortContext, float32Bounds, goldenCases } from '../goldens.ts';
import { checkHiddenStates } from '../hiddenStates.ts';
import { checkRewinds } from '../rewinds.ts';

// Matmuls with quantised or 16-bit weights round activations; with f32 they don't.
const exact = createGgmlBackend({ exactWeights: true, cachePrecision: 'f32' });
/** Latent attention and states are left to the ONNX backend. */
const computed = goldenCases.filter(({ name }) => !/^(deepseek-v3|glm4-moe-lite|qwen3-next|qwen3\.5)/.test(name));

checkHiddenStates(exact);
checkShortContext(exact, float32Bounds);
for (const golden of computed) checkGolden(exact, golden, float32Bounds, { threads: 1 });
for (const golden of computed.filter(({ name }) => name === 'gpt-oss safetensors')) {
  checkRewinds(exact, golden, float32Bounds);
}
