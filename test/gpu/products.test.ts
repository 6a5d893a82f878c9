import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Gpu } from '../../engine/backend/webgpu/gpu.ts';
import { matrixMatrixGroups, matrixMatrixKernel } from '../../engine/backend/webgpu/kernels/matrixMatrix.ts';
import {
  matrixVectorKernel,
  type ProductShape,
  rowsPerGroup,
} from '../../engine/backend/webgpu/kernels/matrixVector.ts';
import { type MatrixLayout, matrixLayout, splitPlanes } from '../../engine/backend/webgpu/weightLayout.ts';
import { blockLayout } from '../../engine/formats/blocks.ts';
import { dequantise } from '../../engine/formats/dequantise.ts';
import { openSafetensors } from '../../engine/formats/safetensors.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import { normalisedError, randomValues, runKernel, useGpu } from './kernel.ts';

// biome-ignore format: one line of names
const blockTypes: readonly TensorType[] = [
  'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4',
];
const allTypes: readonly TensorType[] = ['F32', 'F16', 'BF16', 'F8_E4M3', ...blockTypes];

const fixture = new URL('../fixtures/gguf/codecs.safetensors', import.meta.url).pathname;

/** Rows of `type`: libggml's own quantisations of the codec fixture, repeated; F32 and F8 are made here. */
async function storedRows(type: TensorType, rows: number, columns: number): Promise<Uint8Array> {
  const { elements, bytes } = blockLayout(type);
  const made = new Uint8Array(((rows * columns) / elements) * bytes);
  if (type === 'F32') return new Uint8Array(randomValues(rows * columns, 7).buffer);
  // Every code but the two NaNs.
  if (type === 'F8_E4M3') return made.map((_, i) => (((i * 37) % 127) | (i & 128)) & 0xff);
  const file = await openSafetensors(fixture);
  const source = await file.read(`${type}.bytes`);
  await file.close();
  const whole = source.length - (source.length % bytes);
  return made.map((_, i) => source[i % whole] ?? 0);
}

interface Matrix {
  readonly layout: MatrixLayout;
  readonly words: Uint32Array<ArrayBuffer>;
  /** `[rows, columns]`, block scales applied. */
  readonly values: Float32Array;
  readonly blockScale?: { readonly blockRows: number; readonly blockColumns: number };
}

async function matrixOf(type: TensorType, rows: number, columns: number): Promise<Matrix> {
  const bytes = await storedRows(type, rows, columns);
  const scaled = type === 'F8_E4M3';
  const scaleColumns = Math.ceil(columns / 128);
  const scales = randomValues(Math.ceil(rows / 128) * scaleColumns, 3);
  const layout = matrixLayout(type, rows, columns, scaled ? scales.length : 0);
  const words = new Uint32Array(layout.totalWords);
  splitPlanes(layout, 0, bytes, (offset, piece) => new Uint8Array(words.buffer).set(piece, offset));
  const values = dequantise(type, bytes);
  if (!scaled) return { layout, words, values };
  new Float32Array(words.buffer).set(scales, layout.planeWords[1] ?? 0);
  const scaledValues = values.map((value, i) => {
    const row = Math.floor(i / columns);
    return value * (scales[(row >> 7) * scaleColumns + ((i % columns) >> 7)] ?? 0);
  });
  return { layout, words, values: scaledValues, blockScale: { blockRows: 128, blockColumns: 128 } };
}

interface Options {
  readonly tokens: number;
  readonly bias?: boolean;
  readonly norm?: boolean;
  readonly rowsPerHead?: number;
}

