import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { checkGolden, checkShortContext, float32Bounds, goldenCases } from '../goldens.ts';
import { checkHiddenStates } from '../hiddenStates.ts';

checkHiddenStates(referenceBackend);
checkShortContext(referenceBackend, float32Bounds);
for (const golden of goldenCases) checkGolden(referenceBackend, golden, float32Bounds);
