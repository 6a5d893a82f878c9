/**
 * Views that turn published tensors into logical weights: selected rows, stacked tensors, transposed matrices. A view
 * reads on demand and caches nothing.
 */
import { invalidInput } from '../../errors.ts';
import { dequantise } from '../../formats/dequantise.ts';
import type { TensorFile, TensorType } from '../../formats/tensor.ts';
import { blockLayout, byteLengthOf } from '../../formats/tensor.ts';
import type { Weight } from './weights.ts';

type BlockScale = NonNullable<Weight['blockScale']>;

/** Product of all dimensions except the last. */
export function rowsOf(shape: readonly number[]): number {
  return shape.slice(0, -1).reduce((product, dimension) => product * dimension, 1);
}

export function columnsOf(shape: readonly number[]): number {
  return shape.at(-1) ?? 1;
}

export function rowBytesOf(weight: Pick<Weight, 'type' | 'shape'>): number {
  return byteLengthOf(weight.type, [columnsOf(weight.shape)]);
}

/** Bytes of the values, without separate block scales. */
export function weightBytesOf(weight: Pick<Weight, 'type' | 'shape'>): number {
  return byteLengthOf(weight.type, weight.shape);
}

/** A whole tensor. `shape` may regroup its elements as long as rows are whole blocks. */
export function storedWeight(file: TensorFile, name: string, type: TensorType, shape: readonly number[]): Weight {
  const rowBytes = rowBytesOf({ type, shape });
  return { name, type, shape, readRows: (start, count) => file.read(name, start * rowBytes, count * rowBytes) };
}

/** Selects `length` rows from `offset` on, of every `period` rows. */
export interface RowSelection {
  readonly period: number;
  readonly offset: number;
  readonly length: number;
}

/**
 * The selected rows, with the given shape. Also reads the rows in between: at most `period / length` times as many
 * bytes.
 */
export function selectRows(weight: Weight, selection: RowSelection, shape: readonly number[]): Weight {
  const { period, offset, length } = selection;
  const storedRow = (row: number) => Math.floor(row / length) * period + offset + (row % length);
  const selected = (rowsOf(weight.shape) / period) * length;
  if (selected !== rowsOf(shape) || columnsOf(weight.shape) !== columnsOf(shape)) {
    throw new Error(`${weight.name}: ${selected} selected rows don't match the shape [${shape.join(', ')}].`);
  }
  const rowBytes = rowBytesOf(weight);
  return {
    name: weight.name,
    type: weight.type,
    shape,
    ...(weight.blockScale && { blockScale: selectScaleRows(weight.blockScale, selection, weight.shape) }),
    async readRows(start, count) {
      if (count === 0) return new Uint8Array();
      const first = storedRow(start);
      const spanned = await weight.readRows(first, storedRow(start + count - 1) - first + 1);
      if (spanned.length === count * rowBytes) return spanned;
      const rows = new Uint8Array(count * rowBytes);
      for (let i = 0; i < count; i++) {
        const from = (storedRow(start + i) - first) * rowBytes;
        rows.set(spanned.subarray(from, from + rowBytes), i * rowBytes);
      }
      return rows;
    },
  };
}

/**
 * Selected rows may start inside a scale block (DeepSeek's kv_b_proj if heads are narrower than a block). The block
 * height is reduced to the largest one that never straddles two blocks, and scales are repeated.
 */
