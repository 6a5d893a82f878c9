/**
 * Checks whether this device and driver compute the same as the reference. At the first load on an adapter and driver,
 * both run a small model with the kernels of the model to load (smallModel.ts), and tokens are sampled from known
 * logits. If the results differ, features are switched off in order until they agree, with a note on the model card. If
 * they never agree, the GPU is not used.
 */
import { z } from 'zod';
import { HearthError } from '../../../errors.ts';
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { DecoderWeights } from '../../../model/weights/weights.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import type { Decoder, SamplingParams } from '../../backend.ts';
import { referenceBackend } from '../../reference/index.ts';
import { allocateCache } from '../decoder/cache.ts';
import { WebgpuDecoder } from '../decoder/decoder.ts';
import { DeviceSampler } from '../decoder/deviceSampling.ts';
import { placeWeights } from '../decoder/gpuWeights.ts';
import { tokensPerRun } from '../decoder/scratch.ts';
import { Uploader } from '../decoder/weightLayout.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { Gpu } from '../device/gpu.ts';
import { DeviceRecords, modelKey } from '../device/records.ts';
import { samplesOnGpu } from '../kernels/sampleChunks.ts';
import { allocateRun } from '../needs.ts';
import { type SmallModel, smallModelOf } from './smallModel.ts';

/** Features that may be switched off, each together with all before it. */
const switches = ['subgroupMatrix', 'f16', 'subgroups'] as const;
type Switch = (typeof switches)[number];

const contextTokens = 192;

/**
 * Tokens of each pass. A prompt that fills a tile of 64 rows and a part of another, in which more than 64 tokens visit
 * some expert, and whose keys several workgroups share; then three times one token, and a plan with each number of rows.
 * A software GPU takes minutes to compile what a graphics card's driver compiles in seconds, and computes as slowly.
 */
const passesOn = (software: boolean): readonly number[] => (software ? [112, 1, 1, 1] : [130, 1, 1, 1, 3, 7, 14]);

/** Largest Σ(a − b)² / Σb² that is explained by sums in another order and by cached values that round the other way. */
export const bounds: Readonly<Record<CachePrecision, number>> = { f32: 1e-8, f16: 1e-7, q8: 1e-6 };

interface CheckedModel {
  readonly small: SmallModel;
  readonly precision: CachePrecision;
  readonly passes: readonly number[];
  /** Whether tokens of the model to load may be sampled on the device. */
  readonly samples: boolean;
  /** The reference's logits, computed while the driver compiles. */
  readonly expected: Promise<readonly Float32Array[]>;
}

export function prepareCheck(
  { spec, weights }: { readonly spec: DecoderSpec; readonly weights: DecoderWeights },
  precision: CachePrecision,
  software: boolean,
): CheckedModel {
  const small = smallModelOf(spec, weights);
  const samples = !spec.headless && !spec.stage && samplesOnGpu(off, spec.vocabularySize);
  const passes = passesOn(software);
  const expected = referenceLogits(small, precision, passes);
  // `errorOn` reports it.
  expected.catch(() => undefined);
  return { small, precision, passes, samples, expected };
}

async function referenceLogits(
  { spec, weights }: SmallModel,
  cachePrecision: CachePrecision,
  passes: readonly number[],
): Promise<readonly Float32Array[]> {
  const decoder = await referenceBackend.load(spec, weights, { contextTokens, cachePrecision });
  try {
    return await logitsOf(decoder, passes);
  } finally {
    await decoder.dispose();
  }
}

/** Logits after each pass; for short passes, of every token. */
async function logitsOf(decoder: Decoder, passes: readonly number[]): Promise<Float32Array[]> {
  const sequence = decoder.createSequence();
  const results: Float32Array[] = [];
  let token = 7;
  for (const count of passes) {
    const tokens = Array.from({ length: count }, () => {
      token = (token * 167 + 41) % decoder.spec.vocabularySize;
      return token;
    });
    const logits = count > 16 ? 'last' : 'all';
    results.push(...(await decoder.run([{ sequence, tokens, logits }])));
  }
  return results;
}

