/**
 * Decides for which models ggml is the default CPU backend: those that it runs at least as fast as ONNX Runtime in
 * every respect. Based on measurements (docs/proof.md): decode was faster with all weights, prefill only where ggml has
 * kernels for several tokens at once.
 */
import type { TensorType } from '../../formats/tensor.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import { weightBytesOf } from '../../model/weights/weightViews.ts';
import { hasMatrixUnits } from '../processor/threads.ts';

/** Whether ONNX Runtime has no build for this platform, so that ggml is the only fast CPU backend. */
const isAlone = process.platform === 'darwin' && process.arch === 'x64';

/** Not measured on ARM. */
const fasterTypes: ReadonlySet<TensorType> = new Set(process.arch === 'x64' ? ['Q4_0', 'Q4_K', 'MXFP4'] : []);
/** For these, ggml has kernels for several tokens that need a processor's matrix units. */
const fasterWithUnits: ReadonlySet<TensorType> = new Set(['Q4_1', 'Q5_K', 'Q6_K', 'Q8_0']);

/** Judges the matrices that a prompt is multiplied by, without the head, which only its last token needs. */
export function isFasterOnGgml(weights: DecoderWeights, matrixUnits = hasMatrixUnits()): boolean {
  if (isAlone) return true;
  let [all, faster] = [0, 0];
  for (const { role, weight } of listWeights(weights)) {
    if (role === 'embedding' || role === 'head') continue;
    all += weightBytesOf(weight);
    if (fasterTypes.has(weight.type) || (matrixUnits && fasterWithUnits.has(weight.type)))
      faster += weightBytesOf(weight);
  }
  return faster > all / 2;
}

/**
 * The same by the name of a quantisation, before a download. Ignores matrix units, which few CPUs have; the stated
 * memory is then too high rather than too low.
 */
export const isFasterQuantisation = (quantisation: string): boolean =>
  isAlone || (fasterTypes.size > 0 && /Q4_0|Q4_K|MXFP4/.test(quantisation));
