/**
 * The self-check against planted faults: a line of the generated WGSL is changed, the model is loaded as the engine loads it, and must still
 * answer with the golden text (Hugging Face transformers): without the features that the fault is in, or on the CPU.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Decoder } from '../../engine/backend/backend.ts';
import { onnxBackend } from '../../engine/backend/onnx/index.ts';
import { argmax, greedy } from '../../engine/backend/sampler.ts';
import { bounds, checkNotes, errorOn, prepareCheck } from '../../engine/backend/webgpu/check/selfCheck.ts';
import { defaultTuning } from '../../engine/backend/webgpu/device/adapter.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { openModel } from '../../engine/model/open.ts';
import type { CachePrecision } from '../../engine/protocol/models.ts';
import { type Candidate, type LoadedDecoder, loadDecoder } from '../../engine/runtime/backends.ts';
import { models, weightsOf } from '../../scripts/kernels/models.ts';
import { readGolden } from '../unit/goldens.ts';
import { describeUnless, fixtureFile } from '../unit/shared.ts';
import { askedGoldens, lavapipe } from './adapters.ts';

const everything = askedGoldens === 'all';
const onSwiftshader =
  lavapipe && !everything ? 'npm test runs it on SwiftShader, npm run proof:gpu on both' : undefined;

/** One device for all loads, so that only changed kernels are compiled anew. */
let gpu: Gpu;
let asOpened: Gpu['capabilities'];
let kernel: Gpu['kernel'];
const taken: GPUBuffer[] = [];

beforeAll(async () => {
  gpu = await Gpu.open({ validate: true });
  asOpened = gpu.capabilities;
  kernel = gpu.kernel.bind(gpu);
});
afterAll(() => gpu.dispose());

beforeEach(() => {
  gpu.capabilities = asOpened;
  const allocate = gpu.allocate.bind(gpu);
  vi.spyOn(Gpu, 'open').mockResolvedValue(gpu);
  vi.spyOn(gpu, 'dispose').mockImplementation(() => {
    for (const buffer of taken.splice(0)) buffer.destroy();
  });
  vi.spyOn(gpu, 'allocate').mockImplementation(async (...request) => {
    const buffer = await allocate(...request);
    taken.push(buffer);
    return buffer;
  });
});
afterEach(() => vi.restoreAllMocks());

/** A part of the kernel's label, what stands in its code, what stands there instead. */
type Fault = readonly [label: string, from: string, to: string];

/** @returns the labels of the kernels that were changed so far. */
function plant([label, from, to]: Fault): ReadonlySet<string> {
  const changed = new Set<string>();
  vi.spyOn(gpu, 'kernel').mockImplementation((source) => {
    if (!source.label.startsWith(label) || !source.code.includes(from)) return kernel(source);
    changed.add(source.label);
    return kernel({ ...source, code: source.code.replaceAll(from, to) });
  });
  return changed;
}

const backends: readonly Candidate[] = [
  { name: 'webgpu', open: async () => createWebgpuBackend({ selfCheck: true, compileAhead: false }) },
  { name: 'onnx', open: async () => onnxBackend },
];

async function load(
  name: string,
  cacheDirectory?: string,
  cachePrecision: CachePrecision = 'f32',
): Promise<LoadedDecoder> {
  const model = await openModel(fixtureFile(`goldens/${name}`));
  try {
    const options = { contextTokens: 256, cachePrecision, ...(cacheDirectory && { cacheDirectory }) };
    return await loadDecoder('auto', model.spec, model.weights, options, backends);
  } finally {
    await model.file.close();
  }
}

/** Greedy: two tokens from logits, then two that the device samples, if it does. */
async function answer(decoder: Decoder, ids: readonly number[]): Promise<number[]> {
  const sequence = decoder.createSequence();
  const chosen: number[] = [];
  const next = async (tokens: readonly number[]): Promise<void> => {
    const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens, logits: 'last' }]);
    chosen.push(argmax(logits));
  };
  await next(ids);
  await next(chosen.slice(-1));
  const history = { sequence: new Set(ids), generated: new Set<number>() };
  const common = { sequence, rules: greedy, history, uniforms: [0, 0], stopIds: new Set<number>(), forbidden: [] };
  const [drawn = []] = (await decoder.deviceSampling?.sample([{ ...common, token: chosen.at(-1) ?? 0 }], 2)) ?? [];
  return [...chosen, ...drawn];
}

