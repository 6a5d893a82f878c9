/** Buffers for activations, allocated once for the largest pass. */

import type { CachedSequence } from '../../../kv/blockCache.ts';
import { attentionFactor, inverseFrequencies } from '../../../model/spec/rope.ts';
import {
  type CachedAttentionSpec,
  cachedAttentions,
  type DecoderSpec,
  type FeedForwardSpec,
  outputSize,
  type RopeSpec,
} from '../../../model/spec/spec.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { Allocator } from '../device/gpu.ts';
import { attentionShape, attentionSplits } from '../kernels/attention.ts';
import { pageTokens } from '../kernels/cacheCode.ts';
import { tileTokens } from '../kernels/matrixTiles.ts';
import { groupingBytes } from '../kernels/promptExperts.ts';
import { paddedWidth } from './gpuWeights.ts';

/** Rows of logits that are computed and read back at once. */
export const logitRowsAtOnce = 16;

/** The largest binding that every GPU allows. */
const leastBindingBytes = 128 * 1024 * 1024;

/** Cards with less lack the memory for longer runs (0.1 to 0.2 GiB more). */
export const largeCardBytes = 20 * 2 ** 30;

/**
 * Most tokens of a run. Of 512 an expert gets a few, which do not fill its tiles; with twice as many its matrices are
 * dequantised half as often for a token. Dense layers gain nothing.
 */
export function tokensPerRun(spec: DecoderSpec, { memory }: Pick<GpuCapabilities, 'memory'>): number {
  const { expertStates, expertOutputs } = widths(spec);
  const visitBytes = 4 * Math.max(0, ...expertStates, ...expertOutputs);
  const isLarge = memory !== undefined && !memory.unified && memory.totalBytes >= largeCardBytes;
  return isLarge && visitBytes > 0 && 1024 * visitBytes <= leastBindingBytes ? 1024 : 512;
}

/** `[tokens, …]` each, except `grouping`, `parts`, `halves`, `chosen` and `logits`. */
export interface Scratch {
  /** The residual stream: `hidden`. */
  readonly hidden: GPUBuffer;
  /** `hidden` */
  readonly normed: GPUBuffer;
  /** Latent: the compressed query, raw and normalised. `queryRank` */
  readonly queryDown: GPUBuffer;
  readonly queryNormed: GPUBuffer;
  /** `heads · headDim`; latent: `heads · (nope + rope)` */
  readonly query: GPUBuffer;
  /** `kvHeads · headDim`; latent: `keyValueRank + rope` in `key` */
  readonly key: GPUBuffer;
  readonly value: GPUBuffer;
  /** Latent: `heads · nope`, `heads · rope`, `heads · keyValueRank` */
  readonly nopeQuery: GPUBuffer;
  readonly ropeQuery: GPUBuffer;
  readonly latentQuery: GPUBuffer;
  /** `heads · headDim`; latent: `heads · keyValueRank` */
  readonly attended: GPUBuffer;
  /** Latent: `heads · value` */
  readonly headValues: GPUBuffer;
  /** Gates of attention's output: `heads · headDim`; of a gated delta net: `valueHeads · valueHeadDim` */
  readonly gates: GPUBuffer;
  /** Gated delta net: `valueHeads`. Shared experts: one number, in `betas`. */
  readonly betas: GPUBuffer;
  readonly decays: GPUBuffer;
  /** `[splits, rows, heads, headDim + 4]` */
  readonly parts: GPUBuffer;
  /** `intermediate` */
  readonly gate: GPUBuffer;
  readonly up: GPUBuffer;
  /** Router logits: `experts` */
  readonly scores: GPUBuffer;
  /** Indices and weights of the chosen experts: `topK` */
  readonly experts: GPUBuffer;
  readonly expertWeights: GPUBuffer;
  /** `topK · intermediate` of the chosen experts */
  readonly expertStates: GPUBuffer;
  /** Prompts: `topK · intermediate` of the gates, `topK · hidden` of the chosen experts' outputs. */
  readonly expertGates: GPUBuffer;
  readonly expertOutputs: GPUBuffer;
  /** Prompts: the tokens of each expert, as groupExperts leaves them. */
  readonly grouping: GPUBuffer;
  /** Prompts with subgroup matrices: the operand in halves (splitHalves), and the scales of its rows. */
  readonly halves: GPUBuffer;
  readonly halfScales: GPUBuffer;
  /** Rows of `hidden` whose logits are requested. `[logitRowsAtOnce, hidden]` */
  readonly chosen: GPUBuffer;
  /** `[logitRowsAtOnce, vocabulary]`, or hidden of an embedding model. */
  readonly logits: GPUBuffer;
  /** Staging buffer for their read-back. */
  readonly reading: GPUBuffer;
  readonly bytes: number;
}

