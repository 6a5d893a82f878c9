import { describe, expect, it } from 'vitest';
import { PlanBuilder } from '../../engine/backend/webgpu/decoder/recorder.ts';
import { type GpuMatrix, Uploader } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import { embedKernel } from '../../engine/backend/webgpu/kernels/embed.ts';
import type { Weight } from '../../engine/model/weights/weights.ts';
import { readValues } from '../../engine/model/weights/weightViews.ts';
import { randomValues, useGpu } from './kernel.ts';

/** FP8 with scale blocks of 8 x 16 that start anew in every matrix of the stack. */
function stackedFp8(matrices: number, rows: number, columns: number): Weight {
  const bytes = Uint8Array.from({ length: matrices * rows * columns }, (_, i) => (i * 37) % 127);
  const scales = randomValues(matrices * Math.ceil(rows / 8) * Math.ceil(columns / 16), 1);
  return {
    name: 'experts',
    shape: [matrices, rows, columns],
    type: 'F8_E4M3',
    readRows: async (start, count) => bytes.slice(start * columns, (start + count) * columns),
    blockScale: { blockRows: 8, blockColumns: 16, read: async () => scales },
  };
}

describe('a matrix on the GPU', () => {
  const held = useGpu();

  async function uploaded(weight: Weight): Promise<GpuMatrix> {
    const uploader = new Uploader(held.gpu, { contextTokens: 1 });
    const matrix = await uploader.matrix(weight);
    await uploader.upload();
    return matrix;
  }

  /** Every row of it, as the embedding kernel reads rows. */
  async function readRows({ rows, columns, pieces, blockScale }: GpuMatrix): Promise<number[]> {
    const { gpu } = held;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const rowBuffer = await gpu.allocate('rows', 16 * rows, usage);
    const output = await gpu.allocate('output', 4 * rows * columns, usage);
    const ids = Array.from({ length: rows }, (_, id) => [0, 0, id, 0]);
    gpu.device.queue.writeBuffer(rowBuffer, 0, Uint32Array.from(ids.flat()));
    const builder = new PlanBuilder(gpu);
    for (const { layout, firstRow, buffer } of pieces) {
      builder.add(embedKernel(layout, { firstRow, blockScale }), [buffer, rowBuffer, output], [rows]);
    }
    const plan = await builder.finish();
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    gpu.device.queue.submit([encoder.finish()]);
    return [...new Float32Array(await gpu.readBack(output, 4 * rows * columns))];
  }

  it('that is a stack is split between its matrices, each with its own scale blocks', async () => {
    const { gpu } = held;
    const whole = gpu.capabilities;
    const weight = stackedFp8(5, 12, 24);
    // Room for 25 rows: two matrices of twelve.
    Object.assign(gpu, { capabilities: { ...whole, maxPieceBytes: 25 * 24 } });
    const matrix = await uploaded(weight);
    Object.assign(gpu, { capabilities: whole });
    expect(matrix.pieces.map(({ firstRow }) => firstRow)).toEqual([0, 24, 48]);
    expect(await readRows(matrix)).toEqual([...(await readValues(weight, 0, 60))]);
  });

  it('that fits one binding is not split', async () => {
    const weight = stackedFp8(3, 12, 24);
    const matrix = await uploaded(weight);
    expect(matrix.pieces.length).toBe(1);
    expect(await readRows(matrix)).toEqual([...(await readValues(weight, 0, 36))]);
  });
});