/** The model answers right, and says what it does without. */
async function expectRight(name: string, fault: Fault): Promise<void> {
  const golden = await readGolden(fixtureFile(`goldens/${name}/golden.safetensors`));
  const changed = plant(fault);
  const { decoder, notes } = await load(name);
  expect([...changed]).not.toEqual([]);
  const said = [...notes, ...decoder.notes].join(' ');
  expect(said).toMatch(decoder.backend === 'webgpu' ? /^.*Switched off, since results were wrong/s : /self-check/);
  const text = await answer(decoder, golden.ids);
  expect(text).toEqual(golden.greedy.slice(0, text.length));
  await decoder.dispose();
}

const faults: Readonly<Record<string, readonly Fault[]>> = {
  'gpt-oss': [
    ['embed', 'weight[at + 1u]', 'weight[at]'],
    ['projectHeads', 'y.x * first.x - y.z * first.y', 'y.x * first.x + y.z * first.y'],
    ['projectHeads', 'bias[b.w]', 'bias[b.z]'],
    ['projectHeads', 'row.position % 32u', '(row.position + 1u) % 32u'],
    ['projectHeads', '/ 128.0', '/ 120.0'],
    ['projectHeads', '2u * slot + vec4u(0u, 1u, 16u, 17u)', '2u * slot + vec4u(0u, 1u, 16u, 16u)'],
    ['attention ', 'position <= own', 'position < own'],
    ['attention ', 'exp(before - highest)', '1.0'],
    ['attention ', 'p[3] * block', 'p[2] * block'],
    ['attention ', '0.1767766952966369', '0.17'],
    ['attention ', 'first_head + r % 4u', 'first_head + r % 2u'],
    ['attentionMerge', 'exp(part.x - highest)', '1.0'],
    ['attentionMerge', 'exp(sinks[group.x] - highest)', '0.0'],
    ['matrixVector', 'rows.w', 'rows.z'],
    ['matrixVector', '+ y[at]', ''],
    ['matrixVector', 'bias[FIRST_ROW + row]', '0.0'],
    ['gatedVector', '(u + 1.0)', 'u'],
    ['gatedVector', '-1.702 * g', '-1.0 * g'],
    ['gatedVector', '+ gate_bias[row / 4u]', '+ up_bias[row / 4u]'],
    ['gatedVector', '(values > own)', '(values >= own)'],
    ['gatedVector', 'exp(own - largest) / sum', '1.0 / sum'],
    ['expertsDown', 'sum += weights[visit] * product', 'sum += product'],
    ['expertsDown', 'bias[chosen[visit] *', 'bias[0u * chosen[visit] *'],
    ['rmsNorm', '/ 128.0', '/ 120.0'],
    ['prepareHeads', 'select(-other, other, upper)', 'other'],
    ['groupExperts', 'min(count[expert] - done,', 'min((count[expert] - done) / 2u,'],
    ['router', '(values > own)', '(values < own)'],
    ['activation', '(u + 1.0)', '(u + 1.5)'],
    ['combineExperts', 'weights[visit] *', '0.5 *'],
    ['sampleChunks', '(id & 31u)) & 1u) != 0u', '(id & 31u)) & 1u) > 1u'],
    ['sampleDraw', 'before <= uniform_value * list_mass', 'before <= 0.5 * uniform_value * list_mass'],
    ['sampleDraw', 'rule.top_p * totals[0].x', '0.5 * rule.top_p * totals[0].x'],
  ],
  qwen3: [
    ['jointVector', 'gain[quads.x + 2u]', 'gain[quads.x + 1u]'],
    ['prepareHeads', 'scale * norms', 'norms'],
    ['gatedVector', 'exp(min(-g, vec4f(80.0)))', 'exp(min(g, vec4f(80.0)))'],
    ['activation', 'exp(min(-g, vec4f(80.0)))', 'exp(min(g, vec4f(80.0)))'],
  ],
  'deepseek-v3-fp8': [
    ['prepareLatent', 'rotate(i + 2u, token)', 'rotate(i + 1u, token)'],
    ['prepareLatent', 'latent[start + quad] * gain[quad]', 'latent[start + quad]'],
    ['attention ', '= rope_query[', '= 0.5 * rope_query['],
    ['router sigmoid', 'before >= 2u', 'before >= 3u'],
  ],
  'qwen3-next': [
    ['delta ', 'betas[at] *', '0.5 *'],
    ['delta ', 'select(states[place', 'select(0.5 * states[place'],
    ['deltaSteps', 'max(raw, 0.0)', 'raw'],
    ['convolution', 'last[i] = states[place + i]', 'last[i] = 0.0'],
    ['gatedNorm', '* gain[i]', ''],
    ['sigmoidGate', 'exp(min(-gate', 'exp(min(gate'],
  ],
  starcoder2: [
    ['layerNorm', '(x[first + i] - mean) * gain', 'x[first + i] * gain'],
    ['layerNorm', '+ gain[32u + i]', ''],
    ['matrixVector', 'gelu(totals', '(totals'],
  ],
  'minimax-m2': [
    ['jointNorm', 'query[first + i] *= norms[0u + i] * scale', 'query[first + i] *= norms[0u + i]'],
    ['jointNorm', 'squares += key[first + i] * key[first + i]', 'squares += vec4f(1.0)'],
  ],
  mistral3: [
    ['projectHeads', 'y *= query_factor(token);', ''],
    ['prepareHeads', '* query_factor(token)', ''],
  ],
};