interface ScratchLimits {
  readonly maxTokensPerRun: number;
  /** Numbers of rows of passes that split the keys. */
  readonly rowBuckets: readonly number[];
  /** Whether prompts are multiplied in halves. */
  readonly halves: boolean;
}

/** Values a token of every buffer with values for each token of a pass. */
function widths(spec: DecoderSpec) {
  const grouped = spec.layers.flatMap(({ attention }) => (attention.kind === 'grouped-query' ? [attention] : []));
  const latent = spec.layers.flatMap(({ attention }) => (attention.kind === 'latent' ? [attention] : []));
  const dense = spec.layers.map(({ feedForward }) => feedForward);
  const experts = dense.flatMap((feedForward) => (feedForward.kind === 'experts' ? [feedForward] : []));
  const queries = grouped.map(({ numAttentionHeads, headDim }) => numAttentionHeads * headDim);
  const keys = grouped.map(({ numKeyValueHeads, headDim }) => numKeyValueHeads * headDim);
  const ofHeads = (width: (spec: (typeof latent)[number]) => number) =>
    latent.map((attention) => attention.numAttentionHeads * width(attention));
  const delta = spec.layers.flatMap(({ attention }) => (attention.kind === 'gated-delta' ? [attention] : []));
  const deltaKeys = delta.map(({ numKeyHeads, keyHeadDim }) => numKeyHeads * keyHeadDim);
  const deltaValues = delta.map(({ numValueHeads, valueHeadDim }) => numValueHeads * valueHeadDim);
  const deltaHeads = delta.map(({ numValueHeads }) => numValueHeads);
  const latents = ofHeads(({ keyValueRank }) => keyValueRank);
  return {
    hidden: [spec.hiddenSize],
    normed: [spec.hiddenSize],
    queryDown: latent.map(({ queryRank = 0 }) => queryRank),
    queryNormed: latent.map(({ queryRank = 0 }) => queryRank),
    query: [...queries, ...deltaKeys, ...ofHeads(({ nopeHeadDim, ropeHeadDim }) => nopeHeadDim + ropeHeadDim)],
    key: [...keys, ...deltaKeys, ...latent.map(({ keyValueRank, ropeHeadDim }) => keyValueRank + ropeHeadDim)],
    value: [...keys, ...deltaValues],
    nopeQuery: ofHeads(({ nopeHeadDim }) => nopeHeadDim),
    ropeQuery: ofHeads(({ ropeHeadDim }) => ropeHeadDim),
    latentQuery: latents,
    attended: [...queries, ...latents],
    gates: [...grouped.flatMap(({ outputGate }, i) => (outputGate ? [queries[i] ?? 0] : [])), ...deltaValues],
    betas: [...deltaHeads, ...experts.map(({ sharedGate }) => (sharedGate ? 1 : 0))],
    decays: deltaHeads,
    headValues: ofHeads(({ valueHeadDim }) => valueHeadDim),
    gate: dense.map(denseWidth),
    up: dense.map(denseWidth),
    scores: experts.map(({ numExperts }) => numExperts),
    experts: experts.map(({ expertsPerToken }) => expertsPerToken),
    expertWeights: experts.map(({ expertsPerToken }) => expertsPerToken),
    expertStates: experts.map(({ expertsPerToken, intermediateSize }) => expertsPerToken * intermediateSize),
    expertGates: experts.map(({ expertsPerToken, intermediateSize }) => expertsPerToken * intermediateSize),
    expertOutputs: experts.map(({ expertsPerToken }) => expertsPerToken * spec.hiddenSize),
  } satisfies Partial<Record<keyof Scratch, number[]>>;
}

