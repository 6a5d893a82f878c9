/**
 * How a quantised matrix lies in GPU memory: the file's own bits, with each block's fields moved into planes, so that
 * packed values are whole aligned words. A plane holds one field of every block, row after row; nothing is rounded and
 * nothing grows, but for the padding at a plane's end.
 */
import { unsupported } from '../../../errors.ts';
import { blockLayout } from '../../../formats/blocks.ts';
import type { TensorType } from '../../../formats/tensor.ts';

/** A field of a block: bytes `[from, from + bytes)`. */
interface Plane {
  readonly from: number;
  readonly bytes: number;
}

const whole = (bytes: number): readonly Plane[] => [{ from: 0, bytes }];

/** Field offsets are those of ggml-common.h; packed values come first, so that plane 0 starts the buffer. */
const planesOf: Partial<Readonly<Record<TensorType, readonly Plane[]>>> = {
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
  const planes = planesOf[type];
  if (!planes) throw unsupported(`Weights of type ${type} cannot be computed on the GPU.`);
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
  const planes = planesOf[layout.type] ?? [];
  const blockBytes = blockLayout(layout.type).bytes;
  const blocks = bytes.length / blockBytes;
  const firstBlock = firstRow * layout.blocksPerRow;
  planes.forEach((plane, index) => {
    const offset = (layout.planeWords[index] ?? 0) * 4 + firstBlock * plane.bytes;
    if (planes.length === 1) {
      write(offset, bytes);
      return;
    }
    write(offset, planeOf(bytes, blocks, blockBytes, plane));
  });
}

/** By words: hundreds of millions of blocks of a large model go through here. */
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
