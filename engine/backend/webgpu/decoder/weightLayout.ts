/**
 * Layout of a quantised matrix in GPU memory: the bits of the file, with each block's fields moved into planes, so that
 * packed values are whole aligned words. A plane holds one field of every block, row after row. No value is rounded,
 * and the size grows only by the padding at a plane's end.
 */
import { throwIfAborted, unsupported } from '../../../errors.ts';
import { blockLayout, byteLengthOf, type TensorType } from '../../../formats/tensor.ts';
import type { Weight } from '../../../model/weights/weights.ts';
import { columnsOf, readValues, rowsOf, weightBytesOf } from '../../../model/weights/weightViews.ts';
import type { LoadOptions } from '../../backend.ts';
import type { Gpu } from '../device/gpu.ts';
import { type BlockScaleShape, scaleRowsOf } from '../kernels/weightCode.ts';

/** A field of a block: bytes `[from, from + bytes)`. */
interface Plane {
  readonly from: number;
  readonly bytes: number;
}

const whole = (bytes: number): readonly Plane[] => [{ from: 0, bytes }];

/** Field offsets are those of ggml-common.h; packed values come first, so that plane 0 starts the buffer. */
const planesByType: Partial<Readonly<Record<TensorType, readonly Plane[]>>> = {
  F32: whole(4),
  F16: whole(2),
  BF16: whole(2),
  F8_E4M3: whole(1),
  Q8_0: [
    { from: 2, bytes: 32 },
    { from: 0, bytes: 2 },
  ],
  Q4_0: [
    { from: 2, bytes: 16 },
    { from: 0, bytes: 2 },
  ],
  Q4_1: [
    { from: 4, bytes: 16 },
    { from: 0, bytes: 4 },
  ],
  Q5_0: [
    { from: 6, bytes: 16 },
    { from: 2, bytes: 4 },
    { from: 0, bytes: 2 },
  ],
  Q5_1: [
    { from: 8, bytes: 16 },
    { from: 4, bytes: 4 },
    { from: 0, bytes: 4 },
  ],
  Q2_K: [
    { from: 16, bytes: 64 },
    { from: 0, bytes: 16 },
    { from: 80, bytes: 4 },
  ],
  Q3_K: [
    { from: 32, bytes: 64 },
    { from: 0, bytes: 32 },
    { from: 96, bytes: 12 },
    { from: 108, bytes: 2 },
  ],
  Q4_K: [
    { from: 16, bytes: 128 },
    { from: 0, bytes: 16 },
  ],
  Q5_K: [
    { from: 48, bytes: 128 },
    { from: 16, bytes: 32 },
    { from: 0, bytes: 16 },
  ],
  Q6_K: [
    { from: 0, bytes: 128 },
    { from: 128, bytes: 64 },
    { from: 192, bytes: 16 },
    { from: 208, bytes: 2 },
  ],
  IQ4_NL: [
    { from: 2, bytes: 16 },
    { from: 0, bytes: 2 },
  ],
  IQ4_XS: [
    { from: 8, bytes: 128 },
    { from: 0, bytes: 8 },
  ],
  MXFP4: [
    { from: 1, bytes: 16 },
    { from: 0, bytes: 1 },
  ],
};

/** Planes in the order of their offsets. @throws HearthError `unsupported` for a type that no kernel reads. */
export function planesOf(type: TensorType): readonly Plane[] {
  const planes = planesByType[type];
  if (!planes) throw unsupported(`The GPU backend doesn't support weights of type ${type}.`);
  return planes;
}

/** Planes start, and the buffer ends, at 16 bytes: kernels read them as vec4u. */
const vec4Words = 4;

export interface MatrixLayout {
  readonly type: TensorType;
  readonly rows: number;
  readonly columns: number;
  readonly blocksPerRow: number;
  /** First 32-bit word of each plane. */
  readonly planeWords: readonly number[];
  readonly totalWords: number;
}

/**
 * Layout of `[rows, columns]` values of `type`. An F8_E4M3 matrix is followed by its f32 block scales, one plane that
 * the caller fills: `[ceil(rows / blockRows), ceil(columns / blockColumns)]`.
 * @throws HearthError `unsupported` for a type that no kernel reads.
 */
export function matrixLayout(type: TensorType, rows: number, columns: number, scaleWords = 0): MatrixLayout {
  const planes = planesOf(type);
  const blocksPerRow = columns / blockLayout(type).elements;
  const planeWords: number[] = [];
  let words = 0;
  for (const plane of planes) {
    planeWords.push(words);
    words += vec4Words * Math.ceil((rows * blocksPerRow * plane.bytes) / (4 * vec4Words));
  }
  if (type === 'F8_E4M3') planeWords.push(words);
  return {
    type,
    rows,
    columns,
    blocksPerRow,
    planeWords,
    totalWords: words + vec4Words * Math.ceil(scaleWords / vec4Words),
  };
}

