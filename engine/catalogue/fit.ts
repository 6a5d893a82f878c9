/** Estimates which models this machine can run, before any download. */
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { isFasterQuantisation } from '../backend/ggml/choice.ts';
import {
  allocatedTokens,
  DoesNotFit,
  hostMemory,
  type MemoryPool,
  type ModelNeeds,
  mostUsableBytes,
  planMemory,
  processorScratchBytes,
  usualContextTokens,
} from '../backend/memoryPlan.ts';
import { type Device, fastestOf, type Speed, speedOf } from '../backend/speed.ts';
import { graphicsCards, memoryOf } from '../backend/webgpu/device/graphicsCards.ts';
import { HearthError, showBytes } from '../errors.ts';
import type { CatalogueEntry, Downloadable } from './catalogue.ts';

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

/** Like `detectHardware`, with the GPU that runs models, which is detected once per process. */
export async function detectMachine(): Promise<Hardware> {
  detectedGpu ??= detectGpu();
  return detectHardware(await detectedGpu);
}

/** The GPU that WebGPU opens, or, if none can be opened now, the largest graphics card that the system reports. */
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

/** Assumed memory of a card if no interface reports it. Few cards have less. */
const unknownCardBytes = 4e9;
/** Memory on a GPU for runtime, activations and buffers, in addition to weights and KV cache. */
const overheadBytes = 400e6;
/** Below these speeds, chat is slower than people read, or the first token takes too long. Tokens a second. */
const goodChat = { decode: 8, prefill: 60 };
/** Prompt tokens that a key changes, and tokens of a suggestion. */
const keystroke = { promptTokens: 128, tokens: 20 };
/** After this time, the user has pressed the next key. */
const goodKeystrokeSeconds = 1.5;

/** Sizes that decide whether a model fits and how fast it is. */
type Sizes = Pick<
  CatalogueEntry,
  'downloadBytes' | 'activeParameters' | 'bytesPerToken' | 'cacheBytesPerToken' | 'contextTokens'
> &
  Partial<Pick<CatalogueEntry, 'experts'>> &
  Computed;

/**
 * The fields that decide which backend runs the model on the CPU. If unknown: ONNX Runtime, with weights of the file's
 * size.
 */
type Computed = Partial<Pick<CatalogueEntry, 'family' | 'quantisation'>>;

/** KV cache grows by `cacheBytesPerToken` per token; sliding-window layers are not counted. */
const needsOnGpu = (entry: Sizes): ModelNeeds => ({
  weightBytes: entry.downloadBytes,
  scratchBytes: overheadBytes,
  cacheBytes: (tokens) => tokens * entry.cacheBytesPerToken,
  longestTokens: entry.contextTokens,
});

/** The same on the CPU, as measured after an hour of use, with weights in its backend's layout. */
const onProcessor = (needs: Omit<ModelNeeds, 'scratchBytes'>, computed: Computed): ModelNeeds => ({
  ...needs,
  weightBytes: processorBytes(needs.weightBytes, computed),
  scratchBytes: scratchOnProcessor(computed),
  cacheBytes: (tokens) => needs.cacheBytes(allocatedTokens(tokens)),
});

const scratchOnProcessor = (computed: Computed): number => processorScratchBytes[isPacked(computed) ? 'onnx' : 'ggml'];

const needsOn = (entry: Sizes, kind: Device['kind']): ModelNeeds =>
  kind === 'processor' ? onProcessor(needsOnGpu(entry), entry) : needsOnGpu(entry);

const usualTokens = (entry: Sizes): number => Math.min(usualContextTokens, entry.contextTokens);