/** The largest error of a pass; infinity for NaN, wrong samples and kernels that the driver does not compile. */
export async function errorOn(gpu: Gpu, model: CheckedModel): Promise<number> {
  try {
    if (model.samples && !(await samplesRight(gpu))) return Number.POSITIVE_INFINITY;
    const actual = await logitsOnDevice(gpu, model);
    const errors = (await model.expected).map((row, i) => normalisedError(actual[i] ?? new Float32Array(), row));
    return Math.max(...errors.map((error) => (Number.isNaN(error) ? Number.POSITIVE_INFINITY : error)));
  } catch (error) {
    if (error instanceof HearthError && error.code === 'unavailable') return Number.POSITIVE_INFINITY;
    throw error;
  }
}

async function logitsOnDevice(gpu: Gpu, { small, precision, passes }: CheckedModel): Promise<Float32Array[]> {
  const taken: GPUBuffer[] = [];
  const { capabilities, device } = gpu;
  const { spec, weights, tuning } = small;
  const account = {
    capabilities,
    device,
    get allocatedBytes() {
      return gpu.allocatedBytes;
    },
    allocate: async (label: string, bytes: number, usage: GPUBufferUsageFlags) => {
      const buffer = await gpu.allocate(label, bytes, usage);
      taken.push(buffer);
      return buffer;
    },
    // The cache gets no memory for more than one context; `finally` frees the rest.
    free: () => undefined,
    throwIfFailed: () => gpu.throwIfFailed(),
  };
  gpu.capabilities = { ...capabilities, tuning: { ...capabilities.tuning, ...tuning } };
  try {
    const uploader = new Uploader(account, { contextTokens });
    const placed = await placeWeights(weights, uploader);
    const buffers = await allocateRun(capabilities, spec, contextTokens, account);
    const cache = await allocateCache(account, spec, {
      contextTokens,
      maxTokensPerRun: tokensPerRun(spec, capabilities),
      precision,
      budgetBytes: 0,
    });
    const parts = { gpu, spec, weights: placed, cache, ...buffers, contextTokens, notes: [], weightBytes: 0 };
    await uploader.upload();
    return await logitsOf(new WebgpuDecoder(parts), passes);
  } finally {
    gpu.capabilities = capabilities;
    for (const buffer of taken) gpu.free(buffer);
  }
}

function normalisedError(actual: Float32Array, expected: Float32Array): number {
  let [error, power] = [0, 0];
  for (const [i, value] of expected.entries()) {
    error += ((actual[i] ?? Number.NaN) - value) ** 2;
    power += value ** 2;
  }
  return error / power;
}

const verdict = z.object({ off: z.array(z.enum(switches)).optional(), error: z.number() });
/** `off` absent: the results are wrong even with everything switched off. */
type Verdict = z.infer<typeof verdict>;

/**
 * Tries the device with all features, then with fewer and fewer. Leaves `gpu` with the features that gave right
 * results.
 */
async function checkDevice(gpu: Gpu, model: CheckedModel): Promise<Verdict> {
  const all = gpu.capabilities;
  const held = switches.filter((name) => all[name]);
  let least = Number.POSITIVE_INFINITY;
  for (let count = 0; count <= held.length; count++) {
    const off = held.slice(0, count);
    gpu.capabilities = without(all, off);
    const error = await errorOn(gpu, model);
    if (error < bounds[model.precision]) return { off, error };
    least = Math.min(least, error);
  }
  gpu.capabilities = all;
  return { error: Math.min(least, Number.MAX_VALUE) };
}

function without(capabilities: GpuCapabilities, off: readonly Switch[]): GpuCapabilities {
  const { subgroupMatrix, subgroups, ...rest } = capabilities;
  const f16 = !off.includes('f16');
  return {
    ...rest,
    ...(subgroupMatrix && !off.includes('subgroupMatrix') && { subgroupMatrix }),
    ...(subgroups && !off.includes('subgroups') && { subgroups }),
    f16: capabilities.f16 && f16,
    halfSubnormals: capabilities.halfSubnormals && f16,
  };
}

const verdictsIn = (directory: string | undefined) => new DeviceRecords(directory, 'gpu-checks', verdict);

/**
 * @param directory stores the verdict. The check runs again on another adapter or driver, and for other layers.
 * @returns notes on features that are switched off.
 * @throws HearthError `unavailable` if the results are wrong whatever is switched off.
 */
