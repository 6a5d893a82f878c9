/**
 * How fast a device would run a model, before any download. Decode is bound by the bandwidth of the memory with the
 * weights, prefill by arithmetic. Both are estimates from published bandwidths; the model list shows them as such.
 */
import { areSoonerComputed } from './experts.ts';

/** What a model's speed follows from. */
export interface SpeedSizes {
  /** Weight bytes read to decode one token. */
  readonly bytesPerToken: number;
  readonly activeParameters: number;
  /** Routed experts that a processor can compute beside a card with all else. */
  readonly experts?: { readonly bytes: number; readonly bytesPerToken: number; readonly layers: number } | undefined;
}

/** What computes: a graphics card, a GPU that shares the processor's memory, the processor, or card and processor some parts each. */
export interface Device {
  readonly kind: 'card' | 'shared' | 'processor' | 'split';
  /** As the system or the driver names it; a processor has none. */
  readonly name: string;
  readonly cores: number;
  /** Share of the layers on the card, if the processor computes the others. */
  readonly cardShare?: number;
  /** Bytes that the processor reads of those layers for one of the file's: ONNX Runtime packs them wider. Default: 1. */
  readonly packing?: number;
  /** So many layers' experts are the processor's, and all else the card's; a prompt's are sent to the card. */
  readonly expertsOutside?: number;
}

export interface Speed {
  /** Tokens a second of one sequence. */
  readonly decode: number;
  /** Prompt tokens a second. */
  readonly prefill: number;
}

/** Kernels reach this share of the published bandwidth (docs/kernels.md). */
const bandwidthShare = 0.6;
/** Multiply-adds per byte of bandwidth that prefill reaches: GPUs with matrix units on cards, without on shared memory. */
const operationsPerByte = { card: 15, shared: 6 };
/** Of 8-bit products, by one core with 256-bit vectors. */
const operationsPerCore = 5e10;
/** The same with experts that lie as in the file, for a few tokens each (docs/proof.md). */
const operationsPerCoreAsStored = 1.5e10;

/** Dispatches, sampling and the scheduler, whatever the model's size: by token of decode and of prefill. */
const overheadSeconds = { decode: 1e-3, prefill: 5e-5 };
/** A token's states from the processor to the card, or its activations and back: messages between threads and a submission. */
const crossingSeconds = 1e-3;

/** Of one core; two channels of DDR4 reach about 25 GB/s in practice. */
const bytesPerSecondPerCore = 8e9;
const bytesPerSecondOfMemory = 25e9;

/** A question with code around it, of which nothing is cached, and its answer. */
const usualTokens = { prompt: 1200, answer: 300 };

/** The one that answers a usual question first; undefined: there is none. This alone decides between placements of a model. */
export function fastestOf<Place extends Device>(sizes: SpeedSizes, places: readonly Place[]): Place | undefined {
  const seconds = (place: Place): number => {
    const { prefill, decode } = speedOf(sizes, place);
    return usualTokens.prompt / prefill + usualTokens.answer / decode;
  };
  return places.toSorted((a, b) => seconds(a) - seconds(b))[0];
}

export function speedOf(entry: SpeedSizes, device: Device): Speed {
  const { bytesPerToken, activeParameters, experts } = entry;
  const { expertsOutside = 0, cardShare = 0, cores } = device;
  const outside = experts ? expertsOutside / experts.layers : 0;
  const areSent =
    experts && !areSoonerComputed((tokensAtOnce * experts.bytesPerToken) / experts.bytes, cores / threadsPerCore);
  const parts = partsOf(entry, device, { outside, areSent: areSent ?? false });
  // Parts are computed one after the other, so times add up.
  const decode = parts.reduce((sum, part) => sum + (bytesPerToken * part.share) / part.bytes, 0);
  const prefill = parts.reduce((sum, part) => sum + (activeParameters * part.promptShare) / part.operations, 0);
  const sent = areSent ? sentSeconds(outside * experts.bytes, cores) : 0;
  const crossings = crossingSeconds * (cardShare > 0 ? 1 : expertsOutside);
  return {
    decode: 1 / (decode + overheadSeconds.decode + crossings),
    prefill: 1 / (prefill + sent + overheadSeconds.prefill),
  };
}

/** A prompt token's share of the time in which all experts outside the card are sent. */
const sentSeconds = (bytes: number, cores: number): number =>
  bytes / (Math.min(bytesPerSecondToCard, cores * blockBytesPerSecondPerCore) * tokensAtOnce);

/** To a card: eight lanes of PCIe 4.0 carry 16 GB/s, and the driver copies everything once before. Not measured. */
const bytesPerSecondToCard = 8e9;
/** Blocks that one core lays out as the card reads them, before they are sent (docs/proof.md). */
const blockBytesPerSecondPerCore = 1.1e9;
/** Tokens of a prompt that are computed at once: all experts outside the card are sent for them. */
const tokensAtOnce = 512;
/** Of most machines with a card. */
const threadsPerCore = 2;

/** What computes which share of a token's weights, how much a second, and which share of a prompt's. */
interface Part {
  readonly share: number;
  readonly promptShare: number;
  readonly bytes: number;
  readonly operations: number;
}

