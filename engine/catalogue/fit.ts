/** Estimates which models this machine can run, before any download. */

import { availableParallelism } from 'node:os';
import { hostMemory } from '../backend/hostMemory.ts';
import { DoesNotFit, type MemoryPool, type ModelNeeds, mostUsableBytes, planMemory } from '../backend/memoryPlan.ts';
import { graphicsCards } from '../backend/webgpu/device/graphicsCards.ts';
import { showBytes } from '../units.ts';
import type { CatalogueEntry } from './catalogue.ts';

interface Gpu {
  readonly name: string;
  /** Memory available for weights; absent if unknown. */
  readonly memoryBytes?: number;
  /** Unified memory: shared with the CPU (laptops, Apple silicon). */
  readonly unified: boolean;
}

export interface Hardware {
  /** Memory of the machine, or the limit of its container. */
  readonly totalMemoryBytes: number;
  readonly freeMemoryBytes: number;
  readonly cores: number;
  /** Absent if no GPU was found. */
  readonly gpu?: Gpu;
}

export function detectHardware(gpu?: Gpu): Hardware {
  const { totalBytes, availableBytes } = hostMemory();
  return {
    totalMemoryBytes: totalBytes,
    freeMemoryBytes: Math.min(totalBytes, availableBytes),
    cores: availableParallelism(),
    ...(gpu && { gpu }),
  };
}

/** Like `detectHardware`, with the largest graphics card that the system reports. */
export async function detectMachine(): Promise<Hardware> {
  const [card] = await graphicsCards();
  return detectHardware(card && { name: card.name, memoryBytes: card.totalBytes, unified: card.unified });
}

export interface Fit {
  readonly verdict: 'good' | 'slow' | 'no';
  /** Shown to the user. */
  readonly reason: string;
}

/** The context length that a verdict assumes: enough for a file with related code, or for a conversation. */
const usualContextTokens = 8192;
/** Runtime, activations and buffers, in addition to weights and KV cache. */
const overheadBytes = 400e6;
/** Memory bandwidth limit of one core. Two channels of DDR4 reach about 25 GB/s in practice. */
const bytesPerSecondPerCore = 8e9;
const bytesPerSecondOfMemory = 25e9;
/** Below this speed a completion of twenty tokens arrives too late. */
const goodTokensPerSecond = 10;

/** Sizes that decide whether a model fits and how fast it is. */
export type Sizes = Pick<CatalogueEntry, 'downloadBytes' | 'bytesPerToken' | 'cacheBytesPerToken' | 'contextTokens'>;

/** Memory for the weights, the KV cache of a usual context and the runtime. */
export function memoryNeededBytes(entry: Sizes): number {
  const contextTokens = Math.min(usualContextTokens, entry.contextTokens);
  return entry.downloadBytes + contextTokens * entry.cacheBytesPerToken + overheadBytes;
}

/** KV cache grows by `cacheBytesPerToken` per token; sliding-window layers are not counted. */
function needsOf(entry: Sizes): ModelNeeds {
  return {
    weightBytes: entry.downloadBytes,
    scratchBytes: overheadBytes,
    cacheBytes: (tokens) => tokens * entry.cacheBytesPerToken,
    longestTokens: entry.contextTokens,
  };
}

/** Assumes that all memory is available, so that a verdict doesn't depend on other running programs. */
function poolsOf({ gpu, totalMemoryBytes }: Hardware): { readonly host: MemoryPool; readonly card?: MemoryPool } {
  const pool = (kind: MemoryPool['kind'], name: string, totalBytes: number): MemoryPool => ({
    kind,
    name,
    totalBytes,
    availableBytes: totalBytes,
  });
  const host = pool('host', "this machine's memory", totalMemoryBytes);
  if (gpu?.memoryBytes === undefined || gpu.unified) return { host };
  return { host, card: pool('card', gpu.name, gpu.memoryBytes) };
}

/** Whether a usual context fits. */
function fits(entry: Sizes, pool: MemoryPool | undefined): boolean {
  const usual = Math.min(usualContextTokens, entry.contextTokens);
  return contextOn(needsOf(entry), pool, usual) === usual;
}

/** Longest context that fits, up to `asked`; 0 if none does. */
function contextOn(needs: ModelNeeds, pool: MemoryPool | undefined, asked?: number): number {
  if (!pool) return 0;
  try {
    return planMemory(needs, pool, asked).contextTokens;
  } catch (error) {
    if (error instanceof DoesNotFit) return error.contextTokens;
    throw error;
  }
}

