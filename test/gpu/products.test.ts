import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { defaultTuning } from '../../engine/backend/webgpu/device/adapter.ts';
import type { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import {
  matrixMatrixGroups,
  matrixMatrixKernel,
  matrixVectorKernel,
  type ProductShape,
} from '../../engine/backend/webgpu/kernels/linear.ts';
import { rowsPerGroup } from '../../engine/backend/webgpu/kernels/vectorProduct.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import { blockLayout } from '../../engine/formats/tensor.ts';
import { askedGoldens, lavapipe } from './adapters.ts';
import { normalisedError, randomValues, runKernel, tileOperand, useGpu } from './kernel.ts';
import { allTypes, blockTypes, codecFixture, type Matrix, matrixOf } from './matrices.ts';

interface Options {
  readonly tokens: number;
  readonly bias?: boolean;
  readonly norm?: boolean;
  readonly gelu?: boolean;
  readonly rowsPerHead?: number;
  /** Instead of the default of `Tuning`. */
  readonly threadRows?: number;
  readonly tallRows?: number;
}

/** torch's `gelu(approximate="tanh")`. */
const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

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
      y[m * rows + row] = options.gelu ? gelu(sum) : sum;
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
    gelu: options.gelu ?? false,
    ...(options.rowsPerHead ? { rowsPerHead: options.rowsPerHead } : {}),
  };
  const inputs = [matrix.words, x, ...(options.norm ? [gain] : []), ...(options.bias ? [bias] : [])];
  if (tokens <= 16) {
    const { threadRows = defaultTuning.threadRows } = options;
    const kernel = matrixVectorKernel(
      { ...shape, tokens, ...(options.norm ? { norm: { epsilon: 1e-5 } } : {}) },
      { ...gpu.capabilities, tuning: { ...defaultTuning, threadRows } },
    );
    const y = await runKernel(gpu, kernel, inputs, tokens * rows, [Math.ceil(rows / rowsPerGroup)]);
    expect(normalisedError(y, expected)).toBeLessThan(1e-10);
  }
  if (!options.norm) {
    const { tallRows = defaultTuning.tallRows } = options;
    const capabilities = { ...gpu.capabilities, tuning: { ...defaultTuning, tallRows } };
    const operand = await tileOperand(gpu, x, heads * columns);
    const params = new Uint32Array([tokens, 0, 0, 0]);
    const y = await runKernel(
      gpu,
      matrixMatrixKernel(shape, capabilities),
      [matrix.words, ...operand, ...(options.bias ? [bias] : []), params],
      tokens * rows,
      matrixMatrixGroups(shape, tokens, capabilities),
    );
    expect(normalisedError(y, expected)).toBeLessThan(1e-10);
  }
}

it('has a fixture for every block type', () => {
  const names = Object.keys(JSON.parse(readFileSync(codecFixture.replace('.safetensors', '.json'), 'utf8')) as object);
  for (const type of blockTypes) expect(names).toContain(type);
});

/** Lavapipe compiles each kernel for seconds: there one type of each layout stands for all, `npm run test:gpu all` runs the rest. */
const representatives: readonly TensorType[] = ['BF16', 'F8_E4M3', 'Q5_0', 'Q6_K', 'MXFP4'];
const slice = lavapipe && askedGoldens !== 'all';

describe('matmuls with a quantised matrix', () => {
  const held = useGpu();
  for (const type of slice ? representatives : allTypes) {
    const step = Math.max(32, blockLayout(type).elements);
    it(`${type}: one block by one token`, () => checkProduct(held.gpu, type, 1, step, { tokens: 1 }));
    it(`${type}: rows and a prompt that are smaller than a tile`, () =>
      checkProduct(held.gpu, type, 70, step * 3, { tokens: 67 }));
    it(`${type}: across scale blocks`, () => checkProduct(held.gpu, type, 133, step * 5, { tokens: 2 }));
  }
  // From 768 columns on, a thread multiplies a chunk of all four rows by one row of x; before, of one.
  for (const type of slice ? representatives : allTypes) {
    it(`${type}: long rows by one token, normalised`, () =>
      checkProduct(held.gpu, type, 9, 1024, { tokens: 1, norm: true, bias: true }));
    it.each([2, 1])(`${type}: long rows by one token, %i of them a thread, normalised`, (threadRows) =>
      checkProduct(held.gpu, type, 9, 1024, { tokens: 1, norm: true, bias: true, threadRows }),
    );
  }
  for (const type of ['BF16', 'Q4_K', 'MXFP4'] as const) {
    it(`${type}: with bias`, () => checkProduct(held.gpu, type, 9, 512, { tokens: 4, bias: true }));
    it(`${type}: of normalised input`, () =>
      checkProduct(held.gpu, type, 9, 512, { tokens: 4, norm: true, bias: true }));
    it(`${type}: with bias and GELU, of few rows and of a prompt`, async () => {
      for (const tokens of [1, 4, 70]) {
        await checkProduct(held.gpu, type, 12, 512, { tokens, bias: true, gelu: true });
      }
    });
    it(`${type}: sixteen tokens`, () => checkProduct(held.gpu, type, 9, 512, { tokens: 16 }));
    it(`${type}: a prompt over several tiles each way, with bias`, () =>
      checkProduct(held.gpu, type, 150, 512, { tokens: 130, bias: true }));
    it.each([20, 100, 300])(`${type}: a prompt of %i tokens in tiles of a tall matrix`, (tokens) =>
      checkProduct(held.gpu, type, 150, 512, { tokens, bias: true, tallRows: 1 }),
    );
    it(`${type}: head by head`, () => checkProduct(held.gpu, type, 40, 256, { tokens: 3, rowsPerHead: 8 }));
  }
});

describe('matmuls on an adapter that flushes f16 below 2^-14', () => {
  const held = useGpu(false, ['halfSubnormals']);
  for (const type of ['MXFP4', 'F8_E4M3'] as const) {
    it(`${type}: long rows by one token`, () => checkProduct(held.gpu, type, 8, 1024, { tokens: 1 }));
  }
});

describe('matmuls on an adapter without subgroups and subgroup matrices', () => {
  const held = useGpu(true);
  it('reduce through workgroup memory', () =>
    checkProduct(held.gpu, 'BF16', 9, 512, { tokens: 4, norm: true, bias: true }));
  for (const type of ['BF16', 'Q4_K'] as const) {
    it(`${type}: in plain tiles`, () => checkProduct(held.gpu, type, 150, 512, { tokens: 130, bias: true }));
  }
});