/**
 * Moves whole blocks from a file's order into planes. `bytes` are rows `[firstRow, …)` of the matrix, `write` receives
 * each plane's piece with its byte offset in the buffer.
 */
export function splitPlanes(
  layout: MatrixLayout,
  firstRow: number,
  bytes: Uint8Array,
  write: (byteOffset: number, piece: Uint8Array) => void,
): void {
  const planes = planesOf(layout.type);
  const blockBytes = blockLayout(layout.type).bytes;
  const blocks = bytes.length / blockBytes;
  planes.forEach((plane, index) => {
    const offset = planeOffset(layout, index, firstRow);
    if (planes.length === 1) {
      write(offset, bytes);
      return;
    }
    write(offset, planeOf(bytes, blocks, blockBytes, plane));
  });
}

/** Byte offset of a row's part of a plane in the buffer. */
export function planeOffset({ type, planeWords, blocksPerRow }: MatrixLayout, plane: number, row: number): number {
  return 4 * (planeWords[plane] ?? 0) + row * blocksPerRow * (planesOf(type)[plane]?.bytes ?? 0);
}

/** Copies by words, because a large model has hundreds of millions of blocks. */
function planeOf(bytes: Uint8Array, blocks: number, blockBytes: number, plane: Plane): Uint8Array {
  const piece = new Uint8Array(blocks * plane.bytes);
  const [source, target] = [new DataView(bytes.buffer, bytes.byteOffset, bytes.length), new DataView(piece.buffer)];
  const wholeWords = plane.bytes - (plane.bytes % 4);
  for (let block = 0; block < blocks; block++) {
    const from = block * blockBytes + plane.from;
    const to = block * plane.bytes;
    for (let i = 0; i < wholeWords; i += 4) target.setUint32(to + i, source.getUint32(from + i, true), true);
    for (let i = wholeWords; i < plane.bytes; i++) target.setUint8(to + i, source.getUint8(from + i));
  }
  return piece;
}

// Uploads weights from files to the GPU: matrices in their own quantisation, in pieces that fit a binding.

/** Rows `[firstRow, firstRow + layout.rows)` of a matrix. */
interface MatrixPiece {
  readonly layout: MatrixLayout;
  readonly firstRow: number;
  readonly buffer: GPUBuffer;
}

export interface GpuMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly pieces: readonly MatrixPiece[];
  readonly blockScale?: BlockScaleShape;
}

function blockScaleOf({ blockScale, shape }: Weight): BlockScaleShape | undefined {
  if (!blockScale) return undefined;
  const { blockRows, blockColumns } = blockScale;
  const [, rowsPerMatrix] = shape.length === 3 ? shape : [];
  return { blockRows, blockColumns, ...(rowsPerMatrix !== undefined && { rowsPerMatrix }) };
}

/** Bytes read ahead and queued before waiting: bounds the memory of the host during the upload. */
const stagingBytes = 16 * 1024 * 1024;

/** A part of the files that is being uploaded. */
interface Transfer {
  /** Bytes of the files. */
  readonly bytes: number;
  /** Resolves when the part is read, to a function that uploads it. */
  readonly read: () => Promise<() => void>;
}

type UploadDevice = Pick<Gpu, 'allocate' | 'capabilities' | 'device' | 'throwIfFailed'>;

/** Creates buffers at once, so that kernels can be bound to them; `upload` fills them. */
export class Uploader {
  readonly #gpu: UploadDevice;
  readonly #options: LoadOptions;
  readonly #transfers: Transfer[] = [];

  constructor(gpu: UploadDevice, options: LoadOptions) {
    this.#gpu = gpu;
    this.#options = options;
  }