function denseWidth(feedForward: FeedForwardSpec): number {
  const { kind } = feedForward;
  return paddedWidth(kind === 'experts' ? (feedForward.sharedIntermediateSize ?? 0) : feedForward.intermediateSize);
}

function groupingWords(spec: DecoderSpec, maxTokens: number): number {
  const words = spec.layers.map(({ feedForward }) => {
    if (feedForward.kind !== 'experts') return 0;
    const { numExperts, expertsPerToken: topK } = feedForward;
    return groupingBytes({ numExperts, topK, tileTokens, maxTokens }) / 4;
  });
  return Math.max(0, ...words);
}

/** Values and rows a token of the largest operand of a prompt's matmuls. */
function largestOperand(spec: DecoderSpec): { readonly values: number; readonly rows: number } {
  const { normed, queryNormed, nopeQuery, attended, headValues, value, up, expertStates } = widths(spec);
  const chosen = spec.layers.map(({ feedForward }) =>
    feedForward.kind === 'experts' ? feedForward.expertsPerToken : 1,
  );
  const values = [normed, queryNormed, nopeQuery, attended, headValues, value, up, expertStates].flat();
  return { values: Math.max(...values), rows: Math.max(...chosen) };
}

/** Values of the largest partial results of split attention. */
function partValues(spec: DecoderSpec, rowBuckets: readonly number[]): number {
  const sizes = cachedAttentions(spec).flatMap((attention) => {
    const shape = attentionShape(attention);
    return rowBuckets.map((rows) => attentionSplits(shape, rows) * rows * shape.heads * (shape.valueDim + 4));
  });
  return Math.max(0, ...sizes);
}

export async function allocateScratch(gpu: Allocator, spec: DecoderSpec, limits: ScratchLimits): Promise<Scratch> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const before = gpu.allocatedBytes;
  const values = (label: string, count: number) => gpu.allocate(`${label} of a run`, 4 * count, usage);
  const wanted = widths(spec);
  const perToken = (name: keyof typeof wanted) => values(name, limits.maxTokensPerRun * Math.max(0, ...wanted[name]));
  const halved = limits.halves ? largestOperand(spec) : { values: 0, rows: 0 };
  return {
    hidden: await perToken('hidden'),
    normed: await perToken('normed'),
    queryDown: await perToken('queryDown'),
    queryNormed: await perToken('queryNormed'),
    query: await perToken('query'),
    key: await perToken('key'),
    value: await perToken('value'),
    nopeQuery: await perToken('nopeQuery'),
    ropeQuery: await perToken('ropeQuery'),
    latentQuery: await perToken('latentQuery'),
    attended: await perToken('attended'),
    headValues: await perToken('headValues'),
    gate: await perToken('gate'),
    up: await perToken('up'),
    scores: await perToken('scores'),
    experts: await perToken('experts'),
    expertWeights: await perToken('expertWeights'),
    expertStates: await perToken('expertStates'),
    expertGates: await perToken('expertGates'),
    expertOutputs: await perToken('expertOutputs'),
    grouping: await values('experts of tokens', groupingWords(spec, limits.maxTokensPerRun)),
    gates: await perToken('gates'),
    betas: await perToken('betas'),
    decays: await perToken('decays'),
    parts: await values('attention parts', partValues(spec, limits.rowBuckets)),
    halves: await values('halves', limits.maxTokensPerRun * halved.values),
    halfScales: await values('scales of halves', limits.maxTokensPerRun * halved.rows),
    chosen: await values('last hidden states', logitRowsAtOnce * spec.hiddenSize),
    logits: await values('logits', logitRowsAtOnce * outputSize(spec)),
    reading: await gpu.allocate(
      'logits on their way',
      4 * logitRowsAtOnce * outputSize(spec),
      GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    ),
    bytes: gpu.allocatedBytes - before,
  };
}