/** Memory for the weights, the KV cache of a usual context and the runtime on this kind of device; a GPU takes less. */
export function memoryNeededBytes(entry: Sizes, kind: Device['kind']): number {
  const { weightBytes, scratchBytes, cacheBytes } = needsOn(entry, kind);
  return weightBytes + cacheBytes(usualTokens(entry)) + scratchBytes;
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
function fits(entry: Sizes, needs: ModelNeeds, pool: MemoryPool): boolean {
  const usual = usualTokens(entry);
  return contextOn(needs, pool, usual) === usual;
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
export function longestContext(
  needs: Omit<ModelNeeds, 'scratchBytes'>,
  computed: Computed,
  hardware: Hardware,
): number {
  const { host, card } = poolsOf(hardware);
  const onGpu = { ...needs, scratchBytes: overheadBytes };
  const onHost = hardware.gpu?.unified ? onGpu : onProcessor(needs, computed);
  return Math.max(contextOn(onGpu, card), contextOn(onHost, host));
}

/** Memory available for weights and KV cache, on the graphics card or the host, whichever is larger. */
export function memoryForModelBytes(computed: Computed, hardware: Hardware): number {
  const { host, card } = poolsOf(hardware);
  const onHost = mostUsableBytes(host) - (hardware.gpu?.unified ? overheadBytes : scratchOnProcessor(computed));
  return Math.max(0, (card ? mostUsableBytes(card) : 0) - overheadBytes, onHost);
}

/**
 * Bytes in ONNX Runtime for each byte of the file, counted on published shapes (placement.test.ts). Unknown types count
 * as Q4_K.
 */
const packedShares: readonly (readonly [RegExp, number])[] = [
  [/MXFP4/, 2],
  [/Q[45]_1/, 1.25],
  [/Q8_0/, 1.07],
  [/(?:)/, 1.42],
];
const packedShare = ({ quantisation = '' }: Computed): number =>
  packedShares.find(([pattern]) => pattern.test(quantisation))?.[1] ?? 1;

/** Families that ggml leaves to ONNX Runtime (backend/ggml/index.ts). */
const packedFamilies: ReadonlySet<CatalogueEntry['family']> = new Set(['deepseek-v3', 'qwen3-next', 'qwen3.5']);
/** Whether ONNX Runtime runs the model on the CPU. */
const isPacked = ({ family, quantisation }: Computed): boolean =>
  quantisation === undefined ||
  (family !== undefined && packedFamilies.has(family)) ||
  !isFasterQuantisation(quantisation);

/** Bytes of the weights on the CPU: those of the file, unless ONNX Runtime runs the model. */
const processorBytes = (fileBytes: number, computed: Computed): number =>
  fileBytes * (computed.quantisation !== undefined && isPacked(computed) ? packedShare(computed) : 1);

/** A smaller share of layers on the card is not worth the transfers. */
const leastCardShare = 0.1;

type Split = Pick<Device, 'cardShare' | 'packing' | 'expertsOutside'>;

/**
 * Whole layers on the card beside a usual context, and the others in the machine's memory in the CPU backend's layout.
 */
function layersOnCard(entry: Sizes, host: MemoryPool, card: MemoryPool): Split | undefined {
  const cacheBytes = usualTokens(entry) * entry.cacheBytesPerToken;
  const cardShare = (mostUsableBytes(card) - overheadBytes) / (entry.downloadBytes + cacheBytes);
  const left = (1 - cardShare) * entry.downloadBytes;
  const room = mostUsableBytes(host) - scratchOnProcessor(entry);
  const packing = isPacked(entry) ? packedShare(entry) : 1;
  if (cardShare < leastCardShare || left * packing + (1 - cardShare) * cacheBytes > room) return undefined;
  return { cardShare, packing };
}

/**
 * Number of layers whose experts don't fit on the card beside the rest. Undefined: the rest doesn't fit on the card, or
 * these experts don't fit in the machine's memory.
 */
function expertsOutsideOf(entry: Sizes, host: MemoryPool, card: MemoryPool): number | undefined {
  const { experts, bytesPerToken, cacheBytesPerToken } = entry;
  if (!experts) return undefined;
  const ofLayer = experts.bytes / experts.layers;
  // Embeddings are read from the file. Experts that a prompt needs are sent to buffers as large as one layer's.
  const others = bytesPerToken - experts.bytesPerToken + usualTokens(entry) * cacheBytesPerToken + ofLayer;
  const room = mostUsableBytes(card) - overheadBytes - others;
  if (room < 0) return undefined;
  const outside = Math.max(0, experts.layers - Math.floor(room / ofLayer));
  return outside * ofLayer <= mostUsableBytes(host) - processorScratchBytes.ggml ? outside : undefined;
}

/**
 * Where a model would run: the fastest device with room for a usual context, or card and CPU together. Undefined:
 * nowhere.
 */
export function placeOf(entry: Sizes, hardware: Hardware): Device | undefined {
  const { gpu, cores } = hardware;
  const { host, card } = poolsOf(hardware);
  if (gpu && card && fits(entry, needsOnGpu(entry), card)) return { kind: 'card', name: gpu.name, cores };
  if (gpu && card) {
    const outside = expertsOutsideOf(entry, host, card);
    if (outside === 0) return { kind: 'split', name: gpu.name, cores, cardShare: 1 };
    const splits = [layersOnCard(entry, host, card), outside && { expertsOutside: outside }];
    const place = fastestOf(
      entry,
      splits.flatMap((split) => (split ? [{ kind: 'split' as const, name: gpu.name, cores, ...split }] : [])),
    );
    if (place) return place;
  }
  const kind = gpu?.unified ? 'shared' : 'processor';
  if (!fits(entry, needsOn(entry, kind), host)) return undefined;
  return { kind, name: gpu?.unified ? gpu.name : '', cores };
}

/** The share of a model's bytes in the machine's memory instead of the card's. */
export function hostShare({ experts, downloadBytes }: Sizes, { kind, cardShare, expertsOutside }: Device): number {
  if (kind === 'card') return 0;
  if (experts && expertsOutside !== undefined) {
    return ((expertsOutside / experts.layers) * experts.bytes) / downloadBytes;
  }
  return 1 - (cardShare ?? 0);
}

export const runsWellInChat = ({ decode, prefill }: Speed): boolean =>
  decode >= goodChat.decode && prefill >= goodChat.prefill;

export const completesInTime = ({ decode, prefill }: Speed): boolean =>
  keystroke.promptTokens / prefill + keystroke.tokens / decode <= goodKeystrokeSeconds;

/** Speed and memory come first in the text, because VS Code truncates long lines of its list. */
export function judge(entry: Sizes, hardware: Hardware): Fit {
  const place = placeOf(entry, hardware);
  const neededBytes = memoryNeededBytes(entry, place?.kind ?? (hardware.gpu ? 'card' : 'processor'));
  const needs = `${showBytes(neededBytes)} of memory`;
  if (place === undefined) {
    const has = `this machine has ${showBytes(hardware.totalMemoryBytes)}`;
    return { verdict: 'no', reason: `It needs about ${needs}, but ${has}, part of which other programs use.` };
  }
  const speed = speedOf(entry, place);
  const verdict = runsWellInChat(speed) ? 'good' : 'slow';
  const rates = `about ${shownSpeed(speed.decode)} tokens/s, prompts ${shownSpeed(speed.prefill)} tokens/s`;
  const closing = neededBytes > hardware.freeMemoryBytes && place.kind !== 'card' ? ' Close other programs first.' : '';
  return { verdict, reason: `${needs}, ${rates}: ${whereOf(place)}.${place.kind === 'split' ? '' : closing}` };
}

function whereOf({ kind, name, cardShare, expertsOutside }: Device): string {
  if (expertsOutside !== undefined) return `on ${name}, but the experts of ${expertsOutside} layers on the CPU`;
  if (cardShare === 1) return `all layers on ${name}`;
  if (cardShare !== undefined)
    return `${Math.round(100 * cardShare)} % of its layers on ${name}, the others on the CPU`;
  if (kind === 'card') return `fits in the memory of ${name}`;
  return kind === 'shared' ? `on ${name}, which shares this machine's memory` : 'on this CPU';
}

const shownSpeed = (speed: number): string => (speed < 2 ? speed.toFixed(1) : Math.round(speed).toString());

/** Hardware recommendation that doesn't depend on this machine. */
export function hardwareNeeds(entry: Sizes): string {
  const needs = (kind: Device['kind']) => `About ${showBytes(memoryNeededBytes(entry, kind))}`;
  const onFourCores = speedOf(entry, { kind: 'processor', name: '', cores: 4 });
  if (runsWellInChat(onFourCores)) return `${needs('processor')} of memory; a CPU is enough.`;
  return `${needs('card')} of GPU memory; slow on a CPU.`;
}

/**
 * About how many bytes the ONNX Runtime backend writes at the first load: a scale of four bytes for each 32 values
 * makes 4-bit weights a quarter larger (SmolLM2 Q4_1: 98 MB become 122 MB), and unquantised ones become f32. ggml and a
 * GPU use the file as it is.
 */
export function packedBytes(entry: Downloadable & Computed, { gpu }: Hardware): number {
  const { files, downloadBytes } = entry;
  if (gpu || !isPacked(entry)) return 0;
  return Math.ceil(downloadBytes * (files.every(({ name }) => name.endsWith('.gguf')) ? 1.3 : 2));
}
