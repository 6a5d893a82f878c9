import { existsSync, readFileSync } from 'node:fs';
import { ggmlBackend } from '../../../engine/backend/ggml/index.ts';
import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { checkChunkings } from '../chunkings.ts';

/**
 * Without AVX-512, ONNX Runtime's 4-bit kernel for one row adds in another order than the one for several, so the last bit of an
 * activation may round differently. Two rows instead of one have the same bits and cost 12 % of decode, so one row stays.
 */
const avx512 = existsSync('/proc/cpuinfo') && /\bavx512/.test(readFileSync('/proc/cpuinfo', 'utf8'));
const ofOneRow = ['one token behind the rest', 'single tokens'];

checkChunkings(ggmlBackend);
checkChunkings(onnxBackend, 0, avx512 ? [] : ofOneRow);
if (!avx512) checkChunkings(onnxBackend, 0.05);
checkChunkings(referenceBackend);
