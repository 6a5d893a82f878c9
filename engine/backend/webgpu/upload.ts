/** From the weight files to the GPU: matrices in their own quantisation, in pieces no binding is too small for. */
import { throwIfAborted } from '../../errors.ts';
import { byteLengthOf } from '../../formats/blocks.ts';
import type { Weight } from '../../model/weights.ts';
import { readValues } from '../../model/weightValues.ts';
import { columnsOf, rowsOf, weightBytesOf } from '../../model/weightViews.ts';
import type { LoadOptions } from '../backend.ts';
import type { Gpu } from './gpu.ts';
import { type BlockScaleShape, scaleRowsOf } from './weightCode.ts';
import { type MatrixLayout, matrixLayout, splitPlanes } from './weightLayout.ts';

/** Rows `[firstRow, firstRow + layout.rows)` of a matrix. */
export interface MatrixPiece {
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

/** What the host holds at once while a matrix streams through. */
const stagingBytes = 16 * 1024 * 1024;

export class Uploader {
  readonly #gpu: Gpu;
  readonly #options: LoadOptions;
  readonly #totalBytes: number;
  readonly buffers: GPUBuffer[] = [];
  #doneBytes = 0;

  constructor(gpu: Gpu, options: LoadOptions, totalBytes: number) {
    this.#gpu = gpu;
    this.#options = options;
    this.#totalBytes = totalBytes;
  }

  /** All leading dimensions are rows; a piece of a stack holds whole matrices. */
  async matrix(weight: Weight): Promise<GpuMatrix> {
    const rows = rowsOf(weight.shape);
    const columns = columnsOf(weight.shape);
    const blockScale = blockScaleOf(weight);
    const scales = await weight.blockScale?.read();
    const scaleColumns = blockScale ? Math.ceil(columns / blockScale.blockColumns) : 0;
    const pieces: MatrixPiece[] = [];
    const step = this.#rowsPerPiece(weight, rows, columns);
    for (let firstRow = 0; firstRow < rows; firstRow += step) {
      const count = Math.min(step, rows - firstRow);
      const firstScale = blockScale ? scaleRowsOf(blockScale, firstRow) * scaleColumns : 0;
      const scaleWords = blockScale ? scaleRowsOf(blockScale, count) * scaleColumns : 0;
      const layout = matrixLayout(weight.type, count, columns, scaleWords);
      const buffer = await this.#allocate(weight.name, layout.totalWords * 4);
      await this.#stream(weight, firstRow, layout, buffer);
      if (scales) {
        const piece = scales.slice(firstScale, firstScale + scaleWords);
        this.#gpu.device.queue.writeBuffer(buffer, (layout.planeWords[1] ?? 0) * 4, piece);
      }
      pieces.push({ layout, firstRow, buffer });
    }
    return { rows, columns, pieces, ...(blockScale ? { blockScale } : {}) };
  }

  /** Norms, biases, sinks: small, as f32. */
  async vector(...weights: readonly Weight[]): Promise<GPUBuffer> {
    const values = await Promise.all(weights.map((weight) => readValues(weight, 0, rowsOf(weight.shape))));
    const all = new Float32Array(values.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of values) {
      all.set(part, at);
      at += part.length;
    }
    const buffer = await this.#allocate(weights[0]?.name ?? 'vector', all.byteLength);
    this.#gpu.device.queue.writeBuffer(buffer, 0, all);
    for (const weight of weights) this.#progress(weightBytesOf(weight));
    return buffer;
  }

  #rowsPerPiece(weight: Weight, rows: number, columns: number): number {
    const rowBytes = byteLengthOf(weight.type, [1, columns]);
    const most = Math.floor(this.#gpu.capabilities.maxPieceBytes / rowBytes);
    if (most >= rows) return rows;
    const unit =
      weight.shape.length === 3 ? (weight.shape.at(-2) ?? 1) : Math.max(4, weight.blockScale?.blockRows ?? 4);
    return Math.max(unit, most - (most % unit));
  }

  async #allocate(name: string, bytes: number): Promise<GPUBuffer> {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const buffer = await this.#gpu.allocate(name, bytes, usage);
    this.buffers.push(buffer);
    return buffer;
  }

  /** Whole multiples of four rows at a time, so that every plane's pieces start at a word. */
  async #stream(weight: Weight, firstRow: number, layout: MatrixLayout, buffer: GPUBuffer): Promise<void> {
    const rowBytes = byteLengthOf(weight.type, [1, layout.columns]);
    const step = Math.max(4, Math.floor(stagingBytes / rowBytes / 4) * 4);
    const read = (row: number): Promise<Uint8Array> => {
      const bytes = weight.readRows(firstRow + row, Math.min(step, layout.rows - row));
      // Awaited below, unless what comes before it fails.
      bytes.catch(() => undefined);
      return bytes;
    };
    let next = read(0);
    for (let row = 0; row < layout.rows; row += step) {
      throwIfAborted(this.#options.signal);
      const bytes = await next;
      // The disk works while this piece is moved into planes and to the GPU.
      if (row + step < layout.rows) next = read(row + step);
      splitPlanes(layout, row, bytes, (offset, piece) => this.#write(buffer, offset, piece));
      // The queue copies what is written to it; waiting here bounds what the host holds.
      await this.#gpu.device.queue.onSubmittedWorkDone();
      this.#progress(bytes.length);
    }
  }

  #write(buffer: GPUBuffer, offset: number, piece: Uint8Array): void {
    const padded =
      piece.length % 4 === 0
        ? piece
        : Uint8Array.from({ length: Math.ceil(piece.length / 4) * 4 }, (_, i) => piece[i] ?? 0);
    this.#gpu.device.queue.writeBuffer(buffer, offset, padded as Uint8Array<ArrayBuffer>);
  }

  #progress(bytes: number): void {
    this.#doneBytes += bytes;
    this.#options.onProgress?.({ doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
  }
}
