import { ggmlBackend } from '../../../engine/backend/ggml/index.ts';
import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { goldenCases } from '../goldens.ts';
import { checkKeptStates, checkStored } from '../storedSequences.ts';

// Grouped queries, sliding windows in every other layer, latents, and states.
for (const golden of goldenCases.filter(({ name }) =>
  /^(llama|gpt-oss|deepseek-v3|qwen3-next) safetensors$/.test(name),
)) {
  checkStored(referenceBackend, golden, 200);
  checkStored(onnxBackend, golden, 900);
  if (golden.name.startsWith('qwen3-next')) checkKeptStates(onnxBackend, golden);
  if (/^(llama|gpt-oss)/.test(golden.name)) checkStored(ggmlBackend, golden, 900);
}
