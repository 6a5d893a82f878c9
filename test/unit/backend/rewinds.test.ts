import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { float32Bounds, goldenCases } from '../goldens.ts';
import { checkRewinds } from '../rewinds.ts';

// As for the other goldens.
const exact = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });

for (const golden of goldenCases.filter(({ name }) => /^(gpt-oss|qwen3-next) safetensors$/.test(name))) {
  checkRewinds(exact, golden, float32Bounds);
}
