/** Estimates which models this machine can run, before any download. */

import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { hostMemory } from '../backend/hostMemory.ts';
import {
  DoesNotFit,
  type MemoryPool,
  type ModelNeeds,
  mostUsableBytes,
  planMemory,
  usualContextTokens,
} from '../backend/memoryPlan.ts';
import { graphicsCards, memoryOf } from '../backend/webgpu/device/graphicsCards.ts';
import { HearthError } from '../errors.ts';
import { showBytes } from '../units.ts';
import type { CatalogueEntry } from './catalogue.ts';
import { type Device, type Speed, speedOf } from './speed.ts';

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

let detectedGpu: Promise<Gpu | undefined> | undefined;

/** Like `detectHardware`, with the GPU that runs models, which is looked for once a process. */
export async function detectMachine(): Promise<Hardware> {
  detectedGpu ??= detectGpu();
  return detectHardware(await detectedGpu);
}

/** The GPU that WebGPU opens, or the largest graphics card that the system reports where none can be opened now. */
async function detectGpu(): Promise<Gpu | undefined> {
  const opened = hasGraphicsDevice() ? await openedGpu() : undefined;
  if (opened) return opened;
  const [card] = await graphicsCards();
  return card && { name: card.name, memoryBytes: card.totalBytes, unified: card.unified };
}

/** Without one, opening a GPU fails with warnings of the Vulkan loader. */
const hasGraphicsDevice = (): boolean =>
  process.platform !== 'linux' || ['/dev/dri', '/dev/nvidia0', '/dev/dxg'].some((path) => existsSync(path));

async function openedGpu(): Promise<Gpu | undefined> {
  try {
    const { Gpu } = await import('../backend/webgpu/device/gpu.ts');
    const gpu = await Gpu.open({ refuseSoftware: true });
    const { capabilities } = gpu;
    gpu.dispose();
    const card = await memoryOf(capabilities);
    const name = capabilities.device || card?.name || capabilities.description;
    return { name, memoryBytes: card?.totalBytes ?? unknownCardBytes, unified: card?.unified ?? false };
  } catch (error) {
    if (error instanceof HearthError) return undefined;
    throw error;
  }
}

export interface Fit {
  readonly verdict: 'good' | 'slow' | 'no';
  /** Shown to the user. */
  readonly reason: string;
}

/** Of a card whose memory no interface tells. Fewer have less. */
const unknownCardBytes = 4e9;
/** Runtime, activations and buffers, in addition to weights and KV cache. */
const overheadBytes = 400e6;
/** A chat below these speeds is read slower than people read, or keeps them waiting for its first word. */
const goodChat = { decode: 8, prefill: 60 };
/** The prompt tokens that a key changes, and the tokens of a suggestion. */
const keystroke = { promptTokens: 128, tokens: 20 };
/** Later than this, the next key is pressed. */
const goodKeystrokeSeconds = 1.5;

/** Sizes that decide whether a model fits and how fast it is. */
export type Sizes = Pick<
  CatalogueEntry,
  'downloadBytes' | 'activeParameters' | 'bytesPerToken' | 'cacheBytesPerToken' | 'contextTokens'
>;

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

/** Where a model would run: the fastest device that holds a usual context. Undefined: nowhere. */
export function placeOf(entry: Sizes, hardware: Hardware): Device | undefined {
  const { gpu, cores } = hardware;
  const { host, card } = poolsOf(hardware);
  if (gpu && card && fits(entry, card)) return { kind: 'card', name: gpu.name, cores };
  if (!fits(entry, host)) return undefined;
  return gpu?.unified ? { kind: 'shared', name: gpu.name, cores } : { kind: 'processor', name: '', cores };
}

const runsWellInChat = ({ decode, prefill }: Speed): boolean =>
  decode >= goodChat.decode && prefill >= goodChat.prefill;

const completesInTime = ({ decode, prefill }: Speed): boolean =>
  keystroke.promptTokens / prefill + keystroke.tokens / decode <= goodKeystrokeSeconds;

export function judge(entry: Sizes, hardware: Hardware): Fit {
  const neededBytes = memoryNeededBytes(entry);
  const needs = `needs about ${showBytes(neededBytes)} of memory`;
  const place = placeOf(entry, hardware);
  if (place === undefined) {
    const has = `this machine has ${showBytes(hardware.totalMemoryBytes)}`;
    return { verdict: 'no', reason: `It ${needs}, but ${has}, part of which other programs use.` };
  }
  const speed = speedOf(entry, place);
  const verdict = runsWellInChat(speed) ? 'good' : 'slow';
  const words = `about ${shownSpeed(speed.decode)} tokens a second, and ${shownSpeed(speed.prefill)} of a prompt`;
  if (place.kind === 'card') return { verdict, reason: `Fits in the memory of ${place.name}: ${needs}; ${words}.` };
  const closing = neededBytes > hardware.freeMemoryBytes ? ' Close other programs first.' : '';
  if (place.kind === 'shared')
    return {
      verdict,
      reason: `Runs on ${place.name}, which shares this machine's memory: ${needs}; ${words}.${closing}`,
    };
  return { verdict, reason: `It ${needs}; this CPU reaches ${words}.${closing}` };
}

