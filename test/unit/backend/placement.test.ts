import { beforeAll, describe, expect, it } from 'vitest';
import { DoesNotFit, type MemoryPool } from '../../../engine/backend/memoryPlan.ts';
import { buildDecoderGraph } from '../../../engine/backend/onnx/decoderGraph.ts';
import { packedBytesOf } from '../../../engine/backend/onnx/weightsFile.ts';
import { type Card, planSplit } from '../../../engine/backend/split/index.ts';
import { openModel } from '../../../engine/model/open.ts';
import { listWeights } from '../../../engine/model/weights/specTensors.ts';
import { type BenchModel, models, weightsOf } from '../../../scripts/kernels/models.ts';
import { goldenCases } from '../goldens.ts';

const GiB = 2 ** 30;

const modelOf = (name: string): BenchModel => {
  const found = models.find((model) => model.name === name);
  if (!found) throw new Error(`${name} is not listed`);
  return found;
};
const gptOss20b = modelOf('gpt-oss-20b');
/** openai/gpt-oss-120b config.json: 36 layers of 128 experts, otherwise as the small one. */
const gptOss120b: BenchModel = {
  ...gptOss20b,
  name: 'gpt-oss-120b',
  spec: {
    ...gptOss20b.spec,
    layers: Array.from({ length: 36 }, (_, i) => {
      const layer = gptOss20b.spec.layers[i % 2];
      if (layer?.feedForward.kind !== 'experts') throw new Error('every layer has experts');
      return { ...layer, feedForward: { ...layer.feedForward, numExperts: 128 } };
    }),
  },
};

const memoryOf = (gibibytes: number) => ({ totalBytes: gibibytes * GiB, availableBytes: gibibytes * GiB });

interface Options {
  readonly asked?: number;
  /** Of the CPU; default: 8. */
  readonly cores?: number;
  readonly noGgml?: string;
}

/** ONNX Runtime's layers, and no experts on the CPU. */
const layersOnly = { noGgml: 'There is no ggml.' };

/** The plan for cards and a machine of so many GiB with nothing else on them. */
async function planned(model: BenchModel, cardGiB: readonly number[], hostGiB: number, options: Options = {}) {
  const cards = cardGiB.map((gibibytes, i): Card => {
    const memory = { vendor: 'nvidia', name: `card ${i}`, unified: false, totalBytes: gibibytes * GiB };
    return { capabilities: { maxBindingBytes: 4 * GiB }, memory: { ...memory, freeBytes: gibibytes * GiB } };
  });
  const host: MemoryPool = { kind: 'host', name: 'the host', ...memoryOf(hostGiB) };
  const weights = weightsOf(model);
  const planOptions = { precision: 'f16', asked: undefined, gpu: {}, cores: 8, ...options } as const;
  const plan = await planSplit({ spec: model.spec, weights }, cards, planOptions, host);
  return { ...plan, shown: plan.stages.map(({ backend, layers }) => `${backend.name} ${layers}`).join(', ') };
}

beforeAll(() => {
  Object.assign(globalThis, { GPUBufferUsage: { STORAGE: 1, COPY_SRC: 2, COPY_DST: 4, MAP_READ: 8, UNIFORM: 16 } });
});