interface OutsideExperts {
  /** Share of the layers whose experts the processor computes beside a card. */
  readonly outside: number;
  /** Those of a prompt are the card's. */
  readonly areSent: boolean;
}

function partsOf(
  entry: SpeedSizes,
  { kind, name, cores, cardShare, packing = 1, expertsOutside }: Device,
  { outside, areSent }: OutsideExperts,
): Part[] {
  const gpu = (type: 'card' | 'shared', share = 1, promptShare = share): Part => ({
    share,
    promptShare,
    bytes: bandwidthOf(type, name) * bandwidthShare,
    operations: bandwidthOf(type, name) * operationsPerByte[type],
  });
  const bytes = Math.min(cores * bytesPerSecondPerCore, bytesPerSecondOfMemory);
  const processor = { share: 1, promptShare: 1, bytes, operations: cores * operationsPerCore };
  if (kind === 'processor') return [processor];
  if (expertsOutside !== undefined) {
    const share = (outside * (entry.experts?.bytesPerToken ?? 0)) / entry.bytesPerToken;
    const promptShare = areSent ? 0 : share;
    const experts = { share, promptShare, bytes, operations: cores * operationsPerCoreAsStored };
    return [experts, gpu('card', 1 - share, 1 - promptShare)];
  }
  if (cardShare === undefined) return [gpu(kind === 'shared' ? 'shared' : 'card')];
  const share = 1 - cardShare;
  return [{ ...processor, bytes: bytes / packing, share, promptShare: share }, gpu('card', cardShare)];
}

/** Bytes a second. An unknown device gets what the slowest of its kind that are still sold have. */
function bandwidthOf(kind: 'card' | 'shared', name: string): number {
  const found = bandwidths.find(([pattern]) => pattern.test(name));
  const isMobile = kind === 'card' && /laptop|mobile|max-q/i.test(name);
  const gigabytes = found?.[1] ?? { card: 224, shared: 50 }[kind];
  return gigabytes * 1e9 * (isMobile ? mobileShare : 1);
}

/** Laptop versions have narrower or slower memory: 4090 576 of 1,008 GB/s, 4060 256 of 272, 3080 448 of 760. */
const mobileShare = 0.6;

/**
 * GB/s, from the manufacturers' data sheets. The first pattern that matches counts, so that "Max" stands before the plain chip.
 * Where several versions share a name the slowest counts.
 */
const bandwidths: readonly (readonly [RegExp, number])[] = [
  // Data centre
  [/\bB200\b/, 8000],
  [/\bH200\b/, 4800],
  [/\bH100\b/, 2000],
  [/\bA100\b/, 1555],
  [/\bMI3\d\dX?\b/, 5300],
  [/\bL40S?\b/, 864],
  [/\bL4\b/, 300],
  [/\bA10\b/, 600],
  [/\bT4\b/, 320],
  [/RTX 6000 Ada/, 960],
  [/RTX A6000|RTX A5000/, 768],
  [/RTX A4000/, 448],
  // GeForce
  [/RTX 5090/, 1792],
  [/RTX 5080/, 960],
  [/RTX 5070 Ti/, 896],
  [/RTX 5070/, 672],
  [/RTX 5060/, 448],
  [/RTX 5050/, 320],
  [/RTX 4090/, 1008],
  [/RTX 4080/, 717],
  [/RTX 4070 Ti SUPER/i, 672],
  [/RTX 4070/, 504],
  [/RTX 4060 Ti/, 288],
  [/RTX 4060/, 272],
  [/RTX 4050/, 192],
  [/RTX 3090/, 936],
  [/RTX 3080/, 760],
  [/RTX 3070/, 448],
  [/RTX 3060 Ti/, 448],
  [/RTX 3060/, 360],
  [/RTX 3050/, 168],
  [/RTX 2080 Ti/, 616],
  [/RTX 20[78]0/, 448],
  [/RTX 2060/, 336],
  [/GTX 16[56]0/, 128],
  [/GTX 1080 Ti/, 484],
  [/GTX 10[78]0/, 256],
  // Radeon
  [/RX 9070/, 640],
  [/RX 9060/, 320],
  [/RX 7900 XTX/, 960],
  [/RX 7900 XT/, 800],
  [/RX 7900/, 576],
  [/RX 7800/, 624],
  [/RX 7700/, 432],
  [/RX 7600/, 288],
  [/RX 6[89][05]0/, 512],
  [/RX 67[05]0/, 320],
  [/RX 66[05]0/, 224],
  // Arc
  [/Arc.* A7[57]0/, 512],
  [/Arc.* A[35]80/, 186],
  [/Arc.* B5[78]0/, 380],
  // Shared memory
  [/M\d Ultra/, 800],
  [/M4 Max/, 410],
  [/M3 Max/, 300],
  [/M\d Max/, 400],
  [/M4 Pro/, 273],
  [/M3 Pro/, 150],
  [/M\d Pro/, 200],
  [/Apple M1\b/, 68],
  [/Apple M[23]\b/, 100],
  [/Apple M[4-9]\b/, 120],
  [/8060S|8050S|Strix Halo/, 256],
  [/\b8[89]0M\b/, 120],
  [/\b7[468]0M\b/, 80],
  [/Arc.* 1[34]0V|Lunar Lake/, 136],
  [/GB10|DGX Spark/, 273],
  [/Orin/, 200],
];
