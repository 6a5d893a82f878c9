import { describe, expect, it } from 'vitest';
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

describe('the graphics cards that the system knows', () => {
  it('are none where no tool and no file tells of one', async () => {
    expect(await graphicsCards(system())).toEqual([]);
  });

  it('NVIDIA: as nvidia-smi prints them, the largest first', async () => {
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

  it('NVIDIA: a chip without memory of its own takes from the common memory', async () => {
    const [card] = await graphicsCards(system({ run: nvidiaSmi('NVIDIA GB10, [N/A], [N/A]\n') }));
    expect(card).toMatchObject({ unified: true, totalBytes: 24 * GB, freeBytes: 20 * GB });
  });

  it('AMD: from the driver’s files; what is used already is not free', async () => {
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

  it('AMD: a processor’s own graphics are unified, and other vendors’ files are left alone', async () => {
    const own = amd('card0', { vendor: '0x1002', mem_info_vram_total: `${GB / 2}`, mem_info_gtt_total: `${16 * GB}` });
    const other = amd('card1', { vendor: '0x8086', mem_info_vram_total: '1' });
    expect(await graphicsCards(system({ files: { ...own, ...other } }))).toMatchObject([
      { vendor: 'amd', unified: true },
    ]);
  });

  it('Apple: at most three quarters of the machine’s memory, and what is available of it', async () => {
    const mac = (freeBytes: number) =>
      system({ platform: 'darwin', arch: 'arm64', processor: 'Apple M2 Max', freeBytes });
    expect(await graphicsCards(mac(30 * GB))).toMatchObject([
      { name: 'Apple M2 Max', unified: true, totalBytes: 24 * GB, freeBytes: 24 * GB },
    ]);
    expect(await graphicsCards(mac(10 * GB))).toMatchObject([{ totalBytes: 24 * GB, freeBytes: 10 * GB }]);
  });
});

describe('the memory of the adapter that was opened', () => {
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
    tuning: { vectorThreads: 64, attentionGroups: 512 },
    notes: [],
    ...fields,
  });
  const two = system({ run: nvidiaSmi('NVIDIA A, 1000, 900\nNVIDIA B, 2000, 1900\n') });

  it('is that of the card with its name, else of the vendor’s largest', async () => {
    expect((await memoryOf(adapter('nvidia', { description: 'NVIDIA A' }), two))?.totalBytes).toBe(1000 * MiB);
    expect((await memoryOf(adapter('nvidia', { description: 'Vulkan' }), two))?.totalBytes).toBe(2000 * MiB);
  });

  it('is the common memory where it is software or a part of the processor', async () => {
    expect(await memoryOf(adapter('mesa', { software: true }), two)).toMatchObject({ unified: true });
    expect(await memoryOf(adapter('intel', { architecture: 'gen-12lp' }), two)).toMatchObject({ unified: true });
  });

  it('is that of the card whose name Dawn writes with hyphens', async () => {
    const rtx = system({
      run: nvidiaSmi('NVIDIA GeForce RTX 4060, 8000, 7000\nNVIDIA GeForce RTX 4090, 24000, 23000\n'),
    });
    const device = 'nvidia-geforce-rtx-4060';
    expect((await memoryOf(adapter('nvidia', { device, description: '550.54' }), rtx))?.totalBytes).toBe(8000 * MiB);
  });

  it("is the common memory of Apple's GPUs on Linux, too", async () => {
    expect(await memoryOf(adapter('apple', { architecture: 'asahi' }), two)).toMatchObject({ unified: true });
  });

  it('is not known of other cards', async () => {
    expect(await memoryOf(adapter('intel', { architecture: 'xe-2hpg' }), two)).toBeUndefined();
    expect(await memoryOf(adapter('amd'), two)).toBeUndefined();
  });
});
