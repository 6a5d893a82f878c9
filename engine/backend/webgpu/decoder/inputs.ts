/** What a run tells the kernels: which tokens, where they stand, how their heads turn, and which pages hold the rest. */

import type { CachedSequence } from '../../../kv/blockCache.ts';
import { attentionFactor, inverseFrequencies } from '../../../model/spec/rope.ts';
import type { AttentionSpec, DecoderSpec, RopeSpec } from '../../../model/spec/spec.ts';
import type { Allocator } from '../device/gpu.ts';
import { pageTokens } from '../kernels/cacheCode.ts';

export interface RunSlice {
  readonly sequence: CachedSequence;
  readonly tokens: readonly number[];
}

export interface InputLimits {
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

const ropeOf = (attention: AttentionSpec): RopeSpec => attention.rope;
const ropeKey = (attention: AttentionSpec): string => JSON.stringify(ropeOf(attention));

export class RunInputs {
  /** Rows of this run; dispatch sizes ask for it. */
  tokens = 0;
  /** Attention tiles of this run. */
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

  /** @param spans of the cache */
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
    for (const { attention } of spec.layers) {
      if (angles.has(ropeKey(attention))) continue;
      const frequencies = inverseFrequencies(ropeOf(attention));
      const buffer = await gpu.allocate('angles', 8 * frequencies.length * maxTokensPerRun, storage);
      angles.set(ropeKey(attention), { frequencies, factor: attentionFactor(ropeOf(attention)), buffer });
    }
    return new RunInputs(angles, buffers);
  }

  anglesOf(attention: AttentionSpec): GPUBuffer {
    const angles = this.#angles.get(ropeKey(attention));
    if (!angles) throw new Error('every layer has its angles');
    return angles.buffer;
  }

  /**
   * @param queries most rows of one sequence in an attention tile
   * @param steps runs that follow each other without the host; rows then stand at the first of them
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

  /** `steps` more runs behind `done` ones, of one token a sequence; the device has left its tokens and positions in the rows. */
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

/** `{ position, table, id, angle }` a token; page tables follow each other, the same way in every span. */
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
    // Pages that left the window are never read; they stand for page 0, so that even a stray read stays inside.
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

/** Positions that a sequence's rows pass through in `steps` runs. */
const positionsOf = (tokens: readonly number[], steps: number): number => tokens.length + steps - 1;

/** In float64, so that position 131071 turns as exactly as position 1. */
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
