import { describe, expect, it } from 'vitest';
import { defaultTuning } from '../../../engine/backend/webgpu/device/adapter.ts';
import { graphicsCards, memoryOf, type System } from '../../../engine/backend/webgpu/device/graphicsCards.ts';

const GB = 1e9;
const MiB = 2 ** 20;

/** A machine that answers from a list of files and programs. */
function system(fields: Partial<System> & { readonly files?: Readonly<Record<string, string>> } = {}): System {
  const { files = {}, ...rest } = fields;
  return {
    platform: 'linux',
    arch: 'x64',
    processor: '',
    totalBytes: 32 * GB,
    freeBytes: 20 * GB,
    run: async () => '',
    read: async (path) => files[path] ?? '',
    list: async (directory) => [
      ...new Set(
        Object.keys(files).flatMap((file) => (file.startsWith(`${directory}/`) ? [file.split('/')[4] ?? ''] : [])),
      ),
    ],
    ...rest,
  };
}

const nvidiaSmi = (lines: string) => async (program: string) => (program === 'nvidia-smi' ? lines : '');
const amd = (card: string, files: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(files).map(([name, text]) => [`/sys/class/drm/${card}/device/${name}`, text]));

describe('graphics cards of the system', () => {
  it('are none if no tool and no file reports one', async () => {
    expect(await graphicsCards(system())).toEqual([]);
  });

  it('NVIDIA: as printed by nvidia-smi, the largest first', async () => {
    const run = nvidiaSmi('NVIDIA GeForce RTX 3060, 12288, 11000\nNVIDIA H100 80GB HBM3, 81559, 81000\n');
    expect(await graphicsCards(system({ run }))).toEqual([
      {
        vendor: 'nvidia',
        name: 'NVIDIA H100 80GB HBM3',
        totalBytes: 81559 * MiB,
        freeBytes: 81000 * MiB,
        unified: false,
      },
      {
        vendor: 'nvidia',
        name: 'NVIDIA GeForce RTX 3060',
        totalBytes: 12288 * MiB,
        freeBytes: 11000 * MiB,
        unified: false,
      },
    ]);
  });

  it('NVIDIA: a chip without its own memory uses the shared memory', async () => {
    const [card] = await graphicsCards(system({ run: nvidiaSmi('NVIDIA GB10, [N/A], [N/A]\n') }));
    expect(card).toMatchObject({ unified: true, totalBytes: 24 * GB, freeBytes: 20 * GB });
  });

  it('AMD: from the driver’s files; used memory is not free', async () => {
    const files = amd('card1', {
      vendor: '0x1002\n',
      mem_info_vram_total: `${24 * GB}\n`,
      mem_info_vram_used: `${1 * GB}\n`,
      mem_info_gtt_total: `${16 * GB}\n`,
    });
    expect(await graphicsCards(system({ files }))).toMatchObject([
      { vendor: 'amd', totalBytes: 24 * GB, freeBytes: 23 * GB, unified: false },
    ]);
  });

  it('AMD: integrated graphics are unified; files of other vendors are ignored', async () => {
    const own = amd('card0', { vendor: '0x1002', mem_info_vram_total: `${GB / 2}`, mem_info_gtt_total: `${16 * GB}` });
    const other = amd('card1', { vendor: '0x8086', mem_info_vram_total: '1' });
    expect(await graphicsCards(system({ files: { ...own, ...other } }))).toMatchObject([
      { vendor: 'amd', unified: true },
    ]);
  });

  it('Apple: the available part of at most three quarters of the memory', async () => {
    const mac = (freeBytes: number) =>
      system({ platform: 'darwin', arch: 'arm64', processor: 'Apple M2 Max', freeBytes });
    expect(await graphicsCards(mac(30 * GB))).toMatchObject([
      { name: 'Apple M2 Max', unified: true, totalBytes: 24 * GB, freeBytes: 24 * GB },
    ]);
    expect(await graphicsCards(mac(10 * GB))).toMatchObject([{ totalBytes: 24 * GB, freeBytes: 10 * GB }]);
  });
});

describe('the memory of the opened adapter', () => {
  const adapter = (
    vendor: string,
    fields: { architecture?: string; device?: string; software?: boolean; description?: string } = {},
  ) => ({
    vendor,
    architecture: '',
    description: '',
    software: false,
    f16: true,
    timestamps: false,
    halfSubnormals: true,
    device: '',
    maxBindingBytes: 1,
    maxPieceBytes: 0,
    maxBufferBytes: 1,
    maxWorkgroupInvocations: 1,
    maxWorkgroupBytes: 1,
    maxBindingsPerKernel: 1,
    operationsPerSecond: 1e11,
    tuning: defaultTuning,
    notes: [],
    ...fields,
  });
  const two = system({ run: nvidiaSmi('NVIDIA A, 1000, 900\nNVIDIA B, 2000, 1900\n') });

  it('is that of the card with its name, otherwise of the vendor’s largest', async () => {
    expect((await memoryOf(adapter('nvidia', { description: 'NVIDIA A' }), two))?.totalBytes).toBe(1000 * MiB);
    expect((await memoryOf(adapter('nvidia', { description: 'Vulkan' }), two))?.totalBytes).toBe(2000 * MiB);
  });

  it('is the shared memory for software and integrated graphics', async () => {
    expect(await memoryOf(adapter('mesa', { software: true }), two)).toMatchObject({ unified: true });
    expect(await memoryOf(adapter('intel', { architecture: 'gen-12lp' }), two)).toMatchObject({ unified: true });
  });

  it('is found by a name that Dawn writes with hyphens', async () => {
    const rtx = system({
      run: nvidiaSmi('NVIDIA GeForce RTX 4060, 8000, 7000\nNVIDIA GeForce RTX 4090, 24000, 23000\n'),
    });
    const device = 'nvidia-geforce-rtx-4060';
    expect((await memoryOf(adapter('nvidia', { device, description: '550.54' }), rtx))?.totalBytes).toBe(8000 * MiB);
  });

  it("is the shared memory for Apple's GPUs on Linux, too", async () => {
    expect(await memoryOf(adapter('apple', { architecture: 'asahi' }), two)).toMatchObject({ unified: true });
  });

  it('is unknown for other cards', async () => {
    expect(await memoryOf(adapter('intel', { architecture: 'xe-2hpg' }), two)).toBeUndefined();
    expect(await memoryOf(adapter('amd'), two)).toBeUndefined();
  });
});
