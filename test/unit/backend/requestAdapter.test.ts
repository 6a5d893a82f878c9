import { expect, it } from 'vitest';
import { requestAdapter } from '../../../engine/backend/webgpu/device/adapter.ts';

/** Dawn with adapters of these backends; `undefined` is what it prefers. */
function dawn(backends: readonly (string | undefined)[]) {
  const asked: (string | undefined)[] = [];
  const create = (flags: string[]): GPU => {
    const backend = flags.find((flag) => flag.startsWith('backend='))?.slice('backend='.length);
    asked.push(backend);
    const adapter = backends.includes(backend) ? ({ label: backend } as unknown as GPUAdapter) : null;
    return { requestAdapter: async () => adapter } as unknown as GPU;
  };
  return { asked, create };
}

it('Windows tries Vulkan first, then Direct3D 12', async () => {
  const both = dawn(['vulkan', undefined]);
  expect((await requestAdapter(both.create, [], 'win32')).adapter).not.toBeNull();
  expect(both.asked).toEqual(['vulkan']);
  const one = dawn([undefined]);
  expect((await requestAdapter(one.create, [], 'win32')).adapter).not.toBeNull();
  expect(one.asked).toEqual(['vulkan', undefined]);
});

it('other systems have one backend', async () => {
  const { asked, create } = dawn([undefined]);
  await requestAdapter(create, ['adapter=x'], 'linux');
  expect(asked).toEqual([undefined]);
});