// Inputs of a pass: tokens, their positions, their rotary angles, and the page tables of their sequences.

interface RunSlice {
  readonly sequence: CachedSequence;
  readonly tokens: readonly number[];
}

interface InputLimits {
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly maxSequencesPerRun: number;
}

/** One rotary table of the model; layers with equal settings share it. */
interface Angles {
  readonly frequencies: Float64Array;
  readonly factor: number;
  /** `[tokens, pairs]` (cos, sin) */
  readonly buffer: GPUBuffer;
}

const ropeOf = (attention: CachedAttentionSpec): RopeSpec => attention.rope;
const ropeKey = (attention: CachedAttentionSpec): string => JSON.stringify(ropeOf(attention));

export class RunInputs {
  /** Rows of this pass, which set dispatch sizes. */
  tokens = 0;
  /** Attention tiles of this pass. */
  tiles = 0;
  readonly rowBuffer: GPUBuffer;
  readonly tileBuffer: GPUBuffer;
  /** Uniform `{ tokens }`. */
  readonly paramBuffer: GPUBuffer;
  /** Page numbers, one buffer for each span of the cache. */
  readonly pageBuffers: readonly GPUBuffer[];
  readonly #angles: ReadonlyMap<string, Angles>;

  private constructor(angles: ReadonlyMap<string, Angles>, buffers: readonly GPUBuffer[]) {
    const [rowBuffer, tileBuffer, paramBuffer, ...pageBuffers] = buffers;
    if (!rowBuffer || !tileBuffer || !paramBuffer) throw new Error('three input buffers are allocated');
    this.#angles = angles;
    this.rowBuffer = rowBuffer;
    this.tileBuffer = tileBuffer;
    this.paramBuffer = paramBuffer;
    this.pageBuffers = pageBuffers;
  }

  /** @param spans number of spans of the cache. */
  static async allocate(gpu: Allocator, spec: DecoderSpec, spans: number, limits: InputLimits): Promise<RunInputs> {
    const { maxTokensPerRun, maxSequencesPerRun, contextTokens } = limits;
    const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const pageWords = maxSequencesPerRun * Math.ceil(contextTokens / pageTokens);
    const buffers = [
      await gpu.allocate('rows', 16 * maxTokensPerRun, storage),
      await gpu.allocate('attention tiles', 8 * maxTokensPerRun, storage),
      await gpu.allocate('parameters', 16, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST),
    ];
    for (let span = 0; span < spans; span++) buffers.push(await gpu.allocate('page tables', 4 * pageWords, storage));
    const angles = new Map<string, Angles>();
    for (const attention of cachedAttentions(spec)) {
      if (angles.has(ropeKey(attention))) continue;
      const frequencies = inverseFrequencies(ropeOf(attention));
      const buffer = await gpu.allocate('angles', 8 * frequencies.length * maxTokensPerRun, storage);
      angles.set(ropeKey(attention), { frequencies, factor: attentionFactor(ropeOf(attention)), buffer });
    }
    return new RunInputs(angles, buffers);
  }

  anglesOf(attention: CachedAttentionSpec): GPUBuffer {
    const angles = this.#angles.get(ropeKey(attention));
    if (!angles) throw new Error('every layer has its angles');
    return angles.buffer;
  }

  /**
   * @param queries most rows of one sequence in an attention tile.
   * @param steps passes that follow each other without the host; the rows are those of the first.
   */
  write(queue: GPUQueue, slices: readonly RunSlice[], queries: number, steps = 1): void {
    this.tokens = slices.reduce((sum, { tokens }) => sum + tokens.length, 0);
    queue.writeBuffer(this.rowBuffer, 0, rowsOf(slices, steps));
    queue.writeBuffer(this.paramBuffer, 0, new Uint32Array([this.tokens, 0, 0, 0]));
    const tiles = tilesOf(slices, queries);
    this.tiles = tiles.length / 2;
    queue.writeBuffer(this.tileBuffer, 0, tiles);
    this.#writePositions(queue, slices, 0, steps);
  }

