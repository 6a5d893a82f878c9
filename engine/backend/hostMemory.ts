/** What memory this machine has, and what a model could take of it now. */
import { execFileSync } from 'node:child_process';
import { freemem, totalmem } from 'node:os';
import type { MemoryPool } from './memoryPlan.ts';

/** What is asked of the operating system; tests answer in its place. */
export interface HostSystem {
  readonly platform: NodeJS.Platform;
  readonly totalBytes: number;
  /** `os.freemem()`: on Linux MemAvailable, on Windows what is available, on macOS the pages that hold nothing at all. */
  readonly freeBytes: number;
  /** Of the container (cgroups); 0, or more than the machine has: none. */
  readonly limitBytes: number;
  readonly residentBytes: number;
  /** What `vm_stat` prints; empty where it cannot be run. */
  vmStat(): string;
}

const programMs = 2000;

const thisHost = (): HostSystem => ({
  platform: process.platform,
  totalBytes: totalmem(),
  freeBytes: freemem(),
  limitBytes: process.constrainedMemory(),
  residentBytes: process.memoryUsage.rss(),
  vmStat: () => {
    try {
      return execFileSync('/usr/bin/vm_stat', {
        encoding: 'utf8',
        timeout: programMs,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    } catch {
      return '';
    }
  },
});

export function hostMemory(system: HostSystem = thisHost()): MemoryPool {
  const { limitBytes, residentBytes } = system;
  const constrained = limitBytes > 0 && limitBytes < system.totalBytes;
  const totalBytes = constrained ? limitBytes : system.totalBytes;
  const available = system.platform === 'darwin' ? reclaimableBytes(system) : system.freeBytes;
  return {
    kind: 'host',
    name: "this machine's memory",
    totalBytes,
    availableBytes: constrained ? Math.min(available, Math.max(0, limitBytes - residentBytes)) : available,
  };
}

/**
 * macOS keeps nearly all memory in use. What it gives back before it swaps are the pages that vm_stat counts as free, speculative, purgeable and
 * inactive; where it cannot be asked, half of the memory is assumed.
 */
function reclaimableBytes({ totalBytes, freeBytes, vmStat }: HostSystem): number {
  const text = vmStat();
  const pageBytes = Number(/page size of (\d+) bytes/.exec(text)?.[1]);
  const pages = ['free', 'speculative', 'purgeable', 'inactive'].map((kind) =>
    Number(new RegExp(`Pages ${kind}: +(\\d+)`).exec(text)?.[1]),
  );
  const bytes = pageBytes * pages.reduce((sum, count) => sum + count, 0);
  return Number.isFinite(bytes)
    ? Math.max(freeBytes, Math.min(totalBytes, bytes))
    : Math.max(freeBytes, totalBytes / 2);
}
