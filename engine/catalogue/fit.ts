/** Which models a machine can run, before anything is downloaded. Estimates, and said as such. */

import { DoesNotFit, type MemoryPool, type ModelNeeds, mostUsableBytes, planMemory } from '../backend/memoryPlan.ts';
import { showBytes } from '../units.ts';
import type { CatalogueEntry } from './catalogue.ts';
import type { Hardware } from './hardware.ts';

export interface Fit {
  readonly verdict: 'good' | 'slow' | 'no';
  /** One sentence for the user. */
  readonly reason: string;
}

/** Context that a verdict is about: a file with its surroundings, or a conversation. */
const usualContextTokens = 8192;
/** Runtime, activations and buffers beside weights and cache. */
const overheadBytes = 400e6;
/** One core cannot pull more than this from memory; two channels of DDR4 end at about 25 GB/s in practice. */
const bytesPerSecondPerCore = 8e9;
const bytesPerSecondOfMemory = 25e9;
/** Slower than this, a completion of twenty tokens comes too late to be useful. */
const goodTokensPerSecond = 10;

/** Memory for the weights, a usual context and the runtime. */
export function memoryNeededBytes(entry: CatalogueEntry): number {
  const contextTokens = Math.min(usualContextTokens, entry.contextTokens);
  return entry.downloadBytes + contextTokens * entry.cacheBytesPerToken + overheadBytes;
}

/** Keys and values by what a token adds, in the layers whose cache grows. */
function needsOf(entry: CatalogueEntry): ModelNeeds {
  return {
    weightBytes: entry.downloadBytes,
    scratchBytes: overheadBytes,
    cacheBytes: (tokens) => tokens * entry.cacheBytesPerToken,
    longestTokens: entry.contextTokens,
  };
}

/** As if nothing else ran: a verdict is about the machine, not about the moment. */
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

/** Whether a usual context has room. */
function fits(entry: CatalogueEntry, pool: MemoryPool | undefined): boolean {
  const usual = Math.min(usualContextTokens, entry.contextTokens);
  return contextOn(needsOf(entry), pool, usual) === usual;
}

/** 0: none fits. */
function contextOn(needs: ModelNeeds, pool: MemoryPool | undefined, asked?: number): number {
  if (!pool) return 0;
  try {
    return planMemory(needs, pool, asked).contextTokens;
  } catch (error) {
    if (error instanceof DoesNotFit) return error.contextTokens;
    throw error;
  }
}

/** The longest context on this machine when nothing else runs; 0: the weights do not fit. */
export function longestContext(needs: Omit<ModelNeeds, 'scratchBytes'>, hardware: Hardware): number {
  const { host, card } = poolsOf(hardware);
  const all = { ...needs, scratchBytes: overheadBytes };
  return Math.max(contextOn(all, card), contextOn(all, host));
}

/** What weights and cache may take at most: of the graphics card or the machine, whichever has more room. */
export function memoryForModelBytes(hardware: Hardware): number {
  const { host, card } = poolsOf(hardware);
  return Math.max(0, Math.max(card ? mostUsableBytes(card) : 0, mostUsableBytes(host)) - overheadBytes);
}

/** Tokens a second that the processor can reach at best: each one reads `bytesPerToken` of weights from memory. */
export function processorTokensPerSecond(entry: CatalogueEntry, hardware: Hardware): number {
  const bytesPerSecond = Math.min(hardware.cores * bytesPerSecondPerCore, bytesPerSecondOfMemory);
  return bytesPerSecond / entry.bytesPerToken;
}

export function judge(entry: CatalogueEntry, hardware: Hardware): Fit {
  const neededBytes = memoryNeededBytes(entry);
  const needs = `needs about ${showBytes(neededBytes)} of memory`;
  const gpu = hardware.gpu;
  const { host, card } = poolsOf(hardware);
  if (card && fits(entry, card)) {
    return { verdict: 'good', reason: `Fits into the memory of ${card.name}: ${needs}.` };
  }
  if (!fits(entry, host)) {
    const has = `this machine has ${showBytes(hardware.totalMemoryBytes)}`;
    return { verdict: 'no', reason: `It ${needs} and ${has}, some of which other programs use.` };
  }
  if (gpu?.unified)
    return { verdict: 'good', reason: `Runs on ${gpu.name}, which shares this machine's memory: ${needs}.` };
  const speed = processorTokensPerSecond(entry, hardware);
  const closing = neededBytes > hardware.freeMemoryBytes ? ' Other programs have to be closed first.' : '';
  const pace = speed < 2 ? speed.toFixed(1) : Math.round(speed).toString();
  const estimate = `It ${needs}; the processor can reach at most about ${pace} tokens a second.`;
  return { verdict: speed >= goodTokensPerSecond ? 'good' : 'slow', reason: estimate + closing };
}

/** What to look for in a machine, in one sentence that holds for all machines. */
export function hardwareNeeds(entry: CatalogueEntry): string {
  const needs = showBytes(memoryNeededBytes(entry));
  const anyProcessor = processorTokensPerSecond(entry, { totalMemoryBytes: 0, freeMemoryBytes: 0, cores: 4 });
  if (anyProcessor >= goodTokensPerSecond) return `About ${needs} of memory; a processor is enough.`;
  return `About ${needs} of graphics memory; from a processor's memory it is slow.`;
}

export interface RecommendOptions {
  /** Families the engine can run; absent: all. */
  readonly families?: readonly CatalogueEntry['family'][];
  readonly fallbackId: string;
}

/** The best model for code that runs well here, completes and chats, and is free for any use. */
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

/** Of those that converse and run on `bytes` of memory, the best. */
export function bestWithin(entries: readonly CatalogueEntry[], bytes: number): CatalogueEntry | undefined {
  const fitting = entries.filter((entry) => entry.roles.includes('chat') && memoryNeededBytes(entry) <= bytes);
  return fitting.reduce<CatalogueEntry | undefined>(
    (best, entry) => (best === undefined || entry.rank > best.rank ? entry : best),
    undefined,
  );
}
