import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { goldenCases } from '../goldens.ts';
import { checkStored } from '../storedSequences.ts';

// Grouped queries, sliding windows in every other layer, and latents.
for (const golden of goldenCases.filter(({ name }) => /^(llama|gpt-oss|deepseek-v3) safetensors$/.test(name))) {
  checkStored(referenceBackend, golden, 200);
  checkStored(onnxBackend, golden, 900);
}
