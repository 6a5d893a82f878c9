import { expect, it } from 'vitest';
import { matrixLayout } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import { matrixMatrixKernel } from '../../engine/backend/webgpu/kernels/linear.ts';
import { splitHalvesKernel } from '../../engine/backend/webgpu/kernels/matrixTiles.ts';
import { float16Values } from '../../engine/formats/tensor.ts';
import { randomValues, runKernelOutputs, useGpu } from './kernel.ts';

const held = useGpu();

/** `[rows, width]` as the sum of its halves, in float64, and each row's scale. */
async function split(x: Float32Array<ArrayBuffer>, width: number) {
  const rows = x.length / width;
  const [halves, scales] = await runKernelOutputs(held.gpu, splitHalvesKernel(width), [x], [x.length, rows], [rows]);
  if (!halves || !scales) throw new Error('the kernel has two outputs');
  const words = new Uint32Array(halves.buffer, halves.byteOffset, halves.length);
  const sums = Float64Array.from(words, (word, i) => {
    const [high = 0, low = 0] = [float16Values[word & 0xffff], float16Values[word >>> 16]];
    return (high + low) * (scales[Math.floor(i / width)] ?? 0);
  });
  return { sums, scales };
}

it('x split in halves equals x to 22 bits, from 1e-20 to 1e20', async () => {
  const width = 268;
  const sizes = [1e-20, 1e-3, 1, 7e4, 1e20];
  const x = Float32Array.from(sizes.flatMap((size, row) => [...randomValues(width, row, size)]));
  const { sums, scales } = await split(x, width);
  for (const [row, scale] of scales.entries()) {
    const own = x.subarray(row * width, (row + 1) * width);
    const largest = own.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // A power of two that leaves the largest value within f16.
    expect(Number.isInteger(Math.log2(scale))).toBe(true);
    expect(largest / scale).toBeGreaterThanOrEqual(2 ** 14);
    expect(largest / scale).toBeLessThan(2 ** 15);
    for (const [i, value] of own.entries()) {
      const bound = Math.max(Math.abs(value) * 2 ** -22, largest * 2 ** -39);
      expect(Math.abs((sums[row * width + i] ?? Number.NaN) - value)).toBeLessThanOrEqual(bound);
    }
  }
});

it('a row of zeros is preserved', async () => {
  const { sums } = await split(new Float32Array(8), 8);
  expect([...sums]).toEqual(new Array(8).fill(0));
});

/** What other adapters report (Dawn's SubgroupMatrixConfigs on NVIDIA and Intel): they cannot run here, but WGSL checks the shapes. */
const elsewhere = [
  { subgroups: { min: 32, max: 32 }, subgroupMatrix: { m: 16, n: 16, k: 16 } },
  { subgroups: { min: 32, max: 32 }, subgroupMatrix: { m: 16, n: 8, k: 16 } },
  { subgroups: { min: 8, max: 32 }, subgroupMatrix: { m: 8, n: 16, k: 16 } },
  { subgroups: { min: 32, max: 64 }, subgroupMatrix: { m: 16, n: 16, k: 16 } },
];
for (const unit of elsewhere) {
  const { m, n, k } = unit.subgroupMatrix;
  const { min, max } = unit.subgroups;
  it(`tiles of ${m}x${n}x${k} by subgroups of ${min} to ${max} are valid WGSL`, async (context) => {
    const { device, capabilities } = held.gpu;
    if (!capabilities.subgroupMatrix) context.skip('this adapter has no subgroup matrices');
    for (const type of ['BF16', 'F32'] as const) {
      const { code } = matrixMatrixKernel({ layout: matrixLayout(type, 70, 96) }, { ...capabilities, ...unit });
      const module = device.createShaderModule({ code });
      const { messages } = await module.getCompilationInfo();
      expect(messages.filter((message) => message.type === 'error').map((error) => error.message)).toEqual([]);
    }
  });
}
