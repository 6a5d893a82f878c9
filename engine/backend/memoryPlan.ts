/**
 * Decides whether a model fits and how much context it gets: for the engine that loads it (each backend with its own
 * needs and memory), for the list of models and for `hearth inspect`. Nothing else decides this. Takes bytes and
 * returns tokens; measures nothing.
 */

import { execFileSync } from 'node:child_process';
import { freemem, totalmem } from 'node:os';
import { HearthError, showBytes } from '../errors.ts';
import { blocksFor } from '../kv/blocks.ts';

/** Memory for weights and KV cache. */
export interface MemoryPool {
  /**
   * `card`: a graphics card's own memory; `shared`: the part of the machine's memory that a GPU may use; `host`: the
   * machine's memory, for the CPU.
   */
  readonly kind: 'card' | 'shared' | 'host';
  /** Name shown to the user. */
  readonly name: string;
  readonly totalBytes: number;
  /** Memory that could be allocated now without displacing other programs. */
  readonly availableBytes: number;
}

export interface ModelNeeds {
  readonly weightBytes: number;
  /** Scratch memory of a pass with the longest chunk. */
  readonly scratchBytes: number;
  /** KV-cache bytes of one sequence of `tokens` tokens. */
  readonly cacheBytes: (tokens: number) => number;
  /** The trained context, or less if the device can't bind a buffer of that size. */
  readonly longestTokens: number;
}

export interface MemoryPlan {
  readonly contextTokens: number;
  /** KV-cache budget of all sequences together. */
  readonly cacheBudgetBytes: number;
  /** Other programs use memory that the model needs. */
  readonly isCrowded: boolean;
}

/** The context that a verdict on a machine assumes: enough for a file with related code, or for a conversation. */
export const usualContextTokens = 8192;

/**
 * Memory used on the CPU besides weights and the KV cache of a usual context. ONNX Runtime's arena keeps the memory of
 * its largest passes (docs/proof.md, "Memory of the engine over an hour of requests").
 */
export const processorScratchBytes = { ggml: 400e6, onnx: 700e6 } as const;

/** Tokens of a block of the CPU's KV cache: columns are allocated in these steps. */
export const processorBlockTokens = 64;

/** Tokens that the CPU's KV cache allocates for a sequence of `tokens` tokens. */
export const allocatedTokens = (tokens: number): number =>
  processorBlockTokens * blocksFor(tokens, { blockTokens: processorBlockTokens, contiguous: true });

/** Usable share of the machine's memory; the rest is for the system, the editor and a browser. */
const usableShare = { shared: 1, host: 0.75 };
/** Usable share of the memory that is available now; the rest is for programs that start later. */
const availableShare = 0.9;
/** Reserve on a card for the desktop and the driver, in addition to what they already use. */
const cardReserve = { share: 0.05, leastBytes: 512e6 };
/** Share of the memory left beside weights and buffers for further contexts. */
const shareOfMoreContexts = 0.5;
/** A shorter context has no room for a file and a question about it. */
export const leastContextTokens = 4096;
/** Contexts are multiples of this, so that small changes in free memory give the same context. */
const stepTokens = 1024;

/** The model doesn't fit; nothing was loaded. */
export class DoesNotFit extends HearthError {
  /** Bytes that weights, KV cache and buffers may take together. */
  readonly usableBytes: number;
  /** Longest context that fits beside the weights; 0: none. */
  readonly contextTokens: number;

  constructor(message: string, usableBytes: number, contextTokens: number) {
    super('out-of-memory', message);
    this.name = 'DoesNotFit';
    this.usableBytes = usableBytes;
    this.contextTokens = contextTokens;
  }
}

/** Bytes that weights, KV cache and buffers may take together if nothing else runs. */
export const mostUsableBytes = ({ kind, totalBytes }: MemoryPool): number =>
  kind === 'card' ? Math.max(0, totalBytes - reserveBytes(totalBytes)) : totalBytes * usableShare[kind];

/** Bytes that they may take together now. */
function usableBytes(pool: MemoryPool): number {
  const { kind, totalBytes, availableBytes } = pool;
  if (kind === 'card') return Math.max(0, availableBytes - reserveBytes(totalBytes));
  return Math.min(availableBytes * availableShare, mostUsableBytes(pool));
}

const reserveBytes = (totalBytes: number): number => Math.max(cardReserve.leastBytes, cardReserve.share * totalBytes);

