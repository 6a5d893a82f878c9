/** MXFP4 as GPT-OSS publishes it (separate blocks and scales) to ggml's 17-byte blocks: the same bits in another order. */
import type { TensorFile } from '../../formats/tensor.ts';
import type { Weight } from './weights.ts';
import { columnsOf } from './weightViews.ts';

const blockElements = 32;
const publishedBlockBytes = 16;
const ggmlBlockBytes = 17;

/** `blocks` U8 `[experts, rows, columns / 32, 16]` and `scales` U8 `[experts, rows, columns / 32]` as `shape`. */
export function publishedMxfp4(
  file: TensorFile,
  names: { readonly blocks: string; readonly scales: string },
  shape: readonly number[],
): Weight {
  const rowBlocks = columnsOf(shape) / blockElements;
  return {
    name: names.blocks,
    type: 'MXFP4',
    shape,
    async readRows(start, count) {
      const first = start * rowBlocks;
      const blockCount = count * rowBlocks;
      const [blocks, scales] = await Promise.all([
        file.read(names.blocks, first * publishedBlockBytes, blockCount * publishedBlockBytes),
        file.read(names.scales, first, blockCount),
      ]);
      return toGgmlBlocks(blocks, scales);
    },
  };
}

/**
 * Published byte j holds elements 2j (low nibble) and 2j + 1 (high); ggml's block is the scale byte, then bytes that
 * hold elements j and j + 16 (openai/gpt-oss gpt_oss/torch/weights.py; ggml-common.h block_mxfp4).
 */
export function toGgmlBlocks(blocks: Uint8Array, scales: Uint8Array): Uint8Array {
  const out = new Uint8Array(scales.length * ggmlBlockBytes);
  for (let block = 0; block < scales.length; block++) {
    const from = block * publishedBlockBytes;
    let to = block * ggmlBlockBytes;
    out[to++] = scales[block] ?? 0;
    for (let j = 0; j < 8; j++) {
      const front = blocks[from + j] ?? 0;
      const back = blocks[from + j + 8] ?? 0;
      out[to++] = (front & 0x0f) | ((back & 0x0f) << 4);
      out[to++] = (front >> 4) | (back & 0xf0);
    }
  }
  return out;
}
