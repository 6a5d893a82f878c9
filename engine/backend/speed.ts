/**
 * Estimates how fast a device would run a model, before any download. Decode is bound by the bandwidth of the memory
 * with the weights, prefill by arithmetic. Both are estimates from published bandwidths; the model list shows them as
 * such.
 */
import { areSoonerComputed } from './experts.ts';

/** Sizes of a model that determine its speed. */
export interface SpeedSizes {
  /** Weight bytes read to decode one token. */
  readonly bytesPerToken: number;
  readonly activeParameters: number;
  /** Routed experts that a CPU can compute while a card computes the rest. */
  readonly experts?: { readonly bytes: number; readonly bytesPerToken: number; readonly layers: number } | undefined;
}

/** The device that computes: a graphics card, a GPU that shares the CPU's memory, the CPU, or card and CPU together. */
export interface Device {
  readonly kind: 'card' | 'shared' | 'processor' | 'split';
  /** Name from the system or the driver; empty for a CPU. */
  readonly name: string;
  readonly cores: number;
  /** Share of the layers on the card, if the CPU computes the others. */
  readonly cardShare?: number;
  /** Bytes that the CPU reads for each byte of those layers in the file: ONNX Runtime stores them wider. Default: 1. */
  readonly packing?: number;
  /**
   * Number of layers whose experts the CPU computes, while the card computes the rest. For prompts, the experts may be
   * sent to the card.
   */
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
/** 8-bit operations a second of one core with 256-bit vectors. */
const operationsPerCore = 5e10;
/** The same for experts stored as in the file, with a few tokens each (docs/proof.md). */
const operationsPerCoreAsStored = 1.5e10;

/** Time of dispatches, sampling and the scheduler for a token of decode and of prefill, whatever the model's size. */
const overheadSeconds = { decode: 1e-3, prefill: 5e-5 };
/**
 * Time to move a token's hidden states from CPU to card, or its activations to the CPU and back: messages between
 * threads and a submission.
 */
const crossingSeconds = 1e-3;

/** Memory bandwidth of one core. Two channels of DDR4 reach about 25 GB/s in practice. */
const bytesPerSecondPerCore = 8e9;
const bytesPerSecondOfMemory = 25e9;

/** A question with code and nothing cached, and its answer. */
const usualTokens = { prompt: 1200, answer: 300 };

/**
 * The place that answers a usual question first; undefined if there is none. Nothing else decides between placements of
 * a model.
 */
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

/** A prompt token's share of the time to send all experts outside the card. */
const sentSeconds = (bytes: number, cores: number): number =>
  bytes / (Math.min(bytesPerSecondToCard, cores * blockBytesPerSecondPerCore) * tokensAtOnce);

/**
 * Bandwidth to a card: eight lanes of PCIe 4.0 carry 16 GB/s, and the driver first copies everything once. Not
 * measured.
 */
const bytesPerSecondToCard = 8e9;
/** Speed at which one core converts blocks to the card's layout before they are sent (docs/proof.md). */
const blockBytesPerSecondPerCore = 1.1e9;
/** Prompt tokens computed at once. All experts outside the card are sent for them. */
const tokensAtOnce = 512;
/** Hardware threads per core of most machines with a card. */
const threadsPerCore = 2;

/** A part of the device: its share of the weights for decode and for prompts, and its bytes and operations a second. */
interface Part {
  readonly share: number;
  readonly promptShare: number;
  readonly bytes: number;
  readonly operations: number;
}

interface OutsideExperts {
  /** Share of the layers whose experts the CPU computes beside a card. */
  readonly outside: number;
  /** For prompts, the card computes them. */
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

/** Memory bandwidth in bytes a second. An unknown device counts like the slowest of its kind still on sale. */
function bandwidthOf(kind: 'card' | 'shared', name: string): number {
  const found = bandwidths.find(([pattern]) => pattern.test(name));
  const isMobile = kind === 'card' && /laptop|mobile|max-q/i.test(name);
  const gigabytes = found?.[1] ?? { card: 224, shared: 50 }[kind];
  return gigabytes * 1e9 * (isMobile ? mobileShare : 1);
}

/** Laptop versions have narrower or slower memory: 4090 576 of 1,008 GB/s, 4060 256 of 272, 3080 448 of 760. */
const mobileShare = 0.6;

/**
 * GB/s, from the manufacturers' data sheets. The first matching pattern counts, so "Max" comes before the plain chip.
 * If several versions share a name, the slowest counts.
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
