/**
 * Estimates the time of one decoded token on emulated cards from the compiled kernels' instructions.
 *
 * Assumptions: 0.85 of the memory bandwidth is reached. Memory and arithmetic overlap, so the larger counts in full and the
 * smaller by a quarter. A dispatch costs `dispatchSeconds`. The KV cache is f16. NVIDIA uses Ada's instructions by NAK, AMD uses
 * navi31's by ACO, Apple uses the M1's by AGX; Intel also uses the M1's, because there is no Intel compiler without a card.
 * Ratios carry over to the vendors' own compilers; absolute counts are accurate to about a fifth.
 */
import type { TensorType } from '../../engine/formats/tensor.ts';
import type { GroupedQueryAttentionSpec } from '../../engine/model/spec/spec.ts';
import type { Card } from './cards.ts';
import type { BenchModel } from './models.ts';
import type { PromptFigures } from './promptModel.ts';

export interface Gpu {
  readonly name: string;
  readonly compiledFor: Card['name'];
  /** Absent: it shares the CPU's. */
  readonly memoryGiB: number | undefined;
  readonly cores: number;
  readonly hertz: number;
  readonly bytesPerSecond: number;
  /** Thread instructions that a core issues per cycle: lanes × issue width. */
  readonly lanesPerCore: number;
  /** Multiply-adds of f16 into f32 by a core's matrix units in a cycle; 0: the tiles are plain. */
  readonly matrixMacs: number;
  /** Memory latency. */
  readonly latencySeconds: number;
  readonly dispatchSeconds: number;
}

const lanes = 128;

export const gpus: readonly Gpu[] = [
  // Hopper: mma without wgmma, at 0.62 of its peak (Luo et al. 2024, arXiv:2402.13499).
  gpu('H200', 'Ada', 141, 132, 1.75e9, 4.8e12, 6e-7, 4e-6, 1270),
  // GeForce sums f16 in f32 at half rate: 165 TFLOP/s (NVIDIA's Ada whitepaper, appendix A).
  gpu('RTX 4090', 'Ada', 24, 128, 2.52e9, 1.008e12, 5e-7, 3.5e-6, 256),
  gpu('RX 7900 XTX', 'navi31', 24, 48, 2.5e9, 9.6e11, 6e-7, 5e-6, 512),
  gpu('M2 Max', 'M1', undefined, 38, 1.398e9, 4e11, 7e-7, 6e-6),
  gpu('Arc A770', 'M1', 16, 32, 2.1e9, 5.6e11, 7e-7, 8e-6),
  gpu('Meteor Lake', 'M1', undefined, 8, 2.25e9, 1e11, 6e-7, 8e-6),
];

function gpu(
  name: string,
  compiledFor: Card['name'],
  memoryGiB: number | undefined,
  cores: number,
  hertz: number,
  bytesPerSecond: number,
  latencySeconds: number,
  dispatchSeconds: number,
  matrixMacs = 0,
): Gpu {
  const lanesPerCore = lanes;
  return {
    name,
    compiledFor,
    memoryGiB,
    cores,
    hertz,
    bytesPerSecond,
    lanesPerCore,
    matrixMacs,
    latencySeconds,
    dispatchSeconds,
  };
}

/** Kernel figures that the model needs. Stored with each measurement, so that the same formula applies to old and new kernels. */
export interface KernelFigures {
  /** Instructions per weight, by card and kind (`matrixVector Q4_K`). */
  readonly perWeight: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Weights that 64 threads process per step of a row. Lanes idle if the row is not a multiple. */
  readonly stepColumns: number;
  readonly attention: {
    readonly keys: number;
    readonly mostSplits: number;
    /** Bank passes of one access to a key in workgroup memory. */
    readonly wavefronts: number;
    /** Sequential memory latencies per block. */
    readonly latencies: number;
    /** Cycles of serial steps by one thread per row. */
    readonly serialCycles: number;
  };
  /** Dispatches per decoded token, by model. */
  readonly dispatches: Readonly<Record<string, number>>;
  /** Absent in measurements of decoding alone. */
  readonly prompt?: PromptFigures | undefined;
}