/** The product in float64. */
function expectedProduct(
  { layout, values }: Matrix,
  x: Float32Array,
  bias: Float32Array,
  gain: Float32Array,
  options: Options,
) {
  const { rows, columns } = layout;
  const heads = options.rowsPerHead ? rows / options.rowsPerHead : 1;
  const y = new Float64Array(options.tokens * rows);
  for (let m = 0; m < options.tokens; m++) {
    const all = x.subarray(m * heads * columns, (m + 1) * heads * columns);
    const rms = Math.sqrt(all.reduce((sum, value) => sum + value * value, 0) / columns + 1e-5);
    for (let row = 0; row < rows; row++) {
      const start = options.rowsPerHead ? Math.floor(row / options.rowsPerHead) * columns : 0;
      let sum = options.bias ? (bias[row] ?? 0) : 0;
      for (let column = 0; column < columns; column++) {
        const value = (all[start + column] ?? 0) * (options.norm ? (gain[column] ?? 0) / rms : 1);
        sum += value * (values[row * columns + column] ?? 0);
      }
      y[m * rows + row] = sum;
    }
  }
  return y;
}

async function checkProduct(
  gpu: Gpu,
  type: TensorType,
  rows: number,
  columns: number,
  options: Options,
): Promise<void> {
  const { tokens } = options;
  const matrix = await matrixOf(type, rows, columns);
  const heads = options.rowsPerHead ? rows / options.rowsPerHead : 1;
  const x = randomValues(tokens * heads * columns, 11);
  const bias = randomValues(rows, 12);
  const gain = randomValues(columns, 13);
  const expected = expectedProduct(matrix, x, bias, gain, options);
  const shape: ProductShape = {
    layout: matrix.layout,
    ...(matrix.blockScale ? { blockScale: matrix.blockScale } : {}),
    bias: options.bias ?? false,
    ...(options.rowsPerHead ? { rowsPerHead: options.rowsPerHead } : {}),
  };
  const inputs = [matrix.words, x, ...(options.norm ? [gain] : []), ...(options.bias ? [bias] : [])];
  if (tokens <= 16) {
    const kernel = matrixVectorKernel(
      { ...shape, tokens, ...(options.norm ? { norm: { epsilon: 1e-5 } } : {}) },
      gpu.capabilities,
    );
    const y = await runKernel(gpu, kernel, inputs, tokens * rows, [Math.ceil(rows / rowsPerGroup)]);
    expect(normalisedError(y, expected)).toBeLessThan(1e-10);
  }
  if (!options.norm) {
    const params = new Uint32Array([tokens, 0, 0, 0]);
    const y = await runKernel(
      gpu,
      matrixMatrixKernel(shape),
      [...inputs, params],
      tokens * rows,
      matrixMatrixGroups(shape, tokens),
    );
    expect(normalisedError(y, expected)).toBeLessThan(1e-10);
  }
}

it('has a fixture for every block type', () => {
  const names = Object.keys(JSON.parse(readFileSync(fixture.replace('.safetensors', '.json'), 'utf8')) as object);
  for (const type of blockTypes) expect(names).toContain(type);
});

describe('products with a matrix in its own quantisation', () => {
  const held = useGpu();
  for (const type of allTypes) {
    const step = Math.max(32, blockLayout(type).elements);
    it(`${type}: one block by one token`, () => checkProduct(held.gpu, type, 1, step, { tokens: 1 }));
    it(`${type}: rows that fill no tile, a prompt that fills no tile`, () =>
      checkProduct(held.gpu, type, 70, step * 3, { tokens: 67 }));
    it(`${type}: across scale blocks`, () => checkProduct(held.gpu, type, 133, step * 5, { tokens: 2 }));
  }
  for (const type of ['BF16', 'Q4_K', 'MXFP4'] as const) {
    it(`${type}: with bias`, () => checkProduct(held.gpu, type, 9, 512, { tokens: 4, bias: true }));
    it(`${type}: of normalised input`, () =>
      checkProduct(held.gpu, type, 9, 512, { tokens: 4, norm: true, bias: true }));
    it(`${type}: sixteen tokens`, () => checkProduct(held.gpu, type, 9, 512, { tokens: 16 }));
    it(`${type}: head by head`, () => checkProduct(held.gpu, type, 40, 256, { tokens: 3, rowsPerHead: 8 }));
  }
});

describe('products without subgroups', () => {
  const held = useGpu(true);
  it('sum through workgroup memory', () =>
    checkProduct(held.gpu, 'BF16', 9, 512, { tokens: 4, norm: true, bias: true }));
});
