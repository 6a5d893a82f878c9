import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { checkGolden, checkShortContext, float32Bounds, goldenCases } from '../goldens.ts';
import { checkHiddenStates } from '../hiddenStates.ts';

// GPT-OSS's experts are MXFP4: as in llama.cpp, their matmuls quantise activations to int8 unless this is disabled.
const exact = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });

checkHiddenStates(exact);
checkShortContext(exact, float32Bounds);
for (const golden of goldenCases) checkGolden(exact, golden, float32Bounds);