  /**
   * Prepares `steps` more passes after `done` ones, of one token a sequence. The device has already written tokens and
   * positions to the rows.
   */
  continue(queue: GPUQueue, slices: readonly RunSlice[], done: number, steps: number): void {
    const rows = rowsOf(slices, steps);
    for (let row = 0; row < rows.length; row += 4) {
      queue.writeBuffer(this.rowBuffer, 4 * (row + 1), rows, row + 1, 1);
      queue.writeBuffer(this.rowBuffer, 4 * (row + 3), rows, row + 3, 1);
    }
    this.#writePositions(queue, slices, done, steps);
  }

  #writePositions(queue: GPUQueue, slices: readonly RunSlice[], done: number, steps: number): void {
    for (const [span, buffer] of this.pageBuffers.entries()) queue.writeBuffer(buffer, 0, pagesOf(slices, span));
    for (const angles of this.#angles.values()) queue.writeBuffer(angles.buffer, 0, turn(slices, angles, done, steps));
  }
}

/** `{ position, table, id, angle }` a token. Page tables follow each other, in the same order in every span. */
function rowsOf(slices: readonly RunSlice[], steps: number): Uint32Array<ArrayBuffer> {
  const rows: number[] = [];
  let table = 0;
  let angle = 0;
  for (const { sequence, tokens } of slices) {
    for (const [i, id] of tokens.entries()) rows.push(sequence.length + i, table, id, angle + i);
    table += tableLength(sequence);
    angle += positionsOf(tokens, steps);
  }
  return Uint32Array.from(rows);
}

const tableLength = (sequence: CachedSequence): number =>
  Math.max(...sequence.tables.map(({ blocks }) => blocks.length), 0);

function pagesOf(slices: readonly RunSlice[], span: number): Uint32Array<ArrayBuffer> {
  const tables = slices.map(({ sequence }) => {
    const pages = new Uint32Array(tableLength(sequence));
    // Pages outside the window are never read. They are set to page 0, so that even a stray read stays in bounds.
    for (const [i, page] of (sequence.tables[span]?.blocks ?? []).entries()) pages[i] = Math.max(0, page);
    return pages;
  });
  const all = new Uint32Array(tables.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const table of tables) {
    all.set(table, at);
    at += table.length;
  }
  return all;
}

/** `[first row, rows]` pairs, each within one sequence. */
function tilesOf(slices: readonly RunSlice[], queries: number): Uint32Array<ArrayBuffer> {
  const tiles: number[] = [];
  let first = 0;
  for (const { tokens } of slices) {
    for (let at = 0; at < tokens.length; at += queries) tiles.push(first + at, Math.min(queries, tokens.length - at));
    first += tokens.length;
  }
  return Uint32Array.from(tiles);
}

/** Positions of a sequence's rows in `steps` passes. */
const positionsOf = (tokens: readonly number[], steps: number): number => tokens.length + steps - 1;

/** Computes angles in float64, so that position 131071 is as exact as position 1. */
function turn(
  slices: readonly RunSlice[],
  { frequencies, factor }: Angles,
  done: number,
  steps: number,
): Float32Array<ArrayBuffer> {
  const count = slices.reduce((sum, { tokens }) => sum + positionsOf(tokens, steps), 0);
  const angles = new Float32Array(2 * frequencies.length * count);
  let at = 0;
  for (const { sequence, tokens } of slices) {
    const first = sequence.length + done;
    const end = first + positionsOf(tokens, steps);
    for (let position = first; position < end; position++) {
      for (const frequency of frequencies) {
        angles[at++] = Math.cos(position * frequency) * factor;
        angles[at++] = Math.sin(position * frequency) * factor;
      }
    }
  }
  return angles;
}