export async function selfCheck(
  gpu: Gpu,
  model: { readonly spec: DecoderSpec; readonly weights: DecoderWeights },
  precision: CachePrecision,
  directory: string | undefined,
): Promise<string[]> {
  const { capabilities } = gpu;
  const { f16, halfSubnormals, subgroups, subgroupMatrix, tuning } = capabilities;
  const used = JSON.stringify({ f16, halfSubnormals, subgroups, subgroupMatrix, tuning });
  const key = `${modelKey(model.spec, model.weights, precision)} ${used}`;
  const records = verdictsIn(directory);
  const remembered = (await records.of(capabilities))[key];
  const found = remembered ?? (await firstCheck(gpu, model, precision));
  if (!remembered) await records.keep(capabilities, key, found);
  if (!found.off) {
    throw new HearthError(
      'unavailable',
      `${capabilities.description || capabilities.device} gives results that differ from the CPU's (error ${found.error.toExponential(1)} in the self-check), so Hearth does not use it for this model. It is checked again after the graphics driver, the system or Hearth is updated.`,
    );
  }
  gpu.capabilities = without(capabilities, found.off);
  return found.off.length === 0 ? [] : [switchedOff(found.off)];
}

function firstCheck(
  gpu: Gpu,
  model: { readonly spec: DecoderSpec; readonly weights: DecoderWeights },
  precision: CachePrecision,
): Promise<Verdict> {
  return checkDevice(gpu, prepareCheck(model, precision, gpu.capabilities.software));
}

const switchedOff = (off: readonly string[]): string =>
  `Switched off, since results were wrong with it on this driver: ${off.join(', ')}.`;

/** The results for this device and driver so far, as text for the user. */
export async function checkNotes(capabilities: GpuCapabilities, directory: string): Promise<string[]> {
  const found = Object.values(await verdictsIn(directory).of(capabilities));
  if (found.length === 0) return ['self-check: not run yet; it is when a model is first loaded.'];
  const right = found.filter(({ off }) => off !== undefined);
  const off = [...new Set(right.flatMap((each) => each.off ?? []))];
  const worst = Math.max(...right.map(({ error }) => error)).toExponential(1);
  const wrong = found.length - right.length;
  return [
    ...(right.length > 0
      ? [`self-check: as the reference for ${kinds(right.length)} (error of at most ${worst}).`]
      : []),
    ...(off.length > 0 ? [switchedOff(off)] : []),
    ...(wrong > 0 ? [`self-check: wrong results for ${kinds(wrong)}, which the CPU computes instead.`] : []),
  ];
}

const kinds = (count: number): string => (count === 1 ? 'one kind of model' : `${count} kinds of models`);

// Checks that sampling follows the probabilities: known logits, several rules, one token each.

const off = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, presencePenalty: 0 };

/**
 * Covers the paths of the two kernels: greedy, penalties, a candidate list, all tokens, and top-p and min-p sets that
 * may be larger than a list.
 */
const greedy: SamplingParams = { ...off, temperature: 0 };
const penalising: SamplingParams = { ...greedy, repetitionPenalty: 1.5, presencePenalty: 0.5 };
const random: readonly SamplingParams[] = [
  { ...off, topK: 40, topP: 0.95, temperature: 0.7 },
  { ...off, temperature: 1.5 },
  { ...off, topP: 0.9 },
  { ...off, minP: 0.2 },
];
const uniforms = [0.12, 0.83];
/** The kernels are the same for every vocabulary. Twenty chunks, the last not full. */
const sampledTokens = 20_000;

interface Case {
  readonly rules: SamplingParams;
  readonly uniform: number;
}

const cases: readonly Case[] = [
  { rules: greedy, uniform: 0 },
  { rules: penalising, uniform: 0 },
  ...random.flatMap((rules) => uniforms.map((uniform) => ({ rules, uniform }))),
];

/** How far rounding in f32 may move a border between two tokens. */
const slack = 1e-4;

