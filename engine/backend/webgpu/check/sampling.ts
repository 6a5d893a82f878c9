/** Whether tokens are sampled as their probabilities say: known logits, several rules, one token each. */
import type { SamplingParams } from '../../backend.ts';
import { DeviceSampler } from '../decoder/deviceSampling.ts';
import type { Gpu } from '../device/gpu.ts';
import { samplesOnGpu } from '../kernels/sampleChunks.ts';

const off = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, presencePenalty: 0 };

/** The ways through the two kernels: greedy, with penalties, a list, everything, a nucleus and a least probability, which may be wider than lists. */
const greedy: SamplingParams = { ...off, temperature: 0 };
const penalising: SamplingParams = { ...greedy, repetitionPenalty: 1.5, presencePenalty: 0.5 };
const random: readonly SamplingParams[] = [
  { ...off, topK: 40, topP: 0.95, temperature: 0.7 },
  { ...off, temperature: 1.5 },
  { ...off, topP: 0.9 },
  { ...off, minP: 0.2 },
];
const uniforms = [0.12, 0.45, 0.83];

interface Case {
  readonly rules: SamplingParams;
  readonly uniform: number;
}

const cases: readonly Case[] = [
  { rules: greedy, uniform: 0 },
  { rules: penalising, uniform: 0 },
  ...random.flatMap((rules) => uniforms.map((uniform) => ({ rules, uniform }))),
];

/** What sums in f32 may move a border between two tokens by. */
const slack = 1e-4;

export async function samplesRight(gpu: Gpu, vocabularySize: number): Promise<boolean> {
  if (!samplesOnGpu(off, vocabularySize)) return true;
  const logits = knownLogits(vocabularySize);
  const [likeliest = 0, ...order] = ranked(logits);
  const said = [...new Set([...order.slice(0, 2), ...Array.from({ length: 50 }, (_, i) => (i * 97) % vocabularySize)])];
  const drawn = await drawOnDevice(gpu, logits, said, [likeliest]);
  return cases.every(({ rules, uniform }, row) => {
    const id = drawn[row] ?? -1;
    if (rules === greedy) return id === order[0];
    if (rules === penalising)
      return id === ranked(penalised(logits, penalising, said)).find((token) => token !== likeliest);
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

/** Flat enough for every way: a nucleus is wider than a list even of a small vocabulary. */
function knownLogits(vocabularySize: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: vocabularySize }, (_, id) => {
    const spread = Math.imul(id + 1, 0x9e3779b1) >>> 0;
    return 6 * (spread / 2 ** 32) ** 6 - ((spread >>> 7) % 1000) / 1000;
  });
}

/** Ids, the largest logit first, the lower id among equals. */
const ranked = (logits: Float32Array | Float64Array): number[] =>
  [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);

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
 * Whether `id` is one of those that the rules keep and, in the order of ids, the one that the uniform falls on.
 * @param order ids, the likeliest first
 */
function mayBeDrawn(logits: Float32Array, order: readonly number[], { rules, uniform }: Case, id: number): boolean {
  const largest = logits[order[0] ?? 0] ?? 0;
  const weightOf = (token: number): number => Math.exp(((logits[token] ?? 0) - largest) / rules.temperature);
  const listed = rules.topK > 0 ? order.slice(0, rules.topK) : order;
  const target =
    rules.topP < 1 ? rules.topP * listed.reduce((sum, token) => sum + weightOf(token), 0) : Number.POSITIVE_INFINITY;
  const kept = new Set<number>();
  let [mass, before] = [0, 0];
  for (const token of listed) {
    const weight = weightOf(token);
    if (kept.size > 0 && (mass >= target || weight < rules.minP)) break;
    kept.add(token);
    mass += weight;
    if (token < id) before += weight;
  }
  return kept.has(id) && before / mass <= uniform + slack && uniform - slack <= (before + weightOf(id)) / mass;
}
