/**
 * The file with the graph's weights: integer grids and floats in the layout of ONNX Runtime's operators. It is planned
 * while the graph is built, written once and memory-mapped by the runtime.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { HearthError, throwIfAborted } from '../../errors.ts';
import { blockLayout, elementCountOf } from '../../formats/tensor.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights, Weight } from '../../model/weights/weights.ts';
import { columnsOf, readValues, rowBytesOf, rowsOf } from '../../model/weights/weightViews.ts';
import { type ElementType, elementBytes, type StoredTensor } from './graphBuilder.ts';
import { type IntegerGrid, integerGrids, packRows } from './integerGrids.ts';

/** Increment when the layout changes. */
export const weightsFileVersion = 2;

/** Rows `[firstRow, firstRow + rows)` of a weight. */
export interface WeightRows {
  readonly weight: Weight;
  readonly firstRow: number;
  readonly rows: number;
}

export const allRows = (weight: Weight): WeightRows => ({ weight, firstRow: 0, rows: rowsOf(weight.shape) });

export type StoredMatrix = StoredIntegers | StoredFloats;

/** value = scale · code + minimum */
export interface StoredIntegers {
  readonly kind: 'integers';
  readonly rows: number;
  readonly columns: number;
  readonly bits: 4 | 8;
  readonly elementsPerScale: number;
  /** `[rows, columns · bits / 8]` u8 */
  readonly codes: StoredTensor;
  /** `[rows, columns / elementsPerScale]` f32 */
  readonly scales: StoredTensor;
  /** As `scales`, but multiplied by `elementsPerScale`, because they multiply block means of the activations. */
  readonly minimums?: StoredTensor;
}

export interface StoredFloats {
  readonly kind: 'floats';
  readonly rows: number;
  readonly columns: number;
  /** `[rows, columns]` f32 */
  readonly values: StoredTensor;
}

/** The integer grid that a weight is computed on; undefined: it is computed as f32. */
export function gridOf({ type, blockScale }: Weight): IntegerGrid | undefined {
  return blockScale ? undefined : integerGrids[type];
}

/** Bytes of the weights in the file, without alignment. */
export function packedBytesOf(weights: DecoderWeights): number {
  const latent = weights.layers.flatMap(({ attention }) =>
    attention.kind === 'latent' ? [attention.keyUp.weight, attention.valueUp] : [],
  );
  return listWeights(weights).reduce((sum, { weight }) => {
    // No operator multiplies batches of quantised matrices.
    const grid = latent.includes(weight) ? undefined : gridOf(weight);
    const elements = elementCountOf(weight.shape);
    if (!grid) return sum + elementBytes.float32 * elements;
    const scaleBytes = elementBytes.float32 * (grid.minimum ? 2 : 1);
    return sum + (elements * grid.bits) / 8 + (elements / grid.elementsPerScale) * scaleBytes;
  }, 0);
}

/** Rows and their destination: `values`, or `codes`, `scales` and `minimums`. */
interface Job {
  readonly parts: readonly WeightRows[];
  readonly targets: Readonly<Partial<Record<keyof PackedBytes, StoredTensor>>>;
}

interface PackedBytes {
  readonly values?: Uint8Array;
  readonly codes?: Uint8Array;
  readonly scales?: Uint8Array;
  readonly minimums?: Uint8Array;
}

/** Memory maps start at page boundaries; on Windows at multiples of 64 KiB. */
const largeAlignmentBytes = 64 * 1024;
const smallAlignmentBytes = 64;
/** Bytes read, packed and written at a time. */
const chunkBytes = 4 * 1024 * 1024;

export class WeightsLayout {
  byteLength = 0;
  readonly #jobs: Job[] = [];
  readonly #whole = new Map<Weight, StoredMatrix>();

  /**
   * Concatenates the rows of `parts`, which are all on one grid. A whole weight is stored only once. `[rows, columns]`
   */
  matrix(parts: readonly WeightRows[]): StoredMatrix {
    const first = parts[0]?.weight;
    if (!first) throw new Error('A matrix needs at least one part.');
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const isWhole = parts.length === 1 && rows === rowsOf(first.shape);
    const known = isWhole ? this.#whole.get(first) : undefined;
    if (known) return known;
    const matrix = this.#place(first, rows);
    this.#jobs.push({ parts, targets: targetsOf(matrix) });
    if (isWhole) this.#whole.set(first, matrix);
    return matrix;
  }

  /** Concatenates the values of `parts`, dequantised. `[n]` f32 */
  floats(parts: readonly WeightRows[]): StoredTensor {
    const count = parts.reduce((sum, { weight, rows }) => sum + rows * columnsOf(weight.shape), 0);
    const values = this.#allocate('float32', [count]);
    this.#jobs.push({ parts, targets: { values } });
    return values;
  }

