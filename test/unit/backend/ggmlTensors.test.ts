/** Tensors that ggml gets for a model's weights, and the embedding rows that stay in the file. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { tensorsOf } from '../../../engine/backend/ggml/tensors.ts';
import { EmbeddingRows } from '../../../engine/backend/processor/embeddingRows.ts';
import type { Weight } from '../../../engine/model/weights/weights.ts';
import { loadDecoder } from '../../../engine/runtime/backends.ts';
import { randomModel } from '../randomModel.ts';

async function joined(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

const stored = async ({ readRows, shape: [rows = 0] }: Weight): Promise<Buffer> => Buffer.from(await readRows(0, rows));

describe('matrices with one input', () => {
  it('are one tensor if they have one type: their rows, one after the other', async () => {
    const { spec, weights } = await randomModel('Q4_0');
    const tensors = new Map(tensorsOf(spec, weights, false).map((tensor) => [tensor.key, tensor]));
    const [layer] = weights.layers;
    if (layer?.attention.kind !== 'grouped-query' || layer.feedForward.kind !== 'dense') throw new Error('not llama');
    const { query, key, value } = layer.attention;
    const attention = tensors.get('0.attention.query+key+value');
    expect(attention?.sizes).toEqual([256, 256 + 2 * 128]);
    const inFile = await Promise.all([query, key, value].map(({ weight }) => stored(weight)));
    expect(attention && (await joined(attention.read()))).toEqual(Buffer.concat(inFile));
    expect(attention?.byteLength).toBe(Buffer.concat(inFile).length);
    expect(tensors.get('0.feedForward.gate+up')?.sizes).toEqual([256, 1024]);
    expect(tensors.has('0.attention.key')).toBe(false);
  });

  it('stay apart where types differ: Q4_K_M has values in Q6_K', async () => {
    const { spec, weights } = await randomModel('Q4_K_M');
    const keys = tensorsOf(spec, weights, false).map(({ key }) => key);
    expect(keys).toContain('0.attention.query+key');
    expect(keys).toContain('0.attention.value');
  });

  it.each(['Q8_0', 'Q4_K_M'] as const)('give the logits of the reference with %s', async (type) => {
    const { spec, weights } = await randomModel(type);
    const logitsOn = async (backend: 'ggml' | 'reference') => {
      const { decoder } = await loadDecoder(backend, spec, weights, { contextTokens: 256, threads: 2 });
      onTestFinished(() => decoder.dispose());
      const sequence = decoder.createSequence();
      const [prompt = new Float32Array()] = await decoder.run([{ sequence, tokens: [5, 6, 7], logits: 'all' }]);
      const [next = new Float32Array()] = await decoder.run([{ sequence, tokens: [8], logits: 'last' }]);
      return [...prompt, ...next];
    };
    const [own, exact] = [await logitsOn('ggml'), await logitsOn('reference')];
    const error = own.reduce((sum, value, i) => sum + (value - (exact[i] ?? 0)) ** 2, 0);
    const size = exact.reduce((sum, value) => sum + value ** 2, 0);
    // Activations are rounded to int8: 0.012 and 0.020. Rows of another matrix would give about 1.4.
    expect(Math.sqrt(error / size)).toBeLessThan(0.05);
  });
});

describe('embedding rows', () => {
  /** Row `token` is `[token, token + 0.5, token, …]`. */
  const embedding = (hiddenSize: number, reads: number[]): Weight => ({
    name: 'embedding',
    type: 'F32',
    shape: [100_000, hiddenSize],
    async readRows(start, count) {
      for (let row = start; row < start + count; row++) reads.push(row);
      const values = Float32Array.from({ length: count * hiddenSize }, (_, i) => {
        return start + Math.floor(i / hiddenSize) + (i % 2) / 2;
      });
      return new Uint8Array(values.buffer);
    },
  });

  it('are read once while they are kept, and come in the order of the tokens', async () => {
    const reads: number[] = [];
    const rows = new EmbeddingRows({ hiddenSize: 2 }, embedding(2, reads));
    expect([...(await rows.of([7, 3, 7]))]).toEqual([7, 7.5, 3, 3.5, 7, 7.5]);
    expect([...(await rows.of([3, 9]))]).toEqual([3, 3.5, 9, 9.5]);
    expect(reads).toEqual([7, 3, 9]);
  });

  it('are kept up to 4 MiB, the most recently used ones', async () => {
    const reads: number[] = [];
    // A row takes 1 MiB, so four are kept.
    const rows = new EmbeddingRows({ hiddenSize: 2 ** 18 }, embedding(2 ** 18, reads));
    for (const token of [1, 2, 3, 4, 1, 5, 1, 2]) {
      expect((await rows.of([token]))[1]).toBe(token + 0.5);
    }
    expect(reads).toEqual([1, 2, 3, 4, 5, 2]);
    // More than are kept at once.
    expect((await rows.of([1, 2, 3, 4, 5, 6])).filter((_, i) => i % 2 ** 18 === 0)).toEqual(
      Float32Array.of(1, 2, 3, 4, 5, 6),
    );
  });

  it('are scaled once', async () => {
    const rows = new EmbeddingRows({ hiddenSize: 2, embeddingScale: 4 }, embedding(2, []));
    expect([...(await rows.of([3]))]).toEqual([12, 14]);
    expect([...(await rows.of([3]))]).toEqual([12, 14]);
  });
});
