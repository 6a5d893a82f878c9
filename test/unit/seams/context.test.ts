/**
 * Seam: from a load without a requested context, through the choice of the backend, to the context that a user gets.
 *
 * Fault it would have found: the context of a GPU model was planned from the host's free memory, before the backend was known, and never above
 * 8,192 tokens.
 *
 * The table was worked out by hand from published figures alone: bytes of the file, and of a token `2 (keys and values) · layers · key-value heads ·
 * head size · 2 bytes`. `derived` below is this calculation: the memory that a machine allows a model, minus the file and scratch, divided by a
 * token's bytes. A cell may differ from it by one step of 1,024 tokens, since buffers have other small parts.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import type { Decoder, LoadOptions } from '../../../engine/backend/backend.ts';
import { DoesNotFit, type MemoryPool, planMemory } from '../../../engine/backend/memoryPlan.ts';
import { hostNeeds } from '../../../engine/backend/processor/decoder.ts';
import { gpuNeeds } from '../../../engine/backend/webgpu/needs.ts';
import { architectures, specOfArchitecture } from '../../../engine/catalogue/architectures.ts';
import { openModel } from '../../../engine/model/open.ts';
import type { DecoderSpec } from '../../../engine/model/spec/spec.ts';
import type { Candidate } from '../../../engine/runtime/backends.ts';
import { decoderFor } from '../../../engine/runtime/loadedModel.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';
import { fixtureFile } from '../shared.ts';

const GB = 1e9;

interface Machine {
  readonly name: string;
  readonly ram: number;
  readonly available: number;
  /** Of a card of its own, or what a GPU may take of the RAM (three quarters). */
  readonly gpu?: { readonly kind: 'card' | 'shared'; readonly total: number; readonly available: number };
}

/** In GB. */
const machines: readonly Machine[] = [
  { name: '8 GB, 5 free, no GPU', ram: 8, available: 5 },
  { name: '16 GB, 8 free, no GPU', ram: 16, available: 8 },
  { name: '32 GB, 24 free, no GPU', ram: 32, available: 24 },
  { name: '128 GB, 110 free, no GPU', ram: 128, available: 110 },
  { name: '16 GB, 8 free, card of 8', ram: 16, available: 8, gpu: { kind: 'card', total: 8, available: 7.5 } },
  { name: '32 GB, 4 free, card of 12', ram: 32, available: 4, gpu: { kind: 'card', total: 12, available: 11.5 } },
  { name: '16 GB, 8 free, card of 16', ram: 16, available: 8, gpu: { kind: 'card', total: 16, available: 15.8 } },
  { name: '32 GB, 8 free, card of 24', ram: 32, available: 8, gpu: { kind: 'card', total: 24, available: 23.5 } },
  { name: '64 GB, 8 free, card of 80', ram: 64, available: 8, gpu: { kind: 'card', total: 80, available: 79 } },
  { name: 'unified 16 GB, 9 free', ram: 16, available: 9, gpu: { kind: 'shared', total: 12, available: 9 } },
  { name: 'unified 32 GB, 22 free', ram: 32, available: 22, gpu: { kind: 'shared', total: 24, available: 22 } },
  { name: 'unified 128 GB, 100 free', ram: 128, available: 100, gpu: { kind: 'shared', total: 96, available: 96 } },
];

interface Published {
  readonly id: string;
  readonly fileBytes: number;
  readonly trained: number;
  /** Layers that see all, and those with a window, of which a GPU keeps 5 pages of 32 tokens from every 512th. */
  readonly layers: number;
  readonly windowLayers?: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  /** Of a prompt's 512 tokens, and of the sampler (16 rows of the vocabulary, three times): under 0.25 GB for each of these models. */
  readonly gpuScratchGB: number;
}

/** From the publishers' config.json files and the sizes on their pages. */
const models: readonly Published[] = [
  {
    id: 'smollm2-135m-instruct',
    fileBytes: 98_362_432,
    trained: 8192,
    layers: 30,
    keyValueHeads: 3,
    headDim: 64,
    gpuScratchGB: 0.02,
  },
  {
    id: 'qwen2.5-coder-1.5b-instruct',
    fileBytes: 1_117_320_768,
    trained: 32_768,
    layers: 28,
    keyValueHeads: 2,
    headDim: 128,
    gpuScratchGB: 0.07,
  },
  {
    id: 'qwen2.5-coder-7b-instruct',
    fileBytes: 4_683_073_536,
    trained: 32_768,
    layers: 28,
    keyValueHeads: 4,
    headDim: 128,
    gpuScratchGB: 0.14,
  },
  {
    id: 'qwen3-8b',
    fileBytes: 5_027_783_488,
    trained: 40_960,
    layers: 36,
    keyValueHeads: 8,
    headDim: 128,
    gpuScratchGB: 0.11,
  },
  {
    id: 'qwen3-14b',
    fileBytes: 9_001_752_960,
    trained: 40_960,
    layers: 40,
    keyValueHeads: 8,
    headDim: 128,
    gpuScratchGB: 0.15,
  },
  {
    id: 'gpt-oss-20b',
    fileBytes: 13_789_244_354,
    trained: 131_072,
    layers: 12,
    windowLayers: 12,
    keyValueHeads: 8,
    headDim: 64,
    gpuScratchGB: 0.14,
  },
  {
    id: 'qwen3-coder-30b-a3b',
    fileBytes: 18_556_689_568,
    trained: 262_144,
    layers: 48,
    keyValueHeads: 4,
    headDim: 128,
    gpuScratchGB: 0.11,
  },
  {
    id: 'qwen3-32b',
    fileBytes: 19_762_149_024,
    trained: 40_960,
    layers: 64,
    keyValueHeads: 8,
    headDim: 128,
    gpuScratchGB: 0.19,
  },
];

