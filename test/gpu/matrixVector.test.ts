import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { matrixVectorKernel, rowsPerGroup } from '../../engine/backend/webgpu/kernels/matrixVector.ts';
import { matrixLayout, splitPlanes } from '../../engine/backend/webgpu/weightLayout.ts';
import { blockLayout } from '../../engine/formats/blocks.ts';
import { dequantise } from '../../engine/formats/dequantise.ts';
import { openSafetensors } from '../../engine/formats/safetensors.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import { normalisedError, randomValues, runKernel, useGpu } from './kernel.ts';

const blockTypes: readonly TensorType[] = [
  'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4',
]; // biome-ignore format: one line of names
const plainTypes: readonly TensorType[] = ['F32', 'F16', 'BF16', 'F8_E4M3'];

const fixture = new URL('../fixtures/gguf/codecs.safetensors', import.meta.url).pathname;
const names = Object.keys(JSON.parse(readFileSync(fixture.replace('.safetensors', '.json'), 'utf8')) as object);

/** Rows of `type`: libggml's own quantisations of the codec fixture, repeated; F32 and F8 are made here. */
async function storedRows(type: TensorType, rows: number, columns: number): Promise<Uint8Array> {
  const { elements, bytes } = blockLayout(type);
  const length = ((rows * columns) / elements) * bytes;
  const made = new Uint8Array(length);
  if (type === 'F32') return new Uint8Array(randomValues(rows * columns, 7).buffer);
  if (type === 'F8_E4M3') {
    // Every code but the two NaNs.
    return made.map((_, i) => (((i * 37) % 127) | (i & 128)) & 0xff);
  }
  const file = await openSafetensors(fixture);
  const source = await file.read(`${type}.bytes`);
  await file.close();
  const whole = source.length - (source.length % bytes);
  return made.map((_, i) => source[i % whole] ?? 0);
}

async function checkProduct(
  gpu: ReturnType<typeof useGpu>['gpu'],
  type: TensorType,
  rows: number,
  columns: number,
  tokens: number,
): Promise<void> {
  const bytes = await storedRows(type, rows, columns);
  const blockScale = type === 'F8_E4M3' ? { blockRows: 128, blockColumns: 128 } : undefined;
  const scales = randomValues(Math.ceil(rows / 128) * Math.ceil(columns / 128), 3);
  const layout = matrixLayout(type, rows, columns, blockScale ? scales.length : 0);
  const words = new Uint32Array(layout.totalWords);
  splitPlanes(layout, 0, bytes, (offset, piece) => new Uint8Array(words.buffer).set(piece, offset));
  if (blockScale) new Float32Array(words.buffer).set(scales, layout.planeWords[1] ?? 0);
  const x = randomValues(tokens * columns, 11);
  const values = dequantise(type, bytes);
  const expected = new Float64Array(tokens * rows);
  for (let m = 0; m < tokens; m++) {
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      for (let column = 0; column < columns; column++) {
        const scale = blockScale ? (scales[(row >> 7) * Math.ceil(columns / 128) + (column >> 7)] ?? 0) : 1;
        sum += (x[m * columns + column] ?? 0) * (values[row * columns + column] ?? 0) * scale;
      }
      expected[m * rows + row] = sum;
    }
  }
  const kernel = matrixVectorKernel({ layout, tokens, ...(blockScale ? { blockScale } : {}) }, gpu.capabilities);
  const y = await runKernel(gpu, kernel, [words, x], tokens * rows, [Math.ceil(rows / rowsPerGroup)]);
  expect(normalisedError(y, expected)).toBeLessThan(1e-10);
}

it('has a fixture for every block type', () => {
  for (const type of blockTypes) expect(names).toContain(type);
});

for (const poorest of [false, true]) {
  describe(`matrix by vector, ${poorest ? 'without subgroups or f16' : 'as the adapter is'}`, () => {
    const held = useGpu(poorest);
    for (const type of [...plainTypes, ...blockTypes]) {
      const step = Math.max(32, blockLayout(type).elements);
      for (const [rows, columns, tokens] of [
        [1, step, 1],
        [5, step * 3, 2],
        [130, step * 9, 1],
        [7, step * 5, 16],
      ] as const) {
        it(`${type} [${rows}, ${columns}] by ${tokens}`, () => checkProduct(held.gpu, type, rows, columns, tokens));
      }
    }
  });
}
