/**
 * Which models ggml computes at least as fast as ONNX Runtime in every respect, so that it is taken without being asked for. Decided by
 * measurements (docs/proof.md): decode was faster with all weights, prompts only where ggml has kernels for several tokens at once.
 */
import type { TensorType } from '../../formats/tensor.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import { weightBytesOf } from '../../model/weights/weightViews.ts';
import { hasMatrixUnits } from '../processor/threads.ts';

/** Whether ONNX Runtime has no build for this platform, so that nothing else computes on the processor at any speed. */
const isAlone = process.platform === 'darwin' && process.arch === 'x64';

/** Not measured on ARM. With matrix units (AMX), ggml has kernels for the other types too. */
const fasterTypes: ReadonlySet<TensorType> = new Set<TensorType>(
  process.arch === 'x64'
    ? ['Q4_0', 'Q4_K', 'MXFP4', ...(hasMatrixUnits() ? (['Q4_1', 'Q5_K', 'Q6_K', 'Q8_0'] as const) : [])]
    : [],
);

/** Most of what a prompt is multiplied with: the head is for its last token. */
export function isFasterOnGgml(weights: DecoderWeights): boolean {
  if (isAlone) return true;
  let [all, faster] = [0, 0];
  for (const { role, weight } of listWeights(weights)) {
    if (role === 'embedding' || role === 'head') continue;
    all += weightBytesOf(weight);
    if (fasterTypes.has(weight.type)) faster += weightBytesOf(weight);
  }
  return faster > all / 2;
}

/** The same by the name of a quantisation, before a download. */
export const isFasterQuantisation = (quantisation: string): boolean =>
  isAlone || [...fasterTypes].some((type) => quantisation.includes(type));
