/**
 * Whether a model fits, and how much context it gets: decided here alone, for the engine that loads it (each backend with its own needs and
 * memory), for the list of models and for `hearth inspect`. Bytes in, tokens out: nothing is measured here.
 */

import { execFileSync } from 'node:child_process';
import { freemem, totalmem } from 'node:os';
import { HearthError, showBytes } from '../errors.ts';
import { blocksFor } from '../kv/blocks.ts';

/** What holds weights, keys and values. */
export interface MemoryPool {
  /** `card`: a graphics card's own; `shared`: what a GPU may take of the machine's; `host`: the machine's, for the processor. */
  readonly kind: 'card' | 'shared' | 'host';
  /** As the user knows it. */
  readonly name: string;
  readonly totalBytes: number;
  /** What could be taken now without driving anything else out. */
  readonly availableBytes: number;
}

export interface ModelNeeds {
  readonly weightBytes: number;
  /** To compute in, for passes of the longest chunk. */
  readonly scratchBytes: number;
  /** Keys and values of one sequence of so many tokens. */
  readonly cacheBytes: (tokens: number) => number;
  /** What the model was trained for; less where the device binds no buffer as long. */
  readonly longestTokens: number;
}

export interface MemoryPlan {
  readonly contextTokens: number;
  /** For keys and values of all sequences together. */
  readonly cacheBudgetBytes: number;
  /** It has to make room for itself: other programs hold what it needs. */
  readonly isCrowded: boolean;
}

/** The context that a verdict on a machine assumes: enough for a file with related code, or for a conversation. */
export const usualContextTokens = 8192;

/**
 * Taken on the processor beside weights and KV cache of a usual context. ONNX Runtime's arena keeps the memory of its largest passes
 * (docs/proof.md, "Memory of the engine over an hour of requests").
 */
export const processorScratchBytes = { ggml: 400e6, onnx: 700e6 } as const;

/** Tokens of a block of the processor's KV cache: columns are allocated in such steps. */
export const processorBlockTokens = 64;

/** Tokens that the processor's KV cache allocates for a sequence of so many. */
export const allocatedTokens = (tokens: number): number =>
  processorBlockTokens * blocksFor(tokens, { blockTokens: processorBlockTokens, contiguous: true });

/** Of the machine's memory: the rest is the system's, the editor's and a browser's. */
const usableShare = { shared: 1, host: 0.75 };
/** Of what is available of it; the rest is for what opens meanwhile. */
const availableShare = 0.9;
/** Of a card: the desktop's and the driver's, whatever they hold already. */
const cardReserve = { share: 0.05, leastBytes: 512e6 };
/** Of what is left beside weights and buffers: more than one context has room within this. */
const shareOfMoreContexts = 0.5;
/** Less holds no file with a question about it. */
export const leastContextTokens = 4096;
/** Round numbers, so that the same machine gives the same context on a slightly different day. */
const stepTokens = 1024;

/** Nothing was loaded. */
export class DoesNotFit extends HearthError {
  /** What weights, context and buffers may take together. */
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

/** What weights, cache and buffers may take together when nothing else runs. */
export const mostUsableBytes = ({ kind, totalBytes }: MemoryPool): number =>
  kind === 'card' ? Math.max(0, totalBytes - reserveBytes(totalBytes)) : totalBytes * usableShare[kind];

/** The same now. */
function usableBytes(pool: MemoryPool): number {
  const { kind, totalBytes, availableBytes } = pool;
  if (kind === 'card') return Math.max(0, availableBytes - reserveBytes(totalBytes));
  return Math.min(availableBytes * availableShare, mostUsableBytes(pool));
}

const reserveBytes = (totalBytes: number): number => Math.max(cardReserve.leastBytes, cardReserve.share * totalBytes);

/**
 * The context that was asked for, or as much of the model's as memory holds. Memory of a GPU is taken at the load, so what is not available
 * is refused. The processor's cache grows with what is said, and the system makes room by and by: only what is beyond the machine is refused,
 * or, beside models of other windows (`besideOthers`), what is not available.
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

// What memory this machine has, and what a model could take of it now.

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
