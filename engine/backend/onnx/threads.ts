/** How many threads compute: one for each physical core that this process may use. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), physicalCores()));
}

/** A second thread on a core shares its arithmetic units and only gets in the way. */
function physicalCores(): number {
  const logical = cpus().length;
  if (process.platform === 'linux') return coresOfCpuInfo(readCpuInfo()) ?? logical;
  // Intel Macs and Windows machines mostly have two threads a core; ARM ones have one.
  return process.arch === 'x64' ? Math.ceil(logical / 2) : logical;
}

function readCpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return '';
  }
}

/** Distinct pairs of package and core in /proc/cpuinfo; undefined where it does not tell (ARM). */
export function coresOfCpuInfo(text: string): number | undefined {
  const cores = new Set<string>();
  for (const processor of text.split('\n\n')) {
    const value = (key: string) => new RegExp(`^${key}\\s*: (\\d+)$`, 'm').exec(processor)?.[1];
    const core = value('core id');
    if (core !== undefined) cores.add(`${value('physical id')}/${core}`);
  }
  return cores.size || undefined;
}
