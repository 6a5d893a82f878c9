/** Reads weights as f32 values. */
import { dequantise } from '../../formats/dequantise.ts';
import type { Weight } from './weights.ts';
import { columnsOf } from './weightViews.ts';

/** Rows `[start, start + count)`, dequantised with block scales. `[count, columns]` f32 */
export async function readValues(weight: Weight, start: number, count: number): Promise<Float32Array> {
  const values = dequantise(weight.type, await weight.readRows(start, count));
  if (weight.blockScale) await applyBlockScale(values, weight, start);
  return values;
}

/** The weight as f32, for views that need single elements instead of blocks. */
export function expandedWeight(weight: Weight): Weight {
  return {
    name: weight.name,
    type: 'F32',
    shape: weight.shape,
    async readRows(start, count) {
      const { buffer, byteOffset, byteLength } = await readValues(weight, start, count);
      return new Uint8Array(buffer, byteOffset, byteLength);
    },
  };
}

async function applyBlockScale(values: Float32Array, weight: Weight, firstRow: number): Promise<void> {
  if (!weight.blockScale) return;
  const { blockRows, blockColumns } = weight.blockScale;
  const scales = await weight.blockScale.read();
  const columns = columnsOf(weight.shape);
  const matrixRows = weight.shape.at(-2) ?? 1;
  const scaleRows = Math.ceil(matrixRows / blockRows);
  const scaleColumns = Math.ceil(columns / blockColumns);
  for (let at = 0; at < values.length; at++) {
    const row = firstRow + Math.floor(at / columns);
    // Every expert starts new blocks.
    const scaleRow = Math.floor(row / matrixRows) * scaleRows + Math.floor((row % matrixRows) / blockRows);
    const scale = scales[scaleRow * scaleColumns + Math.floor((at % columns) / blockColumns)];
    values[at] = (values[at] ?? 0) * (scale ?? 0);
  }
}
