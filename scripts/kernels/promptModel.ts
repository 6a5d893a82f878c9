/**
 * Estimates the time of a chunk of a prompt from the compiled instructions of its kernels' main loops.
 *
 * Assumptions beside those of timeModel.ts: a core issues `lanesPerCore` thread instructions a cycle, and its matrix units run beside them at
 * `matrixMacs`; the largest of both and memory counts in full, the others by a quarter. Waiting for memory and barriers is hidden by other workgroups
 * of the core, so a step costs its instructions, among them those that attention by matrices rarely runs (rescaling); workgroups are dealt out evenly.
 * Experts are chosen alike often, by chance. Kernels without a matrix move their values at 0.85 of the bandwidth. The vendor's compiler needs as many instructions as Mesa's. Intel's devices count as if they had no matrices.
 */
import { largeCardBytes } from '../../engine/backend/webgpu/decoder/scratch.ts';
import type { TensorType } from '../../engine/formats/tensor.ts';
import type { ExpertsSpec, GroupedQueryAttentionSpec, LayerSpec } from '../../engine/model/spec/spec.ts';
import type { BenchModel } from './models.ts';
import { bandwidthShare, bytesOf, type Gpu } from './timeModel.ts';

/** Figures of the prompt's kernels, stored with each measurement. */
export interface PromptFigures {
  /** Instructions of a thread for a step of the main loop, by card and kind (`expertTiles MXFP4`, `attention 64/8x64`). */
  readonly perStep: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Of a full pass. */
  readonly chunkTokens: number;
  /** The same on large cards, by model (`tokensPerRun`). */
  readonly largeCardTokens: Readonly<Record<string, number>>;
  readonly tile: {
    readonly tokens: number;
    readonly rows: number;
    readonly columns: number;
    readonly threads: number;
    /** Rows from which on a matrix has tiles of `mostTokens`. */
    readonly tallRows: number;
  };
  /** By card and type; also of experts. */
  readonly mostTokens: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Rows of a matrix unit: a tile multiplies no others than those with tokens. */
  readonly matrixRows: number;
  /** Workgroups and steps of attention, by kind: `attention 64/8x64`, by matrices `attentionTiles 64/8x64`. */
  readonly attention: Readonly<Record<string, AttentionFigures>>;
  /** Dispatches of a chunk, by card and model. */
  readonly dispatches: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

interface AttentionFigures {
  readonly queries: number;
  readonly heads: number;
  readonly keys: number;
  readonly threads: number;
  /** Multiply-adds of a step in matrices. */
  readonly macs?: number | undefined;
}

const floatBytes = 4;

/** Seconds for `workgroups` that each take `steps`, with the matrix multiply-adds of one step. */
function loopSeconds(
  device: Gpu,
  {
    workgroups,
    steps,
    instructions,
    macs,
    bytes,
  }: {
    readonly workgroups: number;
    readonly steps: number;
    readonly instructions: number;
    readonly macs: number;
    readonly bytes: number;
  },
): number {
  const perCore = Math.ceil(workgroups / device.cores) * steps;
  const issue = (perCore * instructions) / device.lanesPerCore / device.hertz;
  const matrices = device.matrixMacs > 0 ? (perCore * macs) / device.matrixMacs / device.hertz : 0;
  return overlapped([issue, matrices, bytes / (bandwidthShare * device.bytesPerSecond)]);
}

const overlapped = (times: readonly number[]): number =>
  0.75 * Math.max(...times) + 0.25 * times.reduce((a, b) => a + b, 0);

/** Types whose values are one half of f16; others take a third product (matrixTiles.ts). */
const products = (type: string): number => (['F16', 'BF16', 'MXFP4'].includes(type) ? 2 : 3);

function productSeconds(device: Gpu, figures: PromptFigures, type: string, rows: number, columns: number): number {
  const { tile, chunkTokens } = figures;
  const tokens = rows < tile.tallRows ? tile.tokens : tokensOf(figures, device, type);
  const name = tokens === tile.tokens ? 'matrixMatrix' : 'tallMatrix';
  return loopSeconds(device, {
    workgroups: Math.ceil(rows / tile.rows) * Math.ceil(chunkTokens / tokens),
    steps: Math.ceil(columns / tile.columns),
    instructions: stepOf(figures, device, `${name} ${type}`) * tile.threads,
    macs: tokens * tile.rows * tile.columns * products(type),
    bytes: rows * columns * bytesOf(type) + floatBytes * chunkTokens * (rows + columns),
  });
}

const tokensOf = ({ mostTokens, tile }: PromptFigures, { compiledFor }: Gpu, type: string): number =>
  mostTokens[compiledFor]?.[type] ?? tile.tokens;

const stepOf = ({ perStep }: PromptFigures, { compiledFor }: Gpu, kind: string): number =>
  perStep[compiledFor]?.[kind] ?? Number.NaN;

/** Probabilities of 0, 1, … visits of an expert, which a token chooses with a chance of topK / numExperts. */
function visitChances({ numExperts, expertsPerToken }: ExpertsSpec, tokens: number): number[] {
  const chance = expertsPerToken / numExperts;
  const chances = [(1 - chance) ** tokens];
  for (let visits = 1; visits <= tokens; visits++) {
    const previous = chances[visits - 1] ?? 0;
    chances.push(
      chance === 1 ? Number(visits === tokens) : (previous * (tokens - visits + 1) * chance) / (visits * (1 - chance)),
    );
  }
  return chances;
}

function expertSeconds(
  device: Gpu,
  figures: PromptFigures,
  spec: ExpertsSpec,
  {
    type,
    rows,
    columns,
    most,
  }: { readonly type: TensorType; readonly rows: number; readonly columns: number; readonly most: number },
): number {
  const { tile, chunkTokens, matrixRows } = figures;
  let [tiles, visited] = [0, 0];
  for (const [visits, chance] of visitChances(spec, chunkTokens).entries()) {
    tiles += chance * Math.ceil(visits / most);
    visited += chance * matrixRows * Math.ceil(visits / matrixRows);
  }
  return loopSeconds(device, {
    workgroups: Math.ceil(rows / tile.rows) * spec.numExperts * tiles,
    steps: Math.ceil(columns / tile.columns),
    instructions: stepOf(figures, device, `expertTiles ${type}`) * tile.threads,
    macs: (visited / tiles) * tile.rows * tile.columns * products(type),
    bytes:
      spec.numExperts * rows * columns * bytesOf(type) +
      floatBytes * chunkTokens * spec.expertsPerToken * (rows + columns),
  });
}

function attentionSeconds(device: Gpu, figures: PromptFigures, spec: GroupedQueryAttentionSpec, depth: number): number {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, slidingWindow } = spec;
  const suffix = `${heads}/${kvHeads}x${headDim}`;
  const byMatrices = `attentionTiles ${suffix}${slidingWindow === undefined ? '' : 'w'}`;
  const measured = figures.perStep[device.compiledFor] ?? {};
  const kind = [byMatrices, `attention ${suffix}`].find((each) => measured[each] !== undefined);
  const shape = kind === undefined ? undefined : figures.attention[kind];
  if (kind === undefined || !shape) return Number.NaN;
  const visible = Math.min(
    depth + figures.chunkTokens / 2,
    (slidingWindow ?? Number.POSITIVE_INFINITY) + shape.queries,
  );
  return loopSeconds(device, {
    workgroups: (heads / shape.heads) * Math.ceil(figures.chunkTokens / shape.queries),
    steps: Math.ceil(visible / shape.keys),
    instructions: stepOf(figures, device, kind) * shape.threads,
    macs: shape.macs ?? 0,
    bytes: 2 * 2 * visible * kvHeads * headDim,
  });
}

