import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../goldens.ts';

const dense = goldenCases.filter(({ name }) => /^(llama|qwen2|qwen3|qwen3-yarn) /.test(name));
for (const golden of dense) checkGolden(onnxBackend, golden, float32Bounds);
