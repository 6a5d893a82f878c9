import { describe, expect, it } from 'vitest';
import { createOnnxBackend } from '../../engine/backend/onnx/index.ts';
import { stageOf } from '../../engine/backend/split/decoder.ts';
import { createSplitBackend } from '../../engine/backend/split/index.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { gpuStageNeeds } from '../../engine/backend/webgpu/needs.ts';
import { openModel } from '../../engine/model/open.ts';
import { describeModel } from '../../engine/model/spec/describe.ts';
import { checkGolden, expectGoldenLogits, float32Bounds, goldenCases, readGolden } from '../unit/goldens.ts';
import { layersOf, splitAt } from '../unit/stages.ts';
import { askedGoldens, onLavapipe } from './adapters.ts';

const onnx = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });
/** Each load opens a device of its own, so two stages are two cards. */
const gpu = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/**
 * GPT-OSS stands for all: test/unit/backend/split.test.ts has every family and border. HEARTH_TEST_GOLDENS=all: the GPU before the CPU too,
 * and every router's experts.
 */
const all = askedGoldens !== undefined;
const uneven = /in uneven chunks/;

await onLavapipe(async () => {
  for (const golden of goldenCases.filter(({ name }) => name === 'gpt-oss safetensors')) {
    const layers = await layersOf(golden);
    const pairs = [[onnx, gpu], [gpu, gpu], ...(all ? [[gpu, onnx]] : [])];
    for (const backends of pairs) {
      checkGolden(splitAt([layers - 1, 1], backends), golden, float32Bounds, {}, uneven);
    }
    checkGolden(splitAt([1, layers - 1], [gpu]), golden, float32Bounds, {}, /two sequences in one run/);
  }

  // Experts that the GPU has no memory for, sent as tokens choose them or computed on the CPU: of all layers but one, or of all, also beside shared ones.
  const outside = all ? /^(gpt-oss|qwen3-moe|glm4-moe|deepseek-v3) saf/ : /^gpt-oss saf/;
  for (const golden of goldenCases.filter(({ name }) => outside.test(name))) {
    const layers = await layersOf(golden);
    const own = golden.name.startsWith('gpt-oss') ? layers - 1 : layers;
    const checked = (computed: 'as stored' | 'exact' | undefined, wanted: RegExp, threads?: number) => {
      const experts = { layers: own, ...(computed && { computed }) };
      const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32', outside: experts });
      checkGolden(splitAt([layers], [backend]), golden, float32Bounds, { ...(threads && { threads }) }, wanted);
    };
    checked(undefined, uneven);
    // With five threads 17 tokens are computed as well, and 64 are sent.
    checked('exact', uneven, 5);
    checked('exact', /greedy|two sequences in one/);
    // All are sent: nothing is rounded.
    checked('as stored', /for a whole prompt/, 1);
  }

  describe('a GPU whose memory holds some of the layers', someLayers);
});

function someLayers(): void {
  it('computes these and the CPU the rest, to the golden logits', async () => {
    // Its weights are floats, whose products the CPU backend doesn't round.
    const golden = goldenCases.find(({ name }) => name === 'llama safetensors');
    if (!golden) throw new Error('there is no such golden');
    const { spec, weights, file } = await openModel(golden.path);
    const expected = await readGolden(golden.golden);
    const stage = stageOf(spec, weights, { first: spec.layers.length - 1, end: spec.layers.length });
    const device = await Gpu.open();
    const needs = await gpuStageNeeds(device.capabilities, spec, { precision: 'f32', asked: 256 });
    device.dispose();
    const { weightBytes, scratchBytes, cacheBytes } = needs(stage.spec, describeModel(stage).weightBytes);
    // Of shared memory, as software's, a tenth stays free.
    const memoryBytes = Math.ceil((weightBytes + scratchBytes + cacheBytes(256)) / 0.9) + 1;
    const backend = createSplitBackend({ gpu: { validate: true, atMost: { memoryBytes } } });
    const decoder = await backend.load(spec, weights, { contextTokens: 256, cachePrecision: 'f32' });
    expect(decoder.notes[0]).toMatch(/^1 of \d+ layers run on the GPU \(.+\), \d+ on the CPU: /);
    const sequence = decoder.createSequence();
    for (const first of [0, 25]) {
      await decoder.submit?.([{ sequence, tokens: expected.ids.slice(first, first + 25), logits: 'none' }]);
    }
    const [logits = new Float32Array()] = await decoder.run([
      { sequence, tokens: expected.ids.slice(50, 120), logits: 'all' },
    ]);
    expectGoldenLogits(logits, 50, { ...float32Bounds, expected, decoder, figures: { golden: golden.name } });
    sequence.dispose();
    await decoder.dispose();
    await file.close();
  });
}