/**
 * The requested context, or as much of the model's context as fits. GPU memory is allocated at load, so memory that is
 * not available is refused. The CPU's KV cache grows with the conversation, and the system makes room gradually: only
 * what exceeds the machine is refused or, beside models of other windows (`besideOthers`), what is not available.
 * @throws DoesNotFit
 */
export function planMemory(needs: ModelNeeds, pool: MemoryPool, asked?: number, besideOthers = false): MemoryPlan {
  const wanted = asked ?? needs.longestTokens;
  const leastTokens = asked ?? Math.min(leastContextTokens, needs.longestTokens);
  const contextTokens = longestFitting(needs, usableBytes(pool), wanted);
  if (contextTokens >= leastTokens) return planOf(needs, usableBytes(pool), contextTokens, false);
  const mayCrowd = pool.kind === 'host' && !besideOthers;
  const possibleTokens = mayCrowd ? longestFitting(needs, mostUsableBytes(pool), wanted) : contextTokens;
  if (possibleTokens >= leastTokens) return planOf(needs, usableBytes(pool), leastTokens, true);
  throw refusal(needs, pool, { wanted: asked ?? leastTokens, possibleTokens, mayCrowd });
}

function planOf(needs: ModelNeeds, usable: number, contextTokens: number, isCrowded: boolean): MemoryPlan {
  const left = usable - needs.weightBytes - needs.scratchBytes;
  const one = needs.cacheBytes(contextTokens);
  return { contextTokens, cacheBudgetBytes: Math.max(one, left * shareOfMoreContexts), isCrowded };
}

/** `wanted`, or the longest multiple of 1,024 tokens that fits; 0: none. */
function longestFitting({ weightBytes, scratchBytes, cacheBytes }: ModelNeeds, bytes: number, wanted: number): number {
  const fits = (tokens: number): boolean => weightBytes + scratchBytes + cacheBytes(tokens) <= bytes;
  if (fits(wanted)) return wanted;
  let [fitting, beyond] = [0, Math.ceil(wanted / stepTokens)];
  while (beyond - fitting > 1) {
    const middle = Math.floor((fitting + beyond) / 2);
    if (fits(middle * stepTokens)) fitting = middle;
    else beyond = middle;
  }
  return fitting * stepTokens;
}

function refusal(
  needs: ModelNeeds,
  pool: MemoryPool,
  {
    wanted,
    possibleTokens,
    mayCrowd,
  }: { readonly wanted: number; readonly possibleTokens: number; readonly mayCrowd: boolean },
): DoesNotFit {
  const usable = mayCrowd ? mostUsableBytes(pool) : usableBytes(pool);
  const parts = [
    `${showBytes(needs.weightBytes)} of weights`,
    `${showBytes(needs.cacheBytes(wanted))} for a context of ${wanted} tokens`,
    `${showBytes(needs.scratchBytes)} to compute in`,
  ];
  const total = showBytes(needs.weightBytes + needs.scratchBytes + needs.cacheBytes(wanted));
  const memory = pool.kind === 'host' ? 'memory' : 'GPU memory';
  const room = `a model may take ${showBytes(usable)} of ${pool.name}${mayCrowd ? '' : ' now'}`;
  const remedy =
    possibleTokens > 0 ? `A context of ${possibleTokens} tokens fits.` : 'No context fits beside the weights.';
  return new DoesNotFit(
    `The model needs ${total} of ${memory} (${parts.join(', ')}); ${room}. Nothing was loaded. ${remedy}`,
    usable,
    possibleTokens,
  );
}

// Measures the memory of this machine, and how much a model could use now.

/** Values from the operating system; tests supply their own. */
export interface HostSystem {
  readonly platform: NodeJS.Platform;
  readonly totalBytes: number;
  /** `os.freemem()`: on Linux MemAvailable, on Windows the available memory, on macOS only entirely unused pages. */
  readonly freeBytes: number;
  /** Limit of the container (cgroups); 0, or more than the machine has: none. */
  readonly limitBytes: number;
  readonly residentBytes: number;
  /** Output of `vm_stat`; empty if it cannot be run. */
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
 * macOS keeps nearly all memory in use. It reclaims the pages that vm_stat counts as free, speculative, purgeable and
 * inactive before it swaps. If vm_stat cannot be run, half of the memory is assumed.
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
