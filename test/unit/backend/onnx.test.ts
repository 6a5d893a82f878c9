import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { checkGolden, checkShortContext, float32Bounds, goldenCases } from '../goldens.ts';
import { checkHiddenStates } from '../hiddenStates.ts';

// GPT-OSS's experts are MXFP4: their products, as llama.cpp's, round the other factor to 8 bits unless told not to.
const exact = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });

checkHiddenStates(exact);
checkShortContext(exact, float32Bounds);
for (const golden of goldenCases) checkGolden(exact, golden, float32Bounds);
