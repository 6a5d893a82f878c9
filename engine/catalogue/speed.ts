/**
 * How fast a device would run a model, before any download. Decode is bound by the bandwidth of the memory with the
 * weights, prefill by arithmetic. Both are estimates from published bandwidths; the model list shows them as such.
 */
import type { CatalogueEntry } from './catalogue.ts';

/** What computes: a graphics card, a GPU that shares the processor's memory, or the processor. */
export interface Device {
  readonly kind: 'card' | 'shared' | 'processor';
  /** As the system or the driver names it; a processor has none. */
  readonly name: string;
  readonly cores: number;
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

/** Dispatches, sampling and the scheduler, whatever the model's size: by token of decode and of prefill. */
const overheadSeconds = { decode: 1e-3, prefill: 5e-5 };

/** Of one core; two channels of DDR4 reach about 25 GB/s in practice. */
const bytesPerSecondPerCore = 8e9;
const bytesPerSecondOfMemory = 25e9;

export function speedOf(
  { bytesPerToken, activeParameters }: Pick<CatalogueEntry, 'bytesPerToken' | 'activeParameters'>,
  { kind, name, cores }: Device,
): Speed {
  const isProcessor = kind === 'processor';
  const bytesPerSecond = isProcessor
    ? Math.min(cores * bytesPerSecondPerCore, bytesPerSecondOfMemory)
    : bandwidthOf(kind, name) * bandwidthShare;
  const operations = isProcessor ? cores * operationsPerCore : bandwidthOf(kind, name) * operationsPerByte[kind];
  return {
    decode: 1 / (bytesPerToken / bytesPerSecond + overheadSeconds.decode),
    prefill: 1 / (activeParameters / operations + overheadSeconds.prefill),
  };
}

/** Bytes a second. An unknown device gets what the slowest of its kind that are still sold have. */
export function bandwidthOf(kind: 'card' | 'shared', name: string): number {
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
