/** Experts computed on the CPU for a decoder on a GPU, compared with the reference and with the upload's layout. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { computesExperts, expertRoles } from '../../../engine/backend/experts.ts';
import { type ExpertHost, openExperts } from '../../../engine/backend/ggml/experts.ts';
import { gatedNetwork } from '../../../engine/backend/reference/feedForward.ts';
import { loadDecoder } from '../../../engine/backend/reference/weights.ts';
import { matrixLayout, planesOf, splitPlanes } from '../../../engine/backend/webgpu/decoder/weightLayout.ts';
import { blockLayout, type TensorType } from '../../../engine/formats/tensor.ts';
import { openModel } from '../../../engine/model/open.ts';
import type { LayerWeights, Weight } from '../../../engine/model/weights/weights.ts';
import { readValues, rowsOf } from '../../../engine/model/weights/weightViews.ts';
import { randomNumbers } from '../../../scripts/shared/ggufWriter.ts';
import { goldenCases } from '../goldens.ts';

async function golden(name: string) {
  const found = goldenCases.find((each) => each.name === name);
  if (!found) throw new Error(`${name} is no golden`);
  const model = await openModel(found.path);
  onTestFinished(() => model.file.close());
  return model;
}

async function opened(...args: Parameters<typeof openExperts>): Promise<ExpertHost> {
  const host = await openExperts(...args);
  onTestFinished(() => host.end());
  return host;
}

/** `[tokens, hidden]`, and experts in turn. */
function someTokens(tokens: number, hiddenSize: number, numExperts: number, expertsPerToken: number) {
  const random = randomNumbers(7);
  const input = Float32Array.from({ length: tokens * hiddenSize }, () => 2 * random() - 1);
  return { input, chosen: Int32Array.from({ length: tokens * expertsPerToken }, (_, i) => (5 * i + 1) % numExperts) };
}

async function deviation(name: string, exact: boolean, tokens: number): Promise<number> {
  const { spec, weights } = await golden(name);
  const host = await opened({ spec, layers: weights.layers, exact }, { threads: 1 });
  const reference = await loadDecoder(spec, weights, (weight) => readValues(weight, 0, rowsOf(weight.shape)));
  const { hiddenSize, layers } = spec;
  let [squared, difference] = [0, 0];
  for (const [index, { feedForward }] of layers.entries()) {
    const layer = reference.layers[index]?.feedForward;
    if (feedForward.kind !== 'experts' || layer?.kind !== 'experts') continue;
    const { numExperts, expertsPerToken, activation } = feedForward;
    const { input, chosen } = someTokens(tokens, hiddenSize, numExperts, expertsPerToken);
    const output = await host.compute(index, input, chosen);
    expect(output).toHaveLength(chosen.length * hiddenSize);
    for (const [visit, expert] of chosen.entries()) {
      const token = Math.floor(visit / expertsPerToken);
      const own = input.subarray(token * hiddenSize, (token + 1) * hiddenSize);
      const expected = gatedNetwork(await layer.expert(expert), activation, own);
      for (const [i, value] of expected.entries()) {
        squared += value ** 2;
        difference += (value - (output[visit * hiddenSize + i] ?? Number.NaN)) ** 2;
      }
    }
  }
  expect(squared).toBeGreaterThan(0);
  return Math.sqrt(difference / squared);
}

describe('experts on the processor', () => {
  it.each([
    ['gpt-oss safetensors', 1],
    ['gpt-oss safetensors', 16],
    ['qwen3-moe safetensors', 3],
    ['glm4-moe safetensors', 2],
    ['deepseek-v3 safetensors', 5],
  ])('give the outputs of the reference for %s and %d tokens', async (name, tokens) => {
    expect(await deviation(name, true, tokens)).toBeLessThan(1e-6);
  });

  it('differ only by the rounding of activations to 8 bits, with MXFP4 weights', async () => {
    const rounded = await deviation('gpt-oss safetensors', false, 4);
    // Half a step of 1/127 of each block's largest value, in three products.
    expect(rounded).toBeGreaterThan(1e-4);
    expect(rounded).toBeLessThan(0.02);
  });

  it('refuse an expert that is not there, and compute the next ones', async () => {
    const { spec, weights } = await golden('gpt-oss safetensors');
    const host = await opened({ spec, layers: weights.layers.slice(0, 1) }, { threads: 1 });
    const { input, chosen } = someTokens(1, spec.hiddenSize, 8, 4);
    await expect(host.compute(0, input, Int32Array.of(0, 1, 2, 8))).rejects.toMatchObject({ code: 'unsupported' });
    await expect(host.compute(1, input, chosen)).rejects.toThrow('no experts of layer 1');
    expect(await host.compute(0, input, chosen)).toHaveLength(4 * spec.hiddenSize);
  });

  it('are no longer read once the load is cancelled', async () => {
    const { spec, weights } = await golden('gpt-oss safetensors');
    const stop = new AbortController();
    const onProgress = () => stop.abort();
    const loading = openExperts({ spec, layers: weights.layers }, { threads: 1, signal: stop.signal, onProgress });
    await expect(loading).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('are left to other backends if their weights have separate block scales', async () => {
    const computed = async (name: string) => computesExperts((await golden(name)).weights.layers);
    expect(await computed('deepseek-v3-fp8 safetensors')).toBe(false);
    expect(await computed('gpt-oss safetensors')).toBe(true);
  });
});

/** Two experts of random blocks. */
function randomLayer(type: TensorType): { readonly layer: LayerWeights; readonly bytes: Uint8Array } {
  const { elements, bytes: blockBytes } = blockLayout(type);
  const [experts, rows, columns] = [2, 8, 2 * elements];
  const rowBytes = 2 * blockBytes;
  const random = randomNumbers(3);
  const bytes = Uint8Array.from({ length: experts * rows * rowBytes }, () => Math.floor(256 * random()));
  const weight: Weight = {
    name: `random ${type}`,
    type,
    shape: [experts, rows, columns],
    readRows: async (first, count) => bytes.slice(first * rowBytes, (first + count) * rowBytes),
  };
  const linear = { weight };
  const feedForward = { kind: 'experts', router: linear, gate: linear, up: linear, down: linear };
  return { layer: { feedForward } as unknown as LayerWeights, bytes };
}

describe('the blocks of an expert', () => {
  const types = ['F32', 'BF16', 'Q8_0', 'Q4_0', 'Q5_1', 'Q4_K', 'Q6_K', 'IQ4_XS', 'MXFP4'] as const;

  it.each(types)('reach the GPU as the upload splits them: %s', async (type) => {
    const { layer, bytes } = randomLayer(type);
    const feedForward = { kind: 'experts', numExperts: 2, expertsPerToken: 1, activation: { kind: 'silu-gate' } };
    const spec = { hiddenSize: 8, layers: [{ feedForward }] } as unknown as Parameters<typeof openExperts>[0]['spec'];
    const host = await opened({ spec, layers: [layer] }, { threads: 1 });
    for (const role of expertRoles) {
      for (const expert of [1, 0]) {
        const half = bytes.slice((expert * bytes.length) / 2, ((expert + 1) * bytes.length) / 2);
        const pieces: Uint8Array[] = [];
        const columns = 2 * blockLayout(type).elements;
        splitPlanes(matrixLayout(type, 16, columns), 8 * expert, half, (_, piece) => pieces.push(piece));
        const fields = await host.fields?.(0, role, expert, planesOf(type));
        expect(Buffer.from(fields ?? []).equals(Buffer.concat(pieces))).toBe(true);
      }
    }
  });
});
