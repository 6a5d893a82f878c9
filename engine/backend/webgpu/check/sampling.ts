/** Whether tokens are sampled as their probabilities say: known logits, several rules, one token each. */
import type { SamplingParams } from '../../backend.ts';
import { DeviceSampler } from '../decoder/deviceSampling.ts';
import type { Gpu } from '../device/gpu.ts';
import { samplesOnGpu } from '../kernels/sampleChunks.ts';

const off = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, presencePenalty: 0 };

/** The ways through the two kernels: greedy, a list, a nucleus that is wider than a list, everything, and penalties. */
const cases: readonly { readonly rules: SamplingParams; readonly uniform: number }[] = [
  { rules: { ...off, temperature: 0 }, uniform: 0.5 },
  { rules: { ...off, topK: 40, topP: 0.95, temperature: 0.7 }, uniform: 0.83 },
  { rules: { ...off, topP: 0.9 }, uniform: 0.37 },
  { rules: { ...off, temperature: 1.5 }, uniform: 0.71 },
  { rules: { ...off, minP: 0.2 }, uniform: 0.62 },
  { rules: { ...off, temperature: 0, repetitionPenalty: 1.5, presencePenalty: 0.5 }, uniform: 0.5 },
];

/** What sums in f32 may move a border between two tokens by. */
const slack = 1e-4;

export async function samplesRight(gpu: Gpu, vocabularySize: number): Promise<boolean> {
  if (!samplesOnGpu(off, vocabularySize)) return true;
  const logits = knownLogits(vocabularySize);
  const [likeliest = 0, ...likely] = ranked(logits).slice(0, 3);
  const forbidden = [likeliest];
  const said = [...new Set([...likely, ...Array.from({ length: 50 }, (_, i) => (i * 97) % vocabularySize)])];
  const drawn = await drawOnDevice(gpu, logits, said, forbidden);
  return cases.every(({ rules, uniform }, row) => {
    const own = penalised(logits, rules, said, forbidden);
    return mayBeDrawn(own, rules, uniform, drawn[row] ?? -1);
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

/** Spread like a model's: some hundred tokens share most of the probability. */
function knownLogits(vocabularySize: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: vocabularySize }, (_, id) => {
    const spread = Math.imul(id + 1, 0x9e3779b1) >>> 0;
    return 12 * (spread / 2 ** 32) ** 40 - 4 * (((spread >>> 7) % 1000) / 1000);
  });
}

/** Ids, the largest logit first, the lower id among equals. */
const ranked = (logits: Float32Array | Float64Array): number[] =>
  [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);

function penalised(
  logits: Float32Array,
  { repetitionPenalty, presencePenalty }: SamplingParams,
  said: readonly number[],
  forbidden: readonly number[],
): Float64Array {
  const result = Float64Array.from(logits);
  for (const id of said) {
    const value = result[id] ?? 0;
    result[id] = (value > 0 ? value / repetitionPenalty : value * repetitionPenalty) - presencePenalty;
  }
  for (const id of forbidden) result[id] = Number.NEGATIVE_INFINITY;
  return result;
}

/** Whether `id` is one of those that the rules keep and, in the order of ids, the one that `uniform` falls on. */
function mayBeDrawn(logits: Float64Array, rules: SamplingParams, uniform: number, id: number): boolean {
  const order = ranked(logits);
  const [first = 0] = order;
  if (rules.temperature === 0) return id === first;
  const largest = logits[first] ?? 0;
  const weightOf = (token: number): number => Math.exp(((logits[token] ?? 0) - largest) / rules.temperature);
  const listed = rules.topK > 0 ? order.slice(0, rules.topK) : order;
  const target = rules.topP * listed.reduce((sum, token) => sum + weightOf(token), 0);
  const kept: number[] = [];
  let mass = 0;
  for (const token of listed) {
    if (kept.length > 0 && (mass >= target || weightOf(token) < rules.minP)) break;
    kept.push(token);
    mass += weightOf(token);
  }
  const before = kept.reduce((sum, token) => sum + (token < id ? weightOf(token) : 0), 0) / mass;
  return kept.includes(id) && before <= uniform + slack && uniform - slack <= before + weightOf(id) / mass;
}
