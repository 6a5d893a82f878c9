/**
 * The CPU's resources: the number of compute threads (one a physical core, or as many as the system grants), and matrix
 * units.
 */
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

/** Intel's AMX for 8-bit integers; detected on Linux only. */
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

// Chooses the number of threads for a pass. ggml's threads busy-wait for each other after every operator, so one thread
// whose core the system gave to another program delays all: with two threads on two cores that twelve threads wanted, a
// token took five times as long as on one thread. The next passes take as many threads as the last one was granted (its
// CPU time divided by its duration), and from time to time they try all threads again.

interface PassTimes {
  readonly wallMs: number;
  /** CPU time of all threads. */
  readonly processorMs: number;
}

/** Shorter measurements are too inexact. */
const leastMs = 10;
/** A system may count each thread's time in steps of this many milliseconds. */
const stepMs = 10;
/** Over this long, the steps no longer matter. */
const longMs = 200;
/**
 * Fewer than these mean contention: a program that keeps one processor busy takes 0.67 of two threads, 0.8 of four and
 * 0.89 of eight. Without contention, a pass of 3 ms on two threads counts as 1.78 of them, because some of another
 * thread's time is counted only after the pass.
 */
const grantedWithout = (count: number): number => Math.min(0.9 * count, count - 0.5);
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

  /** Threads for the next pass. */
  next(nowMs: number): number {
    if (this.#count < this.#most && nowMs >= this.#retryAtMs) {
      this.#count = this.#most;
      this.#forget();
    }
    return this.#count;
  }

  /** Call after a pass with `next` threads. */
  observe({ wallMs, processorMs }: PassTimes, nowMs: number): void {
    this.#wallMs += wallMs;
    this.#processorMs += processorMs;
    const wanted = grantedWithout(this.#count) * this.#wallMs;
    const isContended = this.#wallMs >= leastMs && this.#processorMs + this.#count * stepMs < wanted;
    if (!isContended && this.#wallMs < longMs) return;
    const granted = this.#processorMs / this.#wallMs;
    this.#forget();
    if (granted >= grantedWithout(this.#count)) {
      if (this.#count === this.#most) this.#pauseMs = firstPauseMs;
      return;
    }
    // With one thread, there is none to give up; with fewer than all, all were tried a moment ago.
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