async function samplesRight(gpu: Gpu): Promise<boolean> {
  const logits = knownLogits();
  const [likeliest = 0, ...order] = ranked(logits);
  const said = [...new Set([...order.slice(0, 2), ...Array.from({ length: 50 }, (_, i) => (i * 997) % sampledTokens)])];
  const drawn = await drawOnDevice(gpu, logits, said, [likeliest]);
  return cases.every(({ rules, uniform }, row) => {
    const id = drawn[row] ?? -1;
    if (rules === greedy) return id === order[0];
    if (rules === penalising) {
      const changed = penalised(logits, penalising, said);
      changed[likeliest] = Number.NEGATIVE_INFINITY;
      return id === changed.indexOf(changed.reduce((most, value) => Math.max(most, value)));
    }
    return mayBeDrawn(logits, order, { rules, uniform }, id);
  });
}

async function drawOnDevice(
  gpu: Gpu,
  logits: Float32Array,
  said: readonly number[],
  forbidden: readonly number[],
): Promise<number[]> {
  const taken: GPUBuffer[] = [];
  const allocate = async (label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> => {
    const buffer = await gpu.allocate(label, bytes, usage);
    taken.push(buffer);
    return buffer;
  };
  const rows = cases.length;
  const { device } = gpu;
  try {
    const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const sampler = await DeviceSampler.allocate(
      { allocate, allocatedBytes: 0 },
      { vocabularySize: logits.length, maxRows: rows },
    );
    const operands = {
      logits: await allocate('known logits', rows * logits.byteLength, storage),
      rowBuffer: await allocate('rows', 16 * rows, storage),
      rows: () => rows,
    };
    for (let row = 0; row < rows; row++) device.queue.writeBuffer(operands.logits, row * logits.byteLength, logits);
    const history = { sequence: new Set(said), generated: new Set(said) };
    const slices = cases.map(({ rules, uniform }) => ({ rules, uniforms: [uniform], history, forbidden }));
    const plan = await sampler.plan(gpu, operands);
    sampler.write(device.queue, slices);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    const { tokens } = await sampler.submit(device.queue, encoder, rows);
    return (await tokens).map(([id = -1]) => id);
  } finally {
    for (const buffer of taken) gpu.free(buffer);
  }
}

/** Logits flat enough for all paths: a nucleus is larger than a candidate list even with a small vocabulary. */
function knownLogits(): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: sampledTokens }, (_, id) => {
    const spread = Math.imul(id + 1, 0x9e3779b1) >>> 0;
    return 6 * (spread / 2 ** 32) ** 6 - ((spread >>> 7) % 1000) / 1000;
  });
}

/** Ids, the largest logit first, the lower id among equals. */
function ranked(logits: Float32Array): number[] {
  // Sorts numbers instead of comparing ids: (2^31 less the order of the logit's bits) · 2^20 + id.
  const bits = new Int32Array(logits.buffer);
  const keys = Float64Array.from(bits, (own, id) => {
    const rank = own >= 0 ? own : -(own & 0x7fffffff);
    return (2 ** 31 - rank) * 2 ** 20 + id;
  });
  return Array.from(keys.sort(), (key) => key % 2 ** 20);
}

function penalised(
  logits: Float32Array,
  { repetitionPenalty, presencePenalty }: SamplingParams,
  said: readonly number[],
): Float64Array {
  const result = Float64Array.from(logits);
  for (const id of said) {
    const value = result[id] ?? 0;
    result[id] = (value > 0 ? value / repetitionPenalty : value * repetitionPenalty) - presencePenalty;
  }
  return result;
}

/**
 * Whether the rules keep `id` and the uniform selects it, in the order of ids.
 * @param order ids, most likely first.
 */
function mayBeDrawn(logits: Float32Array, order: readonly number[], { rules, uniform }: Case, id: number): boolean {
  const largest = logits[order[0] ?? 0] ?? 0;
  const weightOf = (token: number): number => Math.exp(((logits[token] ?? 0) - largest) / rules.temperature);
  const listed = rules.topK > 0 ? order.slice(0, rules.topK) : order;
  const target =
    rules.topP < 1 ? rules.topP * listed.reduce((sum, token) => sum + weightOf(token), 0) : Number.POSITIVE_INFINITY;
  let [mass, before, isKept] = [0, 0, false];
  for (const token of listed) {
    const weight = weightOf(token);
    if (mass > 0 && (mass >= target || weight < rules.minP)) break;
    mass += weight;
    if (token < id) before += weight;
    isKept ||= token === id;
  }
  return isKept && before / mass <= uniform + slack && uniform - slack <= (before + weightOf(id)) / mass;
}