describe('the placement of layers', () => {
  // By hand, in GB: what is usable of the cards (all but 5 %, 512 MB at least) less head and scratch (0.16), by a layer with its
  // cache of 8,192 tokens. The fastest card is filled first and computes last; the host gets the rest.
  it.each([
    // Experts 0.423 (32 · 3 · 2880² in 4.25 bits), attention 0.028, biases 0.001, cache 0.016; head 0.615: 7.30 / 0.468.
    ['gpt-oss-20b', [8], 32, gptOss20b, 'onnx 9, webgpu 15'],
    ['gpt-oss-20b', [12], 32, gptOss20b, 'webgpu 24'],
    // 6.23 / 0.468, and room for 14 without the head.
    ['gpt-oss-20b', [7, 7], 32, gptOss20b, 'webgpu 11, webgpu 13'],
    // Four times the experts: 23.7 / 1.74, and 24.3 / 1.74 without the head. On the CPU 3.62 GB a layer: nine bits a weight.
    ['gpt-oss-120b', [24], 128, gptOss120b, 'onnx 23, webgpu 13'],
    ['gpt-oss-120b', [24, 24], 96, gptOss120b, 'onnx 10, webgpu 13, webgpu 13'],
    // Experts 0.392 in 4.5 and 6.56 bits, attention 0.012, cache 0.019; head 0.255: 11.86 / 0.423.
    ['Qwen3-30B-A3B', [12], 32, modelOf('Qwen3-30B-A3B Q4_K_M'), 'onnx 20, webgpu 28'],
    // 0.123, and 0.038 of cache; head 0.511: 3.14 / 0.160.
    ['Qwen3-8B', [4], 16, modelOf('Qwen3-8B Q4_K_M'), 'onnx 17, webgpu 19'],
  ] as const)('of %s with cards of %j GiB and a machine of %d GiB', async (_, cardGiB, hostGiB, model, expected) => {
    const { shown, contextTokens } = await planned(model, cardGiB, hostGiB, layersOnly);
    expect(shown).toBe(expected);
    expect(contextTokens).toBeGreaterThanOrEqual(8192);
  });

  it('puts fewer layers on the card for a longer context', async () => {
    const { shown, contextTokens } = await planned(gptOss20b, [8], 32, { ...layersOnly, asked: 131_072 });
    expect(contextTokens).toBe(131_072);
    // 0.27 GB of cache in each second layer, 0.09 in those with a window.
    expect(shown).toBe('onnx 13, webgpu 11');
  });

  it('is stated on the model card', async () => {
    const whole = await planned(gptOss20b, [12], 32);
    expect(whole.note).toBe('All 24 layers run on the GPU (card 0). Embeddings are read from the file.');
    expect((await planned(gptOss20b, [8], 32, layersOnly)).note).toBe(
      "15 of 24 layers run on the GPU (card 0), 9 on the CPU: the model is larger than one GPU's memory.",
    );
  });

  it('sends experts to the card if the CPU has too little memory for its layers and computes no experts alone', async () => {
    const { shown, note, contextTokens } = await planned(gptOss120b, [24], 64, layersOnly);
    expect(shown).toBe('webgpu 36');
    expect(note).toMatch(
      /^The experts of 25 of 36 layers stay in the machine's memory and are sent .*There is no ggml\.$/,
    );
    expect(contextTokens).toBeGreaterThanOrEqual(8192);
  });

  // By hand, in GB: what is usable of the card as above, less all that is not experts (with cache) and buffers as large as one layer's
  // experts, by the experts of a layer. Those of the others stay in memory in the file's bits. With two cores, prompts decide against layers.
  it.each([
    // 7.30 less 24 · 0.045 and 0.423, by 0.423: 13.
    ['gpt-oss-20b', 8, 32, 8, gptOss20b, 11, 24],
    // 11.86 less 48 · 0.031 and 0.392, by 0.392: 25.
    ['Qwen3-30B-A3B', 12, 32, 2, modelOf('Qwen3-30B-A3B Q4_K_M'), 23, 48],
    // 20.27 by 1.692: 11. Experts of 25 are 42.3 GB.
    ['gpt-oss-120b', 24, 64, 2, gptOss120b, 25, 36],
    ['gpt-oss-120b', 24, 128, 2, gptOss120b, 25, 36],
  ] as const)(
    'leaves experts of %s with a card of %d GiB, a machine of %d GiB and %d cores to the CPU, and all else to the card',
    async (_, cardGiB, hostGiB, cores, model, outside, layers) => {
      const { shown, note, contextTokens } = await planned(model, [cardGiB], hostGiB, { cores });
      expect(shown).toBe(`webgpu ${layers}`);
      expect(note).toBe(
        `The experts of ${outside} of ${layers} layers stay in the machine's memory: the CPU computes them for few tokens at once; for many they are sent to the GPU (card 0), which computes all else.`,
      );
      expect(contextTokens).toBeGreaterThanOrEqual(8192);
    },
  );

  // By hand, for 300 tokens of an answer: 20 of 48 layers are 0.835 GB at 25 GB/s, the others 1.169 at 134; with two crossings 44 ms a
  // token. Experts of 23 layers are 0.563 GB at 25 GB/s, all else 1.441 at 134; with 24 crossings 57 ms. Prompts take 3.7 and 3.2 ms.
  it('leaves whole layers to the CPU where that is estimated to be faster than experts', async () => {
    const { shown, computing } = await planned(modelOf('Qwen3-30B-A3B Q4_K_M'), [12], 32);
    expect(shown).toBe('ggml 20, webgpu 28');
    expect(computing).toMatchObject({ kind: 'split', cardShare: 1 - 20 / 48, packing: 1 });
  });

  it('leaves whole layers to the CPU beside several cards, and where a model has no experts', async () => {
    expect((await planned(gptOss120b, [24, 24], 96)).shown).toBe('ggml 10, webgpu 13, webgpu 13');
    expect((await planned(modelOf('Qwen3-8B Q4_K_M'), [4], 16)).shown).toBe('ggml 17, webgpu 19');
  });

  it('fails if neither has enough memory', async () => {
    await expect(planned(gptOss120b, [24], 32)).rejects.toThrow(DoesNotFit);
    await expect(planned(modelOf('Qwen3-8B Q4_K_M'), [2], 4)).rejects.toThrow(DoesNotFit);
    await expect(planned(gptOss120b, [2], 256)).rejects.toThrow(/Not one of 36 layers fits the memory of card 0/);
  });
});

describe('the memory that the CPU backend packs weights into', () => {
  it.each(goldenCases.map(({ name, path }) => [name, path]))('is counted as it is laid out for %s', async (_, path) => {
    const { spec, weights, file } = await openModel(path);
    const { layout } = buildDecoderGraph(spec, weights, { weightsFile: '', accuracyLevel: 4, cacheType: 'float16' });
    const counted = packedBytesOf(weights);
    // Tensors start at multiples of 64 bytes, large ones of 64 KiB.
    const tensors = listWeights(weights).length * 200;
    expect(layout.byteLength).toBeGreaterThanOrEqual(counted);
    expect(layout.byteLength - counted).toBeLessThan(64 * tensors + 65_536 * 100);
    await file.close();
  });
});