describeUnless(onSwiftshader, 'each of 53 planted faults is found, and the model answers right', () => {
  it('53 are planted', () => {
    expect(Object.values(faults).flat()).toHaveLength(53);
  });
  for (const [name, planted] of Object.entries(faults)) {
    // All of them take two minutes: HEARTH_TEST_GOLDENS=all.
    it.each(planted.filter((_, i) => everything || i % 3 === 0))(`${name}: %s: %s instead of %s`, (...fault) =>
      expectRight(name, fault),
    );
  }
});

describe('without faults', () => {
  it.each(['gpt-oss', 'qwen3', 'deepseek-v3-fp8', 'qwen3-next', 'starcoder2', 'mistral3'])(
    '%s passes whatever the cache precision',
    async (name) => {
      const model = await openModel(fixtureFile(`goldens/${name}`));
      // Lavapipe compiles each kernel for seconds; f16 is the default.
      const all = !lavapipe || everything || name === 'gpt-oss';
      for (const precision of all ? (['f32', 'f16', 'q8'] as const) : (['f16'] as const)) {
        const checked = prepareCheck(model, precision, true);
        expect(await errorOn(gpu, checked)).toBeLessThan(bounds[precision] / 10);
      }
      await model.file.close();
    },
  );

  it('a check that passed is remembered by device and driver, and reported', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'hearth-check-'));
    expect(await checkNotes(asOpened, directory)).toEqual([expect.stringContaining('not run yet')]);
    const checking = new Map<string, string>();
    vi.spyOn(gpu, 'kernel').mockImplementation((source) => {
      checking.set(source.code, source.label);
      return kernel(source);
    });
    await (await load('qwen3', directory)).decoder.dispose();
    expect(readFileSync(join(directory, 'gpu-checks.json'), 'utf8')).toContain(asOpened.description);
    expect(await checkNotes(asOpened, directory)).toEqual([expect.stringContaining('as the reference for one kind')]);
    const compiled = new Set<string>();
    vi.spyOn(gpu, 'kernel').mockImplementation((source) => {
      compiled.add(source.code);
      return kernel(source);
    });
    const { decoder } = await load('qwen3', directory);
    await decoder.dispose();
    // Of a model as small as this the check compiles what the model needs anyway, and what samples.
    const extra = [...checking].filter(([code]) => !compiled.has(code)).map(([, label]) => label.split(' ')[0]);
    expect(extra.sort()).toEqual(['sampleChunks', 'sampleDraw']);
    expect(await checkNotes({ ...asOpened, description: 'newer driver' }, directory)).toEqual([
      expect.stringContaining('not run yet'),
    ]);
    rmSync(directory, { recursive: true });
  });
});

it('a device that is wrong with every feature off is not tried again until the driver changes', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'hearth-check-'));
  plant(['embed', 'weight[at + 1u]', 'weight[at]']);
  const wrong = await load('qwen3', directory);
  expect(wrong.decoder.backend).toBe('onnx');
  expect(wrong.notes.join(' ')).toMatch(/self-check.*checked again after the graphics driver/);
  await wrong.decoder.dispose();
  vi.mocked(gpu.kernel).mockImplementation(kernel);
  const remembered = await load('qwen3', directory);
  expect(remembered.decoder.backend).toBe('onnx');
  await remembered.decoder.dispose();
  expect((await checkNotes(asOpened, directory)).join()).toMatch(/wrong results for one kind of model/);
  gpu.capabilities = { ...asOpened, description: 'newer driver' };
  const newer = await load('qwen3', directory);
  expect(newer.decoder.backend).toBe('webgpu');
  await newer.decoder.dispose();
  rmSync(directory, { recursive: true });
});

