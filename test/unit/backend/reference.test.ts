import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { checkGolden, float32Bounds, goldenCases } from '../goldens.ts';
import { checkHiddenStates } from '../hiddenStates.ts';

checkHiddenStates(referenceBackend);
for (const golden of goldenCases) checkGolden(referenceBackend, golden, float32Bounds);