/** Longest context if no other program uses memory; 0 if the weights don't fit. */
export function longestContext(needs: Omit<ModelNeeds, 'scratchBytes'>, hardware: Hardware): number {
  const { host, card } = poolsOf(hardware);
  const all = { ...needs, scratchBytes: overheadBytes };
  return Math.max(contextOn(all, card), contextOn(all, host));
}

/** Memory available for weights and KV cache, on the graphics card or the host, whichever is larger. */
export function memoryForModelBytes(hardware: Hardware): number {
  const { host, card } = poolsOf(hardware);
  return Math.max(0, Math.max(card ? mostUsableBytes(card) : 0, mostUsableBytes(host)) - overheadBytes);
}

/** Upper bound of the CPU's decode speed: each token reads `bytesPerToken` of weights from memory. */
export function processorTokensPerSecond(entry: Sizes, hardware: Hardware): number {
  const bytesPerSecond = Math.min(hardware.cores * bytesPerSecondPerCore, bytesPerSecondOfMemory);
  return bytesPerSecond / entry.bytesPerToken;
}

export function judge(entry: Sizes, hardware: Hardware): Fit {
  const neededBytes = memoryNeededBytes(entry);
  const needs = `needs about ${showBytes(neededBytes)} of memory`;
  const gpu = hardware.gpu;
  const { host, card } = poolsOf(hardware);
  if (card && fits(entry, card)) {
    return { verdict: 'good', reason: `Fits in the memory of ${card.name}: ${needs}.` };
  }
  if (!fits(entry, host)) {
    const has = `this machine has ${showBytes(hardware.totalMemoryBytes)}`;
    return { verdict: 'no', reason: `It ${needs}, but ${has}, part of which other programs use.` };
  }
  if (gpu?.unified)
    return { verdict: 'good', reason: `Runs on ${gpu.name}, which shares this machine's memory: ${needs}.` };
  const speed = processorTokensPerSecond(entry, hardware);
  const closing = neededBytes > hardware.freeMemoryBytes ? ' Close other programs first.' : '';
  const shownSpeed = speed < 2 ? speed.toFixed(1) : Math.round(speed).toString();
  const estimate = `It ${needs}; this CPU can reach at most about ${shownSpeed} tokens a second.`;
  return { verdict: speed >= goodTokensPerSecond ? 'good' : 'slow', reason: estimate + closing };
}

/** Hardware recommendation that doesn't depend on this machine. */
export function hardwareNeeds(entry: Sizes): string {
  const needs = showBytes(memoryNeededBytes(entry));
  const speedOnFourCores = processorTokensPerSecond(entry, { totalMemoryBytes: 0, freeMemoryBytes: 0, cores: 4 });
  if (speedOnFourCores >= goodTokensPerSecond) return `About ${needs} of memory; a CPU is enough.`;
  return `About ${needs} of GPU memory; slow on a CPU.`;
}

export interface RecommendOptions {
  /** Families that the engine can run; default: all. */
  readonly families?: readonly CatalogueEntry['family'][];
  readonly fallbackId: string;
}

/** The highest-ranked model that runs well, supports completion and chat, and has an open licence. */
export function chooseModel(entries: readonly CatalogueEntry[], hardware: Hardware, options: RecommendOptions) {
  const suitable = entries.filter(
    (entry) =>
      entry.licence.open &&
      entry.roles.includes('completion') &&
      entry.roles.includes('chat') &&
      (options.families?.includes(entry.family) ?? true) &&
      judge(entry, hardware).verdict === 'good',
  );
  const best = suitable.reduce<CatalogueEntry | undefined>(
    (leader, entry) => (leader === undefined || entry.rank > leader.rank ? entry : leader),
    undefined,
  );
  return best ?? entries.find((entry) => entry.id === options.fallbackId);
}

/** The highest-ranked chat model that fits in `bytes` of memory. */
export function bestWithin(entries: readonly CatalogueEntry[], bytes: number): CatalogueEntry | undefined {
  const fitting = entries.filter((entry) => entry.roles.includes('chat') && memoryNeededBytes(entry) <= bytes);
  return fitting.reduce<CatalogueEntry | undefined>(
    (best, entry) => (best === undefined || entry.rank > best.rank ? entry : best),
    undefined,
  );
}
