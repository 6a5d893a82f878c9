import { expect, it } from 'vitest';
import type { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { canJoin, jointVectorGroups, jointVectorKernel } from '../../engine/backend/webgpu/kernels/projections.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import { normalisedError, randomValues, runKernelOutputs, useGpu } from './kernel.ts';
import { matrixOf } from './matrices.ts';

const held = useGpu();
const poorest = useGpu(true);
const epsilon = 1e-5;

async function check(
  sizes: readonly (readonly [TensorType, number])[],
  columns: number,
  tokens: number,
  bias: boolean,
  { gpu = held.gpu, isNormalised = false }: { readonly gpu?: Gpu; readonly isNormalised?: boolean } = {},
): Promise<void> {
  const matrices = await Promise.all(sizes.map(([type, rows], i) => matrixOf(type, rows, columns, undefined, i)));
  expect(canJoin(matrices, bias, gpu.capabilities)).toBe(true);
  const x = randomValues(tokens * columns, 1);
  const gain = randomValues(columns, 2);
  const biases = randomValues(
    sizes.reduce((sum, [, rows]) => sum + rows, 0),
    3,
  );
  const shape = { matrices, bias, tokens, ...(!isNormalised && { normEpsilon: epsilon }) };
  const outputs = await runKernelOutputs(
    gpu,
    jointVectorKernel(shape, gpu.capabilities),
    [...matrices.map(({ words }) => words), x, ...(isNormalised ? [] : [gain]), ...(bias ? [biases] : [])],
    matrices.map(({ layout }) => tokens * layout.rows),
    jointVectorGroups(shape),
  );
  let first = 0;
  for (const [i, { layout, values }] of matrices.entries()) {
    const expected = Array.from({ length: tokens * layout.rows }, (_, at) => {
      const own = x.subarray(Math.floor(at / layout.rows) * columns, (Math.floor(at / layout.rows) + 1) * columns);
      const rms = Math.sqrt(own.reduce((sum, value) => sum + value * value, 0) / columns + epsilon);
      const factor = (c: number) => (isNormalised ? 1 : (gain[c] ?? 0) / rms);
      const row = at % layout.rows;
      const sum = own.reduce((all, v, c) => all + v * factor(c) * (values[row * columns + c] ?? 0), 0);
      return sum + (bias ? (biases[first + row] ?? 0) : 0);
    });
    expect(normalisedError(outputs[i] ?? [], expected)).toBeLessThan(1e-10);
    first += layout.rows;
  }
}

it('three matrices of one type, one token', () =>
  check(
    [
      ['BF16', 32],
      ['BF16', 8],
      ['BF16', 8],
    ],
    96,
    1,
    false,
  ));
it('matrices of different types, four tokens, with biases', () =>
  check(
    [
      ['Q4_K', 12],
      ['Q6_K', 4],
      ['Q8_0', 4],
    ],
    512,
    4,
    true,
  ));
it('matrices of different types in chunks, one token, with biases', () =>
  check(
    [
      ['Q4_K', 12],
      ['Q6_K', 4],
      ['Q8_0', 4],
    ],
    1024,
    1,
    true,
  ));
it('two matrices with scale blocks, sixteen tokens', () =>
  check(
    [
      ['F8_E4M3', 140],
      ['F8_E4M3', 8],
    ],
    160,
    16,
    false,
  ));
it('without subgroups', () =>
  check(
    [
      ['BF16', 8],
      ['BF16', 4],
    ],
    64,
    2,
    false,
    { gpu: poorest.gpu },
  ));
it.each([1, 6])('of normalised rows, with biases, %i tokens', (tokens) =>
  check(
    [
      ['BF16', 8],
      ['Q8_0', 4],
    ],
    1024,
    tokens,
    true,
    { isNormalised: true },
  ),
);
