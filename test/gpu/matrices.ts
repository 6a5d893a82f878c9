/** Matrices for kernel tests, in every quantisation. */

import { type MatrixLayout, matrixLayout, splitPlanes } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import type { BlockScaleShape } from '../../engine/backend/webgpu/kernels/weightCode.ts';
import { dequantise } from '../../engine/formats/dequantise.ts';
import { openSafetensors } from '../../engine/formats/safetensors.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import { blockLayout } from '../../engine/formats/tensor.ts';
import { randomValues } from './kernel.ts';

// biome-ignore format: one line of names
export const blockTypes: readonly TensorType[] = [
  'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4',
];
export const allTypes: readonly TensorType[] = ['F32', 'F16', 'BF16', 'F8_E4M3', ...blockTypes];

export const codecFixture = new URL('../fixtures/gguf/codecs.safetensors', import.meta.url).pathname;

/** Rows of `type`: libggml's own quantisations of the codec fixture from block `shift` on, repeated; F32 and F8 are made here. */
async function storedRows(type: TensorType, rows: number, columns: number, shift: number): Promise<Uint8Array> {
  const { elements, bytes } = blockLayout(type);
  const made = new Uint8Array(((rows * columns) / elements) * bytes);
  if (type === 'F32') return new Uint8Array(randomValues(rows * columns, 7 + shift).buffer);
  // Every code but the two NaNs.
  if (type === 'F8_E4M3') return made.map((_, i) => ((((i + shift) * 37) % 127) | ((i + shift) & 128)) & 0xff);
  const file = await openSafetensors(codecFixture);
  const source = await file.read(`${type}.bytes`);
  await file.close();
  const stored = Math.floor(source.length / bytes);
  return made.map((_, i) => {
    const block = Math.floor(i / bytes) + shift;
    // One further on each time around, so that no two experts are alike.
    return source[((block + Math.floor(block / stored)) % stored) * bytes + (i % bytes)] ?? 0;
  });
}

export interface Matrix {
  readonly layout: MatrixLayout;
  readonly words: Uint32Array<ArrayBuffer>;
  /** `[rows, columns]`, block scales applied. */
  readonly values: Float32Array;
  readonly blockScale?: BlockScaleShape;
}

export interface Stack {
  readonly matrices: number;
  /** The matrices of the stack that are made; others are left out. */
  readonly first: number;
  readonly end: number;
}

/** `[rows, columns]`, or a stack of them; FP8 has blocks of 128 x 128 that start anew in every one. */
export async function matrixOf(
  type: TensorType,
  rows: number,
  columns: number,
  stack: Stack = { matrices: 1, first: 0, end: 1 },
  shift = 0,
): Promise<Matrix> {
  const { elements, bytes: blockBytes } = blockLayout(type);
  const matrixBytes = ((rows * columns) / elements) * blockBytes;
  const all = await storedRows(type, stack.matrices * rows, columns, shift);
  const bytes = all.slice(stack.first * matrixBytes, stack.end * matrixBytes);
  const matrices = stack.end - stack.first;
  const scaled = type === 'F8_E4M3';
  const [scaleRows, scaleColumns] = [Math.ceil(rows / 128), Math.ceil(columns / 128)];
  const scaleCount = scaleRows * scaleColumns;
  const scales = randomValues(stack.matrices * scaleCount, 3 + shift).slice(
    stack.first * scaleCount,
    stack.end * scaleCount,
  );
  const layout = matrixLayout(type, matrices * rows, columns, scaled ? scales.length : 0);
  const words = new Uint32Array(layout.totalWords);
  splitPlanes(layout, 0, bytes, (offset, piece) => new Uint8Array(words.buffer).set(piece, offset));
  const values = dequantise(type, bytes);
  if (!scaled) return { layout, words, values };
  new Float32Array(words.buffer).set(scales, layout.planeWords[1] ?? 0);
  const scaledValues = values.map((value, i) => {
    const row = Math.floor(i / columns);
    const scaleRow = Math.floor(row / rows) * scaleRows + ((row % rows) >> 7);
    return value * (scales[scaleRow * scaleColumns + ((i % columns) >> 7)] ?? 0);
  });
  const stacked = stack.matrices > 1 ? { rowsPerMatrix: rows } : {};
  return { layout, words, values: scaledValues, blockScale: { blockRows: 128, blockColumns: 128, ...stacked } };
}
