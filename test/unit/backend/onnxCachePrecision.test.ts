/**
 * Keys and values in f16 on the CPU: each is rounded before any token attends to it. The logits equal those of a reference that
 * rounds in the same way, but not to the last bit: a value between two f16 values may round either way by the last bits of f32.
 * Neighbouring f16 values differ by 7e-4 of their size (2⁻¹¹ to 2⁻¹⁰), so relative noise of 2e-6 flips 3 in 1,000; each flipped
 * value has twelve times the squared error of a rounded one (s² instead of s²/12), in sum a thirtieth of the rounding's own
 * error. Noise of that size in the reference's own keys and values changed its logits by up to a 41st of it.
 */
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Backend, Decoder, LoadOptions } from '../../../engine/backend/backend.ts';
import { AttentionInputs } from '../../../engine/backend/onnx/attention.ts';
import { GraphBuilder } from '../../../engine/backend/onnx/graphBuilder.ts';
import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { cacheTensor, cacheValues } from '../../../engine/backend/onnx/keyValueCache.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { float16Values } from '../../../engine/formats/tensor.ts';
import { openModel } from '../../../engine/model/open.ts';
import { readGolden } from '../goldens.ts';
import { fixtureFile } from '../shared.ts';

/** Without 8-bit activations, whose noise is larger than the tested effect. */
const onnx = createOnnxBackend({ roundActivations: false });

async function load(backend: Backend, family: string, options: Partial<LoadOptions> = {}): Promise<Decoder> {
  const model = await openModel(fixtureFile(`goldens/${family}`));
  onTestFinished(() => model.file.close());
  const decoder = await backend.load(model.spec, model.weights, { contextTokens: 256, ...options });
  onTestFinished(() => decoder.dispose());
  return decoder;
}

/** A prompt, then several rows and single tokens behind it. */
async function logitsOf(decoder: Decoder, ids: readonly number[]): Promise<Float32Array> {
  const rows: number[] = [];
  const sequence = decoder.createSequence();
  for (const end of [50, 53, 54, 70, 71, 75, 76, 77]) {
    const tokens = ids.slice(sequence.length, end);
    for (const logits of await decoder.run([{ sequence, tokens, logits: 'all' }])) rows.push(...logits);
  }
  return Float32Array.from(rows);
}

/** Σ(a − b)² ÷ Σb² */
function squaredError(actual: Float32Array, expected: Float32Array): number {
  const sum = (values: Float32Array): number => values.reduce((total, value) => total + value * value, 0);
  return sum(actual.map((value, i) => value - (expected[i] ?? Number.NaN))) / sum(expected);
}

describe('keys and values in f16', () => {
  for (const family of ['llama', 'qwen3-moe', 'gpt-oss', 'deepseek-v3']) {
    it(`give the logits of a reference that rounds the same way: ${family}`, { timeout: 60_000 }, async () => {
      const { ids } = await readGolden(fixtureFile(`goldens/${family}/golden.safetensors`));
      const plain = await logitsOf(await load(referenceBackend, family), ids);
      const expected = await logitsOf(await load(referenceBackend, family, { cachePrecision: 'f16' }), ids);
      const actual = await logitsOf(await load(onnx, family), ids);
      const [moved, error] = [squaredError(expected, plain), squaredError(actual, expected)];
      expect(error).toBeLessThan(moved / 20);
    });
  }

  it('are rounded to the nearest f16, and clamped to the largest', async () => {
    const values = Float32Array.of(1, 2049, 2051, 1e-7, -1 / 3, 65519, 65520, -1e30);
    const graph = new GraphBuilder('');
    const inputs = new AttentionInputs(graph, 'float16');
    const given = graph.input('given', 'float32', ['values']);
    graph.output(inputs.rounded(given), 'kept', 'float16', ['values']);
    const session = await InferenceSession.create(graph.encode());
    onTestFinished(() => session.release());
    const { kept } = await session.run({ given: cacheTensor(values, [8]) });
    const found = Array.from(cacheValues(kept), (bits) => float16Values[bits]);
    expect(found).toEqual([1, 2048, 2052, 2 ** -23, -1365 / 4096, 65504, 65504, -65504]);
  });

  it('take half the memory of f32, are named on the model card, and have their own snapshot format', async () => {
    const [halves, floats, bytes] = [
      await load(onnx, 'llama'),
      await load(onnx, 'llama', { cachePrecision: 'f32' }),
      await load(onnx, 'llama', { cachePrecision: 'q8' }),
    ];
    const used: number[] = [];
    for (const decoder of [halves, floats, bytes]) {
      await decoder.run([{ sequence: decoder.createSequence(), tokens: new Array(200).fill(3), logits: 'none' }]);
      const { cacheBytes, cacheBytesPerValue } = decoder.memory();
      used.push(cacheBytes / cacheBytesPerValue);
      const shape = { tokens: 10, ranges: [[0, 10]] };
      // 2 heads of 16 values, keys and values; a block has room for 64 tokens at least.
      expect(decoder.serializer.pieceBytes(shape)).toEqual(new Array(3).fill(64 * 64 * cacheBytesPerValue));
    }
    expect([halves, floats, bytes].map((decoder) => decoder.memory().cacheBytesPerValue)).toEqual([2, 4, 2]);
    expect(new Set(used).size).toBe(1);
    expect(halves.serializer.format).not.toBe(floats.serializer.format);
    expect(halves.notes.join()).toContain('The KV cache is f16.');
    expect(floats.notes.join()).not.toContain('The KV cache is');
    expect(bytes.notes.join()).toContain('The KV cache is f16: the CPU backend has no smaller precision.');
  });
});