const shownSpeed = (speed: number): string => (speed < 2 ? speed.toFixed(1) : Math.round(speed).toString());

/** Hardware recommendation that doesn't depend on this machine. */
export function hardwareNeeds(entry: Sizes): string {
  const needs = showBytes(memoryNeededBytes(entry));
  const onFourCores = speedOf(entry, { kind: 'processor', name: '', cores: 4 });
  if (runsWellInChat(onFourCores)) return `About ${needs} of memory; a CPU is enough.`;
  return `About ${needs} of GPU memory; slow on a CPU.`;
}

export interface RecommendOptions {
  /** Families that the engine can run; default: all. */
  readonly families?: readonly CatalogueEntry['family'][];
  readonly fallbackId: string;
}

/** What a machine should have: a model that answers and perhaps another that completes, or something small and quick. */
export interface Choice {
  readonly chat: CatalogueEntry | undefined;
  /** Undefined: the chat model completes, or nothing that completes in time has room beside it. */
  readonly completion: CatalogueEntry | undefined;
}

/** The highest-ranked models with open licences that run well together. */
export function choosePair(entries: readonly CatalogueEntry[], hardware: Hardware, options: RecommendOptions): Choice {
  const open = entries.filter(({ licence, family }) => licence.open && (options.families?.includes(family) ?? true));
  const well = (entry: CatalogueEntry, machine: Hardware, isGood: (speed: Speed) => boolean): boolean => {
    const place = placeOf(entry, machine);
    return place !== undefined && isGood(speedOf(entry, place));
  };
  const chats = open.filter((entry) => entry.roles.includes('chat') && well(entry, hardware, runsWellInChat));
  // A graphics card must not idle while the processor computes.
  const onCard = chats.filter((entry) => placeOf(entry, hardware)?.kind === 'card');
  const pairs = (onCard.length > 0 ? onCard : chats).map((chat): Choice => {
    if (chat.fillInTheMiddle && well(chat, hardware, completesInTime)) return { chat, completion: undefined };
    const left = without(hardware, chat);
    const small = open.filter((entry) => entry.fillInTheMiddle && entry.parameters <= promptParameters);
    const able = small.filter((entry) => entry.id !== chat.id && well(entry, left, completesInTime));
    return { chat, completion: highestRanked(able) };
  });
  const complete = pairs.filter(({ chat, completion }) => completion !== undefined || chat?.fillInTheMiddle === true);
  const candidates = complete.length > 0 ? complete : pairs;
  const chat = highestRanked(candidates.flatMap((pair) => pair.chat ?? []));
  return (
    candidates.find((pair) => pair.chat === chat) ?? {
      chat: entries.find(({ id }) => id === options.fallbackId),
      completion: undefined,
    }
  );
}

/** Larger models than this are slow to complete with on most graphics cards, and take memory for little. */
const promptParameters = 8e9;

/** The machine with a loaded model. */
function without(hardware: Hardware, entry: CatalogueEntry): Hardware {
  const bytes = memoryNeededBytes(entry);
  const { gpu } = hardware;
  const isOnCard = placeOf(entry, hardware)?.kind === 'card';
  if (isOnCard && gpu?.memoryBytes !== undefined)
    return { ...hardware, gpu: { ...gpu, memoryBytes: gpu.memoryBytes - bytes } };
  return { ...hardware, totalMemoryBytes: hardware.totalMemoryBytes - bytes };
}

/** The model that answers, of the pair. */
export function chooseModel(entries: readonly CatalogueEntry[], hardware: Hardware, options: RecommendOptions) {
  return choosePair(entries, hardware, options).chat;
}

const highestRanked = (entries: readonly CatalogueEntry[]): CatalogueEntry | undefined =>
  entries.reduce<CatalogueEntry | undefined>(
    (best, entry) => (best && best.rank >= entry.rank ? best : entry),
    undefined,
  );

/** The highest-ranked chat model that fits in `bytes` of memory. */
export function bestWithin(entries: readonly CatalogueEntry[], bytes: number): CatalogueEntry | undefined {
  const fitting = entries.filter((entry) => entry.roles.includes('chat') && memoryNeededBytes(entry) <= bytes);
  return highestRanked(fitting);
}
