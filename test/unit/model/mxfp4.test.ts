import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { dequantise } from '../../../engine/formats/dequantise.ts';
import { toGgmlBlocks } from '../../../engine/model/families/gptOssWeights.ts';
import { describeShared, sharedFile } from '../shared.ts';

it('published byte j holds elements 2j and 2j + 1, ggml byte j holds elements j and j + 16', () => {
  const codes = Array.from({ length: 32 }, (_, i) => (7 * i + 3) % 16);
  const published = Uint8Array.from({ length: 16 }, (_, j) => (codes[2 * j] ?? 0) | ((codes[2 * j + 1] ?? 0) << 4));
  const ggml = Array.from({ length: 16 }, (_, j) => (codes[j] ?? 0) | ((codes[j + 16] ?? 0) << 4));
  expect([...toGgmlBlocks(published, Uint8Array.of(126))]).toEqual([126, ...ggml]);
});

describeShared('the published vector', ['reference/mxfp4_vectors.json'], () => {
  const vector = JSON.parse(readFileSync(sharedFile('reference/mxfp4_vectors.json'), 'utf8'));

  it('becomes the GGUF block bit for bit', () => {
    const blocks = toGgmlBlocks(Uint8Array.from(vector.safetensors_block_bytes), Uint8Array.of(vector.scale));
    expect([...blocks]).toEqual(vector.gguf_block_bytes);
  });

  it('stands for the values stated', () => {
    const blocks = toGgmlBlocks(Uint8Array.from(vector.safetensors_block_bytes), Uint8Array.of(vector.scale));
    expect([...dequantise('MXFP4', blocks)].map((value) => value + 0)).toEqual(vector.values);
  });
});