  #place(weight: Weight, rows: number): StoredMatrix {
    const grid = gridOf(weight);
    const columns = columnsOf(weight.shape);
    if (!grid) return { kind: 'floats', rows, columns, values: this.#allocate('float32', [rows, columns]) };
    const { bits, elementsPerScale } = grid;
    const scaleShape = [rows, columns / elementsPerScale];
    return {
      kind: 'integers',
      rows,
      columns,
      bits,
      elementsPerScale,
      codes: this.#allocate('uint8', [rows, (columns * bits) / 8]),
      scales: this.#allocate('float32', scaleShape),
      ...(grid.minimum && { minimums: this.#allocate('float32', scaleShape) }),
    };
  }

  #allocate(type: ElementType, shape: readonly number[]): StoredTensor {
    const byteLength = shape.reduce((product, size) => product * size, elementBytes[type]);
    const alignment = byteLength < largeAlignmentBytes ? smallAlignmentBytes : largeAlignmentBytes;
    const offset = Math.ceil(this.byteLength / alignment) * alignment;
    this.byteLength = offset + byteLength;
    return { type, shape, offset };
  }

  /** Bytes of the source weights that `write` reads. */
  get sourceBytes(): number {
    return this.#jobs.flatMap(({ parts }) => parts).reduce((sum, part) => sum + part.rows * rowBytesOf(part.weight), 0);
  }

  /** @throws HearthError `unavailable` if the file can't be written, `cancelled`. */
  async write(path: string, onBytes: (sourceBytes: number) => void, signal?: AbortSignal): Promise<void> {
    const file = await open(path, 'w+').catch((error: unknown) => refuse(path, error));
    try {
      await file.truncate(this.byteLength);
      for (const job of this.#jobs) await writeJob(file, job, onBytes, signal);
      await file.write(trailerOf(await checksum(file, this.byteLength, signal)), 0, trailerBytes, this.byteLength);
      await file.sync();
    } catch (error) {
      if (error instanceof HearthError) throw error;
      refuse(path, error);
    } finally {
      await file.close();
    }
  }
}

// After the weights, "HEARTHPW" and their CRC-32. As in snapshots, it guards against accidents only: a process that can
// write to the user's folder can write a matching checksum. SHA-256 takes two to five times as long, at every start.

const trailerBytes = 12;

function trailerOf(sum: number): Buffer {
  const trailer = Buffer.from('HEARTHPW\0\0\0\0');
  trailer.writeUInt32LE(sum, 8);
  return trailer;
}

async function checksum(file: FileHandle, byteLength: number, signal?: AbortSignal): Promise<number> {
  const chunk = Buffer.allocUnsafe(Math.min(chunkBytes, byteLength));
  let sum = 0;
  for (let at = 0; at < byteLength; ) {
    throwIfAborted(signal);
    const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, byteLength - at), at);
    if (bytesRead === 0) break;
    sum = crc32(chunk.subarray(0, bytesRead), sum);
    at += bytesRead;
  }
  return sum;
}

/** @returns undefined if there is no such file. */
export async function isIntact(path: string, byteLength: number, signal?: AbortSignal): Promise<boolean | undefined> {
  let file: FileHandle;
  try {
    file = await open(path);
  } catch (error) {
    return error instanceof Error && Reflect.get(error, 'code') === 'ENOENT' ? undefined : false;
  }
  try {
    if ((await file.stat()).size !== byteLength + trailerBytes) return false;
    const trailer = Buffer.alloc(trailerBytes);
    await file.read(trailer, 0, trailerBytes, byteLength);
    return trailer.equals(trailerOf(await checksum(file, byteLength, signal)));
  } catch (error) {
    if (error instanceof HearthError) throw error;
    return false;
  } finally {
    await file.close();
  }
}

function refuse(path: string, cause: unknown): never {
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new HearthError(
    'unavailable',
    `Can't write the CPU's weights to ${path}: ${reason}. Free some disk space there.`,
    { cause },
  );
}

function targetsOf(matrix: StoredMatrix): Job['targets'] {
  if (matrix.kind === 'floats') return { values: matrix.values };
  const { codes, scales, minimums } = matrix;
  return { codes, scales, ...(minimums && { minimums }) };
}

async function writeJob(
  file: FileHandle,
  { parts, targets }: Job,
  onBytes: (sourceBytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const positions = new Map(Object.entries(targets).map(([name, { offset }]) => [name, offset]));
  for (const { weight, firstRow, rows } of parts) {
    const rowBytes = rowBytesOf(weight);
    const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
    for (let row = 0; row < rows; row += step) {
      throwIfAborted(signal);
      const count = Math.min(step, rows - row);
      const packed = targets.values
        ? await floatRows(weight, firstRow + row, count)
        : await packedRows(weight, firstRow + row, count);
      for (const [name, values] of Object.entries(packed)) {
        const position = positions.get(name) ?? 0;
        await file.write(values, 0, values.length, position);
        positions.set(name, position + values.length);
      }
      onBytes(count * rowBytes);
    }
  }
}

async function floatRows(weight: Weight, firstRow: number, rows: number): Promise<PackedBytes> {
  return { values: bytesOf(await readValues(weight, firstRow, rows)) };
}

async function packedRows(weight: Weight, firstRow: number, rows: number): Promise<PackedBytes> {
  const grid = gridOf(weight);
  if (!grid) throw new Error(`${weight.name} of type ${weight.type} has no integer grid.`);
  const bytes = await weight.readRows(firstRow, rows);
  const { codes, scales, minimums } = packRows(weight.type, grid, blockLayout(weight.type), bytes);
  if (!minimums) return { codes, scales: bytesOf(scales) };
  for (let i = 0; i < minimums.length; i++) minimums[i] = (minimums[i] as number) * grid.elementsPerScale;
  return { codes, scales: bytesOf(scales), minimums: bytesOf(minimums) };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);
