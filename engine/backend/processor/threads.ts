/** What the processor has: how many threads compute, one a physical core or as many as the system grants; and matrix units. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

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

/** Intel's AMX with 8-bit numbers, known on Linux alone. */
export const hasMatrixUnits = (): boolean => process.platform === 'linux' && /\bamx_int8\b/.test(readCpuInfo());

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

// How many threads compute a pass. ggml's threads wait for each other after every operator, busily, so one that the system has
// given to another program holds all up: with two threads on two processors that were asked for by twelve, a token took five
// times as long as on one thread. What a pass was granted, its time on processors divided by its time, is what the next ones
// take; from time to time they try all again.

interface PassTimes {
  readonly wallMs: number;
  /** Of all threads. */
  readonly processorMs: number;
}

/** Shorter measurements say nothing. */
const leastMs = 10;
/** A system may count each thread's time in steps of so many milliseconds. */
const stepMs = 10;
/** Over this long, the steps no longer matter. */
const longMs = 200;
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
    const wanted = this.#count * grantedShare * this.#wallMs;
    const isContended = this.#wallMs >= leastMs && this.#processorMs + this.#count * stepMs < wanted;
    if (!isContended && this.#wallMs < longMs) return;
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