/** Machines down, models across; `+`: on the GPU, `no`: refused. */
const table = `
8192 32768 4096 no no no no no
8192 32768 32768 10240 4096 no no no
8192 32768 32768 40960 40960 131072 23552 4096
8192 32768 32768 40960 40960 131072 262144 40960
8192+ 32768+ 32768+ 11264+ 4096 no no no
8192+ 32768+ 32768+ 37888+ 9216+ 4096 4096 4096
8192+ 32768+ 32768+ 40960+ 33792+ 28672+ no no
8192+ 32768+ 32768+ 40960+ 40960+ 131072+ 34816+ 7168+
8192+ 32768+ 32768+ 40960+ 40960+ 131072+ 262144+ 40960+
8192+ 32768+ 32768+ 18432+ 4096 no no no
8192+ 32768+ 32768+ 40960+ 40960+ 131072+ 10240+ 4096
8192+ 32768+ 32768+ 40960+ 40960+ 131072+ 262144+ 40960+
`;

/** Most that one binding of such a GPU holds: drivers of cards allow 4 GB. */
const maxBindingBytes = 2 ** 32 - 4;

beforeAll(() => {
  // Dawn brings these constants; here nothing is allocated.
  Object.assign(globalThis, { GPUBufferUsage: { STORAGE: 1, COPY_SRC: 2, COPY_DST: 4, MAP_READ: 8, UNIFORM: 16 } });
});

/** Backends that plan as the real ones do, for the memory of `machine`, and load nothing. */
function backendsOn(machine: Machine, fileBytes: number, said: LoadOptions[]): Candidate[] {
  const host: MemoryPool = {
    kind: 'host',
    name: 'RAM',
    totalBytes: machine.ram * GB,
    availableBytes: machine.available * GB,
  };
  const candidate = (
    name: 'webgpu' | 'ggml',
    plan: (spec: DecoderSpec, options: LoadOptions) => Promise<number>,
  ): Candidate => ({
    name,
    open: async () => ({
      name,
      load: async (spec, _, options): Promise<Decoder> => {
        said.push(options);
        return new FakeDecoder({ backend: name, contextTokens: await plan(spec, options) });
      },
    }),
  });
  const { gpu } = machine;
  const pool: MemoryPool | undefined = gpu && {
    kind: gpu.kind,
    name: 'GPU',
    totalBytes: gpu.total * GB,
    availableBytes: gpu.available * GB,
  };
  const onGpu = candidate('webgpu', async (spec, { contextTokens: asked }) => {
    if (!pool) throw new DoesNotFit('There is no GPU.', 0, 0);
    const needs = await gpuNeeds({ maxBindingBytes }, spec, { weightBytes: fileBytes, precision: 'f16', asked });
    return planMemory(needs, pool, asked).contextTokens;
  });
  const onHost = candidate(
    'ggml',
    async (spec, { contextTokens: asked }) => planMemory(hostNeeds(spec, fileBytes, 'ggml'), host, asked).contextTokens,
  );
  return [onGpu, onHost];
}

interface Given {
  readonly contextTokens: number;
  readonly backend: string;
}

async function load(machine: Machine, { id, fileBytes }: Published, asked?: number): Promise<Given | undefined> {
  const architecture = architectures[id];
  if (!architecture) throw new Error(`no architecture of ${id}`);
  // Any model will do: nothing reads the weights.
  const model = await openModel(fixtureFile('goldens/llama'));
  const said: LoadOptions[] = [];
  try {
    const { decoder } = await decoderFor(
      { ...model, spec: specOfArchitecture(architecture) },
      { backend: 'auto', contextTokens: asked, onProgress: () => {}, signal: new AbortController().signal },
      backendsOn(machine, fileBytes, said),
    );
    // The context passed to a backend must not depend on memory that is not its own.
    for (const { contextTokens } of said) expect(contextTokens).toBe(asked);
    return { contextTokens: decoder.contextTokens, backend: decoder.backend };
  } catch (error) {
    if (error instanceof DoesNotFit) return undefined;
    throw error;
  } finally {
    await model.file.close();
  }
}

