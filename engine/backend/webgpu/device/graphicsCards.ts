/**
 * The graphics cards of the system with their memory, which WebGPU does not report. Loads no driver: runs NVIDIA's tool
 * and reads Linux's files about AMD's cards. Apple's GPUs share the CPU's memory.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hostMemory } from '../../memoryPlan.ts';
import type { GpuCapabilities } from './adapter.ts';

export interface GraphicsCard {
  readonly vendor: string;
  readonly name: string;
  readonly totalBytes: number;
  /** Bytes that a model may use now. */
  readonly freeBytes: number;
  /** Shares the CPU's memory. */
  readonly unified: boolean;
}

/** Queries to the operating system; tests replace them. */
export interface System {
  readonly platform: NodeJS.Platform;
  readonly arch: string;
  /** The CPU's name. For a chip with integrated graphics, it also identifies the graphics. */
  readonly processor: string;
  readonly totalBytes: number;
  /** Available to a model (memoryPlan.ts). */
  readonly freeBytes: number;
  /** Empty if the program or file is missing. */
  run(program: string, args: readonly string[]): Promise<string>;
  read(path: string): Promise<string>;
  list(directory: string): Promise<readonly string[]>;
}

/** Time limit: nvidia-smi first wakes sleeping cards. */
const programMs = 5000;

export const thisSystem = (host = hostMemory()): System => ({
  platform: process.platform,
  arch: process.arch,
  processor: cpus()[0]?.model.trim() ?? '',
  totalBytes: host.totalBytes,
  freeBytes: host.availableBytes,
  run: (program, args) =>
    textOf(promisify(execFile)(program, args, { timeout: programMs }).then(({ stdout }) => stdout)),
  read: (path) => textOf(readFile(path, 'utf8')),
  list: (directory) => readdir(directory).catch(() => []),
});

const textOf = (text: Promise<string>): Promise<string> => text.catch(() => '');

/**
 * The rest is for the system, the screen and other programs. Metal's recommendedMaxWorkingSetSize is 3/4 on large
 * machines.
 */
const shareOfUnifiedMemory = 0.75;

/** Cards with known memory, the largest first. */
export async function graphicsCards(system: System = thisSystem()): Promise<GraphicsCard[]> {
  const cards = [...(await nvidiaCards(system)), ...(await amdCards(system)), ...appleCards(system)];
  return cards.sort((a, b) => b.totalBytes - a.totalBytes);
}

async function nvidiaCards(system: System): Promise<GraphicsCard[]> {
  const query = ['--query-gpu=name,memory.total,memory.free', '--format=csv,noheader,nounits'];
  const lines = (await system.run('nvidia-smi', query)).split('\n');
  return lines.flatMap((line) => {
    const [name = '', total, free] = line.split(',').map((cell) => cell.trim());
    const [totalBytes, freeBytes] = [Number(total) * 2 ** 20, Number(free) * 2 ** 20];
    // '[N/A]' if a card shares the processor's memory (Jetson, DGX Spark).
    if (!(totalBytes > 0)) return name === '' ? [] : [unifiedCard(system, 'nvidia', name)];
    return [{ vendor: 'nvidia', name, totalBytes, freeBytes, unified: false }];
  });
}

const amdVendorId = '0x1002';

/** `mem_info_*`: Linux, Documentation/gpu/amdgpu/driver-misc.rst. */
async function amdCards(system: System): Promise<GraphicsCard[]> {
  if (system.platform !== 'linux') return [];
  const drm = '/sys/class/drm';
  const names = (await system.list(drm)).filter((name) => /^card\d+$/.test(name));
  const cards = await Promise.all(
    names.map(async (name) => {
      const read = async (file: string) => (await system.read(join(drm, name, 'device', file))).trim();
      if ((await read('vendor')) !== amdVendorId) return [];
      const bytes = async (file: string) => Number(await read(file));
      const [total, used, shared] = [
        await bytes('mem_info_vram_total'),
        await bytes('mem_info_vram_used'),
        await bytes('mem_info_gtt_total'),
      ];
      const title = (await read('product_name')) || 'AMD graphics';
      if (total === 0) return [];
      // Integrated graphics have a small reserved part and use the shared memory for the rest.
      if (total < shared) return [unifiedCard(system, 'amd', system.processor || title)];
      return [{ vendor: 'amd', name: title, totalBytes: total, freeBytes: total - used, unified: false }];
    }),
  );
  return cards.flat();
}

function appleCards(system: System): GraphicsCard[] {
  return system.platform === 'darwin' && system.arch === 'arm64'
    ? [unifiedCard(system, 'apple', appleName(system))]
    : [];
}

/** The chip's name, which tells how fast its memory is. */
const appleName = ({ processor }: System): string => processor || 'Apple GPU';

function unifiedCard(system: System, vendor: string, name: string): GraphicsCard {
  const totalBytes = system.totalBytes * shareOfUnifiedMemory;
  return { vendor, name, totalBytes, freeBytes: Math.min(totalBytes, system.freeBytes), unified: true };
}

/** Intel's discrete cards (Dawn's gpu_info.json), whose memory is unknown. */
const intelCards = /hpg?$/;

/** Converts a name to Dawn's form. */
const hyphenated = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-');

/** The memory of the opened adapter; absent: unknown. */
export async function memoryOf(
  { vendor, architecture, device, description, software }: GpuCapabilities,
  system: System = thisSystem(),
): Promise<GraphicsCard | undefined> {
  if (software || vendor === 'apple' || (vendor === 'intel' && !intelCards.test(architecture)))
    return unifiedCard(system, vendor, vendor === 'apple' ? appleName(system) : description);
  const own = (await graphicsCards(system)).filter((card) => card.vendor === vendor);
  return own.find(({ name }) => description.includes(name) || hyphenated(device).includes(hyphenated(name))) ?? own[0];
}
