/** How many threads compute: one a physical core; the number that was measured to be fastest; those that the system grants. */
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

/** One for each physical core that is available to this process. */
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

// The fastest number, as measured once. The result is stored beside the packed weights.

const measurement = z.object({ machine: z.string(), threads: z.int().positive() });

/** Another number of threads than one a core must be faster by this factor, because measurements vary. */
const minSpeedup = 1.1;

/**
 * @param directory where the result is stored; it is measured again on another processor.
 * @param measure milliseconds of a matmul with that many threads (`matmulMs`).
 */
export async function measuredThreads(
  directory: string,
  measure: (threads: number) => Promise<number>,
  candidates: readonly number[] = threadCandidates(),
): Promise<number> {
  const [defaultCount = 1, ...others] = candidates;
  if (others.length === 0) return defaultCount;
  const machine = `${cpus()[0]?.model ?? ''}: ${candidates.join(', ')}`;
  const path = join(directory, 'threads.json');
  const known = await readMeasurement(path);
  if (known?.machine === machine) return known.threads;
  let best = { threads: defaultCount, ms: (await measure(defaultCount)) / minSpeedup };
  for (const threads of others) {
    const ms = await measure(threads);
    if (ms < best.ms) best = { threads, ms };
  }
  // If it can't be stored, the next load measures again.
  await writeFile(path, JSON.stringify({ machine, threads: best.threads })).catch(() => undefined);
  return best.threads;
}

/** One thread a core, one a hardware thread, and half the cores (some cores may be slow ones). */
function threadCandidates(): number[] {
  const cores = defaultThreads();
  return [...new Set([cores, availableParallelism(), Math.ceil(cores / 2)])];
}

async function readMeasurement(path: string): Promise<z.infer<typeof measurement> | undefined> {
  try {
    return measurement.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}

// How many threads compute a pass. ggml's threads wait for each other after every operator, busily, so one that the system has
// given to another program holds all up: with two threads on two processors that were asked for by twelve, a token took five
// times as long as on one thread. What a pass was granted, its time on processors divided by its time, is what the next ones
// take; from time to time they try all again.

interface PassTimes {
  readonly wallMs: number;
  /** Of all threads. */
  readonly processorMs: number;
}

/** Shorter measurements say little: the system counts in steps. */
const leastMs = 10;
/** Less than this of what was asked for is contention. */
const grantedShare = 0.9;
const firstPauseMs = 500;
const longestPauseMs = 8_000;

export class GrantedThreads {
  readonly #most: number;
  #count: number;
  #pauseMs = firstPauseMs;
  #retryAtMs = 0;
  #wallMs = 0;
  #processorMs = 0;

  constructor(most: number) {
    this.#most = most;
    this.#count = most;
  }

  /** For the next pass. */
  next(nowMs: number): number {
    if (this.#count < this.#most && nowMs >= this.#retryAtMs) {
      this.#count = this.#most;
      this.#forget();
    }
    return this.#count;
  }

  /** After a pass with `next` threads. */
  observe({ wallMs, processorMs }: PassTimes, nowMs: number): void {
    this.#wallMs += wallMs;
    this.#processorMs += processorMs;
    if (this.#wallMs < leastMs) return;
    const granted = this.#processorMs / this.#wallMs;
    this.#forget();
    if (granted >= this.#count * grantedShare) {
      if (this.#count === this.#most) this.#pauseMs = firstPauseMs;
      return;
    }
    // On one thread there is nothing to give up, and fewer than all were tried a moment ago.
    const wasMost = this.#count === this.#most;
    this.#count = Math.max(1, Math.min(this.#count - 1, Math.floor(granted)));
    if (!wasMost) return;
    this.#retryAtMs = nowMs + this.#pauseMs;
    this.#pauseMs = Math.min(longestPauseMs, 2 * this.#pauseMs);
  }

  #forget(): void {
    this.#wallMs = 0;
    this.#processorMs = 0;
  }
}