  /** All leading dimensions are rows; a piece of a stack has whole matrices. `empty`: `upload` doesn't fill it. */
  async matrix(weight: Weight, content: 'whole' | 'empty' = 'whole'): Promise<GpuMatrix> {
    const rows = rowsOf(weight.shape);
    const columns = columnsOf(weight.shape);
    const blockScale = blockScaleOf(weight);
    const scaleColumns = blockScale ? Math.ceil(columns / blockScale.blockColumns) : 0;
    const scaleWords = (count: number) => (blockScale ? scaleRowsOf(blockScale, count) * scaleColumns : 0);
    const pieces: MatrixPiece[] = [];
    const step = this.#rowsPerPiece(weight, rows, columns);
    for (let firstRow = 0; firstRow < rows; firstRow += step) {
      const count = Math.min(step, rows - firstRow);
      const layout = matrixLayout(weight.type, count, columns, scaleWords(count));
      const piece = { layout, firstRow, buffer: await this.#allocate(weight.name, layout.totalWords * 4) };
      if (content === 'whole') this.#streamRows(weight, piece);
      pieces.push(piece);
    }
    this.#streamScales(weight, pieces, scaleWords);
    return { rows, columns, pieces, ...(blockScale ? { blockScale } : {}) };
  }

  /** Norms, biases and sinks, as f32. */
  async vector(...weights: readonly Weight[]): Promise<GPUBuffer> {
    const bytes = weights.map(({ shape }) => 4 * rowsOf(shape) * columnsOf(shape));
    const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0);
    const buffer = await this.#allocate(weights[0]?.name ?? 'vector', sum(bytes));
    for (const [i, weight] of weights.entries()) {
      const offset = sum(bytes.slice(0, i));
      this.#add(weightBytesOf(weight), async () => {
        const values = await readValues(weight, 0, rowsOf(weight.shape));
        return () => this.#gpu.device.queue.writeBuffer(buffer, offset, values as Float32Array<ArrayBuffer>);
      });
    }
    return buffer;
  }

  /**
   * Fills every created buffer, in order.
   * @throws HearthError `cancelled`, `device-lost`, and errors of reading.
   */
  async upload(): Promise<void> {
    const { signal, onProgress } = this.#options;
    const { queue } = this.#gpu.device;
    const totalBytes = this.#transfers.reduce((sum, { bytes }) => sum + bytes, 0);
    let doneBytes = 0;
    let queuedBytes = 0;
    for await (const { bytes, write } of this.#readAhead()) {
      throwIfAborted(signal);
      this.#gpu.throwIfFailed();
      write();
      queuedBytes += bytes;
      doneBytes += bytes;
      // The queue copies written data; waiting here bounds the memory of the host.
      if (queuedBytes >= stagingBytes || doneBytes === totalBytes) {
        await queue.onSubmittedWorkDone();
        queuedBytes = 0;
      }
      onProgress?.({ doneBytes, totalBytes });
    }
  }

  /** Reads ahead while the previous part is split into planes and uploaded. */
  async *#readAhead(): AsyncGenerator<{ readonly bytes: number; readonly write: () => void }> {
    const begin = (transfer: Transfer | undefined) => {
      const reading = transfer?.read();
      // Awaited below, unless an earlier part fails.
      reading?.catch(() => undefined);
      return reading;
    };
    let next = begin(this.#transfers[0]);
    for (const [i, { bytes }] of this.#transfers.entries()) {
      const write = await next;
      next = begin(this.#transfers[i + 1]);
      if (write) yield { bytes, write };
    }
  }

  #rowsPerPiece(weight: Weight, rows: number, columns: number): number {
    const rowBytes = byteLengthOf(weight.type, [1, columns]);
    const most = Math.floor(this.#gpu.capabilities.maxPieceBytes / rowBytes);
    if (most >= rows) return rows;
    const unit =
      weight.shape.length === 3 ? (weight.shape.at(-2) ?? 1) : Math.max(4, weight.blockScale?.blockRows ?? 4);
    return Math.max(unit, most - (most % unit));
  }

  #allocate(name: string, bytes: number): Promise<GPUBuffer> {
    return this.#gpu.allocate(name, bytes, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST);
  }

  #add(bytes: number, read: Transfer['read']): void {
    this.#transfers.push({ bytes, read });
  }

  /** Multiples of four rows at a time, so that every plane's pieces start at a word. */
  #streamRows(weight: Weight, { layout, firstRow, buffer }: MatrixPiece): void {
    const rowBytes = byteLengthOf(weight.type, [1, layout.columns]);
    const step = Math.max(4, Math.floor(stagingBytes / rowBytes / 4) * 4);
    for (let row = 0; row < layout.rows; row += step) {
      const count = Math.min(step, layout.rows - row);
      this.#add(count * rowBytes, async () => {
        const bytes = await weight.readRows(firstRow + row, count);
        return () => splitPlanes(layout, row, bytes, (offset, plane) => this.#write(buffer, offset, plane));
      });
    }
  }

  #streamScales({ blockScale }: Weight, pieces: readonly MatrixPiece[], words: (rows: number) => number): void {
    if (!blockScale) return;
    this.#add(0, async () => {
      const scales = await blockScale.read();
      return () => {
        for (const { layout, firstRow, buffer } of pieces) {
          const own = scales.slice(words(firstRow), words(firstRow) + words(layout.rows));
          this.#gpu.device.queue.writeBuffer(buffer, (layout.planeWords[1] ?? 0) * 4, own);
        }
      };
    });
  }

  #write(buffer: GPUBuffer, offset: number, piece: Uint8Array): void {
    const padded =
      piece.length % 4 === 0
        ? piece
        : Uint8Array.from({ length: Math.ceil(piece.length / 4) * 4 }, (_, i) => piece[i] ?? 0);
    this.#gpu.device.queue.writeBuffer(buffer, offset, padded as Uint8Array<ArrayBuffer>);
  }
}