/** What may be switched off, each with a fault in nothing else. */
describe('a fault in a feature leaves the model on the GPU without it', () => {
  const sums: Fault = ['', 'subgroupAdd(', '1.01 * subgroupAdd('];
  it('subgroups', async () => {
    const golden = await readGolden(fixtureFile('goldens/qwen3/golden.safetensors'));
    plant(sums);
    const { decoder } = await load('qwen3');
    expect(decoder.backend).toBe('webgpu');
    expect(decoder.notes.join(' ')).toMatch(/Switched off, since results were wrong with it .*subgroups\./);
    expect(gpu.capabilities.subgroups).toBeUndefined();
    const text = await answer(decoder, golden.ids);
    expect(text).toEqual(golden.greedy.slice(0, text.length));
    await decoder.dispose();
  });
});

const withoutMatrices = lavapipe ? undefined : 'this adapter has no subgroup matrices';
describeUnless(withoutMatrices, 'a fault in subgroup matrices leaves the model on the GPU without them', () => {
  it.each<readonly [name: string, ...Fault]>([
    // Half of each factor is lost, which only matrices are given in halves.
    ['qwen3', 'splitHalves', 'halves[first + i] = high | low;', 'halves[first + i] = high;'],
    // The upper half of an expert's large tile is left out.
    ['gpt-oss', 'expertTiles', 'min(count, 128u)', 'min(count, 64u)'],
    // Attention of prompts, whose cache is in f16.
    ['gpt-oss', 'attentionTiles', '<= own', '< own'],
    ['gpt-oss', 'attentionTiles', 'exp2(sink - top + 13.0)', '0.0'],
    ['gpt-oss', 'attentionTiles', 'factors[matrix_row +', 'factors[0u * matrix_row +'],
    ['qwen3', 'attentionTiles', '(low1, key, score)', '(high1, key, score)'],
  ])('%s: %s: %s', async (name, ...fault) => {
    const changed = plant(fault);
    const { decoder } = await load(name, undefined, fault[0] === 'attentionTiles' ? 'f16' : 'f32');
    expect([...changed]).not.toEqual([]);
    expect(decoder.backend).toBe('webgpu');
    expect(decoder.notes.join(' ')).toMatch(
      /Switched off, since results were wrong with it on this driver: subgroupMatrix\./,
    );
    expect(gpu.capabilities.f16).toBe(true);
    await decoder.dispose();
  });
});

/** Types that no golden checkpoint has, in models with the layers and types of published ones. */
describeUnless(onSwiftshader, 'Qwen3-8B Q4_K_M in small', () => {
  const published = models.find(({ name }) => name === 'Qwen3-8B Q4_K_M');
  if (!published) throw new Error('the gate has Qwen3-8B');
  const checked = prepareCheck({ spec: published.spec, weights: weightsOf(published) }, 'f32', true);
  it('passes', async () => {
    expect(await errorOn(gpu, checked)).toBeLessThan(bounds.f32 / 10);
  });
  // Rows of which a thread multiplies a chunk at once, and a fault in the rows that the second thread takes.
  it.each([
    [2, 'vec4u(0u, 0u, 2u, 2u)', 'vec4u(0u, 0u, 2u, 0u)'],
    [1, 'vec4u(0u, 1u, 2u, 3u)', 'vec4u(0u, 1u, 1u, 3u)'],
  ] as const)(
    'passes as tuned to %i rows a thread, and finds a fault in how rows are divided',
    async (threadRows, from, to) => {
      gpu.capabilities = { ...asOpened, tuning: { ...defaultTuning, threadRows } };
      expect(await errorOn(gpu, checked)).toBeLessThan(bounds.f32 / 10);
      const changed = plant(['', from, to]);
      expect(await errorOn(gpu, checked)).toBeGreaterThan(bounds.f32);
      const kinds = new Set([...changed].map((label) => label.split(' ')[0]));
      expect([...kinds].sort()).toEqual(['gatedVector', 'jointVector', 'matrixVector']);
    },
  );
  it.each<Fault>([
    ['jointVector', 'gain[quads.x + 2u]', 'gain[quads.x + 1u]'],
    ...(everything ? [['jointVector', '0x03c003c0u', '0x03800380u'] as const] : []),
    ['matrixVector Q6_K', '96.0 * x.b_sum', '96.0 * x.a_sum'],
    ['matrixVector Q4_K', 'vec4u(48u)', 'vec4u(16u)'],
  ])('%s: %s instead of %s is found', async (...fault) => {
    const changed = plant(fault);
    expect(await errorOn(gpu, checked)).toBeGreaterThan(bounds.f32);
    expect([...changed]).not.toEqual([]);
  });
});
