/** Number of compute threads: one for each physical core available to this process. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), physicalCores()));
}

/** Two threads on one core share its arithmetic units, which only slows them down. */
function physicalCores(): number {
  const logical = cpus().length;
  if (process.platform === 'linux') return coresOfCpuInfo(readCpuInfo()) ?? logical;
  // Most Intel Macs and Windows machines have two threads a core; ARM machines have one.
  return process.arch === 'x64' ? Math.ceil(logical / 2) : logical;
}

function readCpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return '';
  }
}

/** Counts distinct (package, core) pairs in /proc/cpuinfo. @returns undefined if they aren't listed (ARM). */
export function coresOfCpuInfo(text: string): number | undefined {
  const cores = new Set<string>();
  for (const processor of text.split('\n\n')) {
    const value = (key: string) => new RegExp(`^${key}\\s*: (\\d+)$`, 'm').exec(processor)?.[1];
    const core = value('core id');
    if (core !== undefined) cores.add(`${value('physical id')}/${core}`);
  }
  return cores.size || undefined;
}
