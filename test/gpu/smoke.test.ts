import { expect, it } from 'vitest';
import { Gpu } from '../../engine/backend/webgpu/gpu.ts';

it('adapter', async () => {
  const gpu = await Gpu.open({ validate: true });
  console.log(gpu.capabilities, process.execPath, process.argv);
  expect(gpu.capabilities.software).toBe(true);
  gpu.dispose();
});
