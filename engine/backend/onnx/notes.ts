/** What the model card says about how this backend holds and multiplies weights. */
import { blockLayout } from '../../formats/blocks.ts';
import type { TensorType } from '../../formats/tensor.ts';
import { listWeights } from '../../model/weights/weightList.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import { gridOf } from './weightsFile.ts';

export function notesOn(weights: DecoderWeights, roundActivations: boolean): string[] {
  const matrices = listWeights(weights).flatMap(({ role, weight }) => (role === 'norm' ? [] : [weight]));
  const onGrids = matrices.filter((weight) => gridOf(weight) !== undefined);
  const asFloats = matrices.filter((weight) => gridOf(weight) === undefined && weight.type !== 'F32');
  const widened = onGrids.filter((weight) => (gridOf(weight)?.bits ?? 0) > storedBits(weight.type));
  const notes: string[] = [];
  if (roundActivations && onGrids.length > 0) {
    notes.push(
      `Where ${namesOf(onGrids)} weights are multiplied, the activations are rounded to 8-bit integers in blocks of up to 32, as llama.cpp does. The weights keep their stored values.`,
    );
  }
  if (widened.length > 0) {
    notes.push(`${namesOf(widened)} weights are held in 8 bits each: the same values, more memory.`);
  }
  if (asFloats.length > 0) {
    notes.push(`${namesOf(asFloats)} weights are held as 32-bit floats: the same values, more memory.`);
  }
  return notes;
}

/** Whole bits a value, without scales. */
function storedBits(type: TensorType): number {
  const { bytes, elements } = blockLayout(type);
  return Math.floor((8 * bytes) / elements);
}

function namesOf(weights: readonly { readonly type: TensorType }[]): string {
  return [...new Set(weights.map(({ type }) => type))].sort().join(', ');
}
