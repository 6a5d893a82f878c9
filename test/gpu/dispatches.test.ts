import { expect, it } from 'vitest';
import { copyKernel, measureCopyBandwidth } from '../../engine/backend/webgpu/device/bandwidth.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { openModel } from '../../engine/model/open.ts';
import { fixtureFile } from '../unit/shared.ts';
import { lavapipe } from './adapters.ts';
import { randomValues, runKernel, useGpu } from './kernel.ts';

const held = useGpu();

const backend = createWebgpuBackend();

/** Kernels that one token starts in each layer of a golden checkpoint, whose layers are built as the published models' are. */
async function layersOf(family: string): Promise<readonly number[]> {
  const model = await openModel(fixtureFile(`goldens/${family}`));
  const decoder = await backend.load(model.spec, model.weights, { contextTokens: 256 });
  const counts = await decoder.dispatches?.();
  await decoder.dispose();
  await model.file.close();
  return counts?.layers ?? [];
}

/** As docs/proof.md lists them. A budget: what makes a layer cheaper changes these numbers. */
const budgets = {
  // A layer with a window needs no merge of split keys.
  'gpt-oss': [6, 7],
  'qwen3-moe': [8],
  'deepseek-v3': [10, 14],
  llama: [6],
  starcoder2: [7],
};

for (const [family, budget] of Object.entries(budgets)) {
  it(`${family} decodes a token with this number of dispatches a layer`, async ({ skip }) => {
    if (lavapipe) skip('the counts are those of SwiftShader, and compiling takes minutes');
    const layers = await layersOf(family);
    expect([...new Set(layers)].sort((a, b) => a - b)).toEqual(budget);
  });
}

it('the bandwidth measurement copies, and releases its memory', async () => {
  const from = randomValues(4 * 5000, 1);
  expect(await runKernel(held.gpu, copyKernel(), [from], from.length, [3])).toEqual(from);
  const before = held.gpu.allocatedBytes;
  expect(await measureCopyBandwidth(held.gpu)).toBeGreaterThan(1e6);
  expect(held.gpu.allocatedBytes).toBe(before);
});