/** Values that a layer's other kernels read and write for a token: norms, halves, heads, activations, sums over experts. */
function movedValues({ attention, feedForward }: LayerSpec, hidden: number): number {
  const heads =
    attention.kind === 'grouped-query'
      ? (attention.numAttentionHeads + attention.numKeyValueHeads) * attention.headDim
      : 0;
  const used = feedForward.kind === 'experts' ? feedForward.expertsPerToken : 1;
  const states = used * feedForward.intermediateSize;
  const sums = feedForward.kind === 'experts' ? (used + 2) * hidden : 0;
  return 8 * hidden + 4 * heads + 5 * states + sums;
}

/** Tokens of a prompt computed in a second, in the chunk after `depth` cached tokens. Undefined for attention that is not modelled. */
export function promptTokensPerSecond(
  device: Gpu,
  model: BenchModel,
  measured: PromptFigures,
  depth: number,
): number | undefined {
  const isLarge = device.memoryGiB !== undefined && device.memoryGiB * 2 ** 30 >= largeCardBytes;
  const chunkTokens = (isLarge ? measured.largeCardTokens[model.name] : undefined) ?? measured.chunkTokens;
  const figures = { ...measured, chunkTokens };
  const { spec, types } = model;
  const h = spec.hiddenSize;
  let seconds = (figures.dispatches[device.compiledFor]?.[model.name] ?? 0) * device.dispatchSeconds;
  const product = (type: string, rows: number, columns: number) => {
    seconds += productSeconds(device, figures, type, rows, columns);
  };
  for (const layer of spec.layers) {
    const { attention, feedForward } = layer;
    if (attention.kind !== 'grouped-query') return undefined;
    const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = attention;
    product(types.attention, heads * headDim, h);
    product(types.attention, kvHeads * headDim, h);
    product(types.value, kvHeads * headDim, h);
    product(types.attention, h, heads * headDim);
    seconds += attentionSeconds(device, figures, attention, depth);
    const width = feedForward.intermediateSize;
    if (feedForward.kind === 'experts') {
      product('F32', feedForward.numExperts, h);
      const most = Math.min(...[types.gate, types.down].map((type) => tokensOf(figures, device, type)));
      for (const [type, rows, columns] of [
        [types.gate, width, h],
        [types.gate, width, h],
        [types.down, h, width],
      ] as const) {
        seconds += expertSeconds(device, figures, feedForward, { type, rows, columns, most });
      }
    } else {
      product(types.gate, width, h);
      product(types.gate, width, h);
      product(types.down, h, width);
    }
    const moved = floatBytes * figures.chunkTokens * movedValues(layer, h);
    seconds += moved / (bandwidthShare * device.bytesPerSecond);
  }
  return figures.chunkTokens / seconds;
}
