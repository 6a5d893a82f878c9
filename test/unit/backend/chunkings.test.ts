import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { checkChunkings } from '../chunkings.ts';

checkChunkings(onnxBackend);
checkChunkings(referenceBackend);