function selectScaleRows(scale: BlockScale, selection: RowSelection, storedShape: readonly number[]): BlockScale {
  const { period, offset, length } = selection;
  const blockRows = [period, offset, length].reduce(greatestCommonDivisor, scale.blockRows);
  const scaleColumns = Math.ceil(columnsOf(storedShape) / scale.blockColumns);
  return {
    blockRows,
    blockColumns: scale.blockColumns,
    async read() {
      const stored = await scale.read();
      const blocks = ((rowsOf(storedShape) / period) * length) / blockRows;
      const selected = new Float32Array(blocks * scaleColumns);
      for (let block = 0; block < blocks; block++) {
        const row = block * blockRows;
        const storedRow = Math.floor(row / length) * period + offset + (row % length);
        const from = Math.floor(storedRow / scale.blockRows) * scaleColumns;
        selected.set(stored.subarray(from, from + scaleColumns), block * scaleColumns);
      }
      return selected;
    },
  };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** Norm weights that their publisher stores as the difference from one (Gemma), as f32. */
export const plusOne = (weight: Weight): Weight => eachValue(weight, (value) => value + 1);

/** Each element changed, as f32. */
export function eachValue(weight: Weight, changed: (value: number) => number): Weight {
  const { name, shape } = weight;
  return {
    name,
    shape,
    type: 'F32',
    async readRows(start, count) {
      const values = dequantise(weight.type, await weight.readRows(start, count));
      return new Uint8Array(Float32Array.from(values, changed).buffer);
    },
  };
}

/** The same elements with longer rows, each a whole multiple of the old ones: `[n, 1]` as `[rows, n / rows]`. */
export function joinRows(weight: Weight, shape: readonly number[]): Weight {
  const joined = columnsOf(shape) / columnsOf(weight.shape);
  if (weight.blockScale || rowsOf(shape) * joined !== rowsOf(weight.shape)) {
    throw new Error(`${weight.name}: can't reshape [${weight.shape.join(', ')}] to [${shape.join(', ')}].`);
  }
  const { name, type } = weight;
  return { name, type, shape, readRows: (start, count) => weight.readRows(start * joined, count * joined) };
}

/** Stacks `[out, in]` matrices to `[parts, out, in]`. */
export function stackedWeight(parts: readonly Weight[]): Weight {
  const first = parts[0];
  if (!first) throw new Error('There is nothing to stack.');
  const odd = parts.find((part) => part.type !== first.type);
  if (odd)
    throw invalidInput(`Tensor ${odd.name} is ${odd.type}, but ${first.name} of the same layer is ${first.type}.`);
  const partRows = rowsOf(first.shape);
  return {
    name: first.name,
    type: first.type,
    shape: [parts.length, ...first.shape],
    ...(first.blockScale && { blockScale: stackedScale(first.blockScale, parts) }),
    async readRows(start, count) {
      const pieces: Uint8Array[] = [];
      for (let row = start; row < start + count; ) {
        const part = parts[Math.floor(row / partRows)];
        if (!part) throw new RangeError(`${first.name}: row ${row} of ${parts.length * partRows}`);
        const within = row % partRows;
        const taken = Math.min(partRows - within, start + count - row);
        pieces.push(await part.readRows(within, taken));
        row += taken;
      }
      return concatenated(pieces);
    },
  };
}

function stackedScale(first: BlockScale, parts: readonly Weight[]): BlockScale {
  return {
    blockRows: first.blockRows,
    blockColumns: first.blockColumns,
    async read() {
      const scales: Float32Array[] = [];
      for (const part of parts) {
        if (!part.blockScale) throw invalidInput(`Tensor ${part.name} lacks block scales, unlike its neighbours.`);
        scales.push(await part.blockScale.read());
      }
      const all = new Float32Array(scales.reduce((sum, each) => sum + each.length, 0));
      let at = 0;
      for (const each of scales) {
        all.set(each, at);
        at += each.length;
      }
      return all;
    },
  };
}

/**
 * `[experts, in, out]` as `[experts, out, in]`, with block scales. Each read fetches whole experts, so read whole
 * experts.
 */
export function transposedWeight(weight: Weight): Weight {
  const [experts = 1, inputs = 1, outputs = 1] = weight.shape;
  const { elements, bytes } = blockLayout(weight.type);
  if (elements !== 1) throw invalidInput(`Tensor ${weight.name} can't be transposed: ${weight.type} is a block type.`);
  return {
    name: weight.name,
    type: weight.type,
    shape: [experts, outputs, inputs],
    ...(weight.blockScale && { blockScale: transposedScale(weight.blockScale, [experts, inputs, outputs]) }),
    async readRows(start, count) {
      const rows = new Uint8Array(count * inputs * bytes);
      for (let row = start, at = 0; row < start + count; ) {
        const expert = Math.floor(row / outputs);
        const taken = Math.min(outputs - (row % outputs), start + count - row);
        const stored = await weight.readRows(expert * inputs, inputs);
        at = copyColumns(stored, { columns: outputs, first: row % outputs, count: taken, bytes }, rows, at);
        row += taken;
      }
      return rows;
    },
  };
}

function transposedScale(scale: BlockScale, [experts, inputs, outputs]: readonly [number, number, number]): BlockScale {
  const { blockRows, blockColumns } = scale;
  return {
    blockRows: blockColumns,
    blockColumns: blockRows,
    async read() {
      const stored = await scale.read();
      const [rows, columns] = [Math.ceil(inputs / blockRows), Math.ceil(outputs / blockColumns)];
      return Float32Array.from({ length: experts * rows * columns }, (_, i) => {
        const expert = Math.floor(i / (rows * columns));
        const [column, row] = [Math.floor(i / rows) % columns, i % rows];
        return stored[(expert * rows + row) * columns + column] ?? 0;
      });
    },
  };
}

/** Writes columns of a row-major matrix as rows. @returns the offset after them. */
function copyColumns(
  matrix: Uint8Array,
  { columns, first, count, bytes }: { columns: number; first: number; count: number; bytes: number },
  out: Uint8Array,
  at: number,
): number {
  for (let column = first; column < first + count; column++) {
    for (let from = column * bytes; from < matrix.length; from += columns * bytes) {
      for (let byte = 0; byte < bytes; byte++) out[at++] = matrix[from + byte] ?? 0;
    }
  }
  return at;
}

function concatenated(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1 && pieces[0]) return pieces[0];
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

// Reads weights as f32 values.

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
  for (let start = 0; start < values.length; start += columns) {
    const row = firstRow + start / columns;
    // Every expert starts new blocks.
    const scaleRow = Math.floor(row / matrixRows) * scaleRows + Math.floor((row % matrixRows) / blockRows);
    for (let block = 0; block < scaleColumns; block++) {
      const scale = scales[scaleRow * scaleColumns + block] ?? 0;
      const end = Math.min(columns, (block + 1) * blockColumns);
      for (let column = block * blockColumns; column < end; column++) {
        values[start + column] = (values[start + column] ?? 0) * scale;
      }
    }
  }
}