const show = (given: Given | undefined): string =>
  given ? `${given.contextTokens}${given.backend === 'webgpu' ? '+' : ''}` : 'no';

/** Tokens by the bytes alone, on the GPU or on the processor. */
function derived(machine: Machine, model: Published, onGpu: boolean): number {
  const { layers, windowLayers = 0, keyValueHeads, headDim } = model;
  const perLayer = 2 * keyValueHeads * headDim * 2;
  const { gpu } = machine;
  if (onGpu && gpu) {
    const own = gpu.available - Math.max(0.512, 0.05 * gpu.total);
    const usable = (gpu.kind === 'card' ? own : Math.min(0.9 * gpu.available, gpu.total)) * GB;
    const token = perLayer * (layers + windowLayers * ((5 * 32) / 512));
    // 32 spare pages of 32 tokens; of windows also 8 marks of 5 pages, 896 recent tokens and 2 pages.
    const spare = 32 * perLayer * (32 * (layers + windowLayers) + (8 * 5 + 28 + 2) * windowLayers);
    return (usable - model.fileBytes - model.gpuScratchGB * GB - spare) / token;
  }
  const usable = Math.min(0.9 * machine.available, 0.75 * machine.ram) * GB;
  // Blocks grow by an eighth more than they hold.
  return (usable - model.fileBytes - 0.4 * GB) / (perLayer * (layers + windowLayers) * 1.125);
}

describe('the context that a user gets', () => {
  const rows = table.trim().split('\n');
  it.each(machines.map((machine, i) => ({ machine, expected: rows[i] ?? '' })))(
    'on $machine.name',
    async ({ machine, expected }) => {
      const given = await Promise.all(models.map((model) => load(machine, model)));
      expect(given.map(show)).toEqual(expected.trim().split(/\s+/));
      for (const [i, model] of models.entries()) {
        const one = given[i];
        const bytes = derived(machine, model, one?.backend === 'webgpu');
        if (!one) expect(bytes, model.id).toBeLessThan(4096 + 1024);
        else if (one.contextTokens === model.trained) expect(bytes, model.id).toBeGreaterThan(model.trained - 1024);
        else if (one.contextTokens > 4096)
          expect(Math.abs(Math.floor(bytes / 1024) * 1024 - one.contextTokens), model.id).toBeLessThanOrEqual(1024);
      }
    },
  );

  it('is never less with more memory, and never beyond what the model was trained for', async () => {
    for (const model of models) {
      let [lastOnCard, lastOnHost] = [0, 0];
      for (const total of [4, 8, 12, 16, 24, 32, 48, 80, 192]) {
        const card = await load(
          { name: '', ram: 8, available: 4, gpu: { kind: 'card', total, available: total } },
          model,
        );
        const host = await load({ name: '', ram: total, available: total }, model);
        for (const given of [card, host]) expect(given?.contextTokens ?? 0).toBeLessThanOrEqual(model.trained);
        if (card?.backend === 'webgpu') {
          expect(card.contextTokens).toBeGreaterThanOrEqual(lastOnCard);
          lastOnCard = card.contextTokens;
        } else expect(lastOnCard).toBe(0);
        expect(host?.contextTokens ?? 0).toBeGreaterThanOrEqual(lastOnHost);
        lastOnHost = host?.contextTokens ?? 0;
      }
      expect([lastOnCard, lastOnHost]).toEqual([model.trained, model.trained]);
    }
  });

  it('does not depend on the host’s memory where a card holds the model', async () => {
    const gpu = { kind: 'card', total: 24, available: 23 } as const;
    for (const model of models) {
      const all = [1, 8, 60].map((available) => load({ name: '', ram: 64, available, gpu }, model));
      const onCard = (await Promise.all(all))
        .filter((given) => given?.backend === 'webgpu')
        .map((given) => given?.contextTokens);
      expect(new Set(onCard).size).toBeLessThanOrEqual(1);
      expect([0, 3]).toContain(onCard.length);
    }
  });

  it('is the requested one, or the load is refused with one that fits', async () => {
    const [small = machines[0], model = models[0]] = [machines[4], models[2]];
    if (!small || !model) throw new Error('the table is empty');
    expect(await load(small, model, 16_384)).toEqual({ contextTokens: 16_384, backend: 'webgpu' });
    // 6.7 GB of the card hold no 32,768 tokens beside 4.8 GB; the processor takes over and makes room by and by.
    const crowded = { ...small, available: 2, gpu: { kind: 'card', total: 8, available: 7.2 } } as const;
    expect(await load(crowded, model, 32_768)).toEqual({ contextTokens: 32_768, backend: 'ggml' });
    expect(await load({ ...crowded, ram: 8 }, model, 32_768)).toBeUndefined();
  });
});