const bytesPerWeight: Partial<Readonly<Record<TensorType, number>>> = {
  F32: 4,
  BF16: 2,
  F8_E4M3: 1,
  Q8_0: 34 / 32,
  Q6_K: 210 / 256,
  Q4_K: 144 / 256,
  MXFP4: 17 / 32,
};

export const bandwidthShare = 0.85;
export const bytesOf = (type: string): number => bytesPerWeight[type as TensorType] ?? 4;
const samplingSeconds = 2.5e-5;

/** Seconds for a product with this many weights in rows of `columns`. */
function productSeconds(device: Gpu, figures: KernelFigures, kind: string, weights: number, columns: number): number {
  const type = kind.split(' ')[1] ?? '';
  const memory = (weights * bytesOf(type)) / (bandwidthShare * device.bytesPerSecond);
  const steps = columns / figures.stepColumns;
  const idle = Math.ceil(steps) / steps;
  const instructions = weights * idle * (figures.perWeight[device.compiledFor]?.[kind] ?? 8);
  const arithmetic = instructions / (device.lanesPerCore * device.cores * device.hertz);
  return Math.max(memory, arithmetic) + 0.25 * Math.min(memory, arithmetic);
}

function attentionSeconds(
  device: Gpu,
  { attention }: KernelFigures,
  spec: GroupedQueryAttentionSpec,
  context: number,
): number {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, slidingWindow } = spec;
  const { keys, wavefronts, latencies, serialCycles } = attention;
  const visible = Math.max(16, Math.min(context, slidingWindow ?? context));
  const blocks = Math.ceil(visible / keys);
  const splits = slidingWindow === undefined ? Math.min(attention.mostSplits, Math.max(1, blocks >> 1)) : 1;
  const rows = heads / kvHeads;
  const quads = headDim / 4;
  // A warp reads its row's query and its own key, then its own value for every key.
  const scores = ((rows * keys) / 32) * quads * (1 + wavefronts);
  const values = ((rows * quads) / 32) * keys * 5;
  const shared = scores + values;
  const perCore = Math.ceil((kvHeads * splits) / device.cores);
  const chain = Math.max(shared, latencies * device.latencySeconds * device.hertz) + serialCycles + 200;
  const cycles = Math.ceil(blocks / splits) * Math.max(chain, perCore * shared);
  const bytes = visible * kvHeads * headDim * 2 * 2;
  return Math.max(cycles / device.hertz, bytes / (0.8 * device.bytesPerSecond));
}

/** Tokens a second at batch 1 for grouped-query attention. Undefined for latent attention, which is not modelled. */
export function tokensPerSecond(
  device: Gpu,
  model: BenchModel,
  figures: KernelFigures,
  context: number,
): number | undefined {
  const { spec, types } = model;
  const h = spec.hiddenSize;
  let seconds = productSeconds(device, figures, `matrixVector ${types.head}`, spec.vocabularySize * h, h);
  for (const { attention, feedForward } of spec.layers) {
    if (attention.kind !== 'grouped-query') return undefined;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, qkNorm } = attention;
    const joint = qkNorm ? 'jointVector' : 'projectHeads';
    seconds += productSeconds(device, figures, `${joint} ${types.attention}`, (heads + 2 * kvHeads) * headDim * h, h);
    seconds += productSeconds(device, figures, `matrixVector ${types.attention}`, heads * headDim * h, heads * headDim);
    seconds += attentionSeconds(device, figures, attention, context);
    const width = feedForward.intermediateSize;
    const used = feedForward.kind === 'experts' ? feedForward.expertsPerToken : 1;
    if (feedForward.kind === 'experts') {
      seconds += productSeconds(device, figures, 'matrixVector F32', feedForward.numExperts * h, h);
    }
    seconds += productSeconds(device, figures, `gatedVector ${types.gate}`, 2 * used * width * h, h);
    const down = feedForward.kind === 'experts' ? 'expertsDown' : 'matrixVector';
    seconds += productSeconds(device, figures, `${down} ${types.down}`, used * width * h, used * width);
  }
  seconds += (figures.dispatches[model.name] ?? 0) * device.dispatchSeconds + samplingSeconds;
  return 1 / seconds;
}
