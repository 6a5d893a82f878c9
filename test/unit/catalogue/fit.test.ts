import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { planMemory } from '../../../engine/backend/memoryPlan.ts';
import { hostNeeds } from '../../../engine/backend/processor/decoder.ts';
import { speedOf } from '../../../engine/backend/speed.ts';
import { architectures, specOfArchitecture } from '../../../engine/catalogue/architectures.ts';
import { catalogue, findEntry, requireEntry } from '../../../engine/catalogue/catalogue.ts';
import { choosePair } from '../../../engine/catalogue/choice.ts';
import {
  detectHardware,
  type Hardware,
  hardwareNeeds,
  judge,
  longestContext,
  memoryNeededBytes,
  placeOf,
} from '../../../engine/catalogue/fit.ts';
import { modelsDocument, modelsPath } from '../../../scripts/models-table.ts';
import { machine, machines } from '../../../scripts/shared/machines.ts';

const GiB = 2 ** 30;
const verdict = (id: string, hardware: Hardware) => judge(requireEntry(id), hardware).verdict;
const chosen = (hardware: Hardware, families?: Parameters<typeof choosePair>[2]['families']) =>
  choosePair(catalogue, hardware, { fallbackId: 'smollm2-135m-instruct', ...(families && { families }) }).chat?.id;

describe('a verdict', () => {
  it.each([
    ['smollm2-135m-instruct', machine(2, 2), 'good'],
    ['qwen2.5-coder-1.5b-instruct', machine(8, 4), 'good'],
    ['qwen2.5-coder-7b-instruct', machine(16, 8), 'slow'],
    ['qwen2.5-coder-7b-instruct', machine(4, 8), 'no'],
    ['qwen3-32b', machine(64, 16), 'slow'],
    ['qwen3-coder-30b-a3b', machine(32, 8), 'good'],
    ['gpt-oss-20b', machine(8, 8), 'no'],
    ['deepseek-v3.1', machine(512, 64), 'no'],
  ])('for %s on a CPU follows from memory bandwidth', (id, hardware, expected) => {
    expect(verdict(id, hardware)).toBe(expected);
  });

  it('is good if the model fits on a graphics card, for any CPU', () => {
    const gpu = { name: 'a card', memoryBytes: 8 * GiB, unified: false };
    expect(verdict('qwen2.5-coder-7b-instruct', machine(8, 2, { gpu }))).toBe('good');
    expect(verdict('qwen3-14b', machine(32, 4, { gpu }))).toBe('slow');
  });

  it("counts experts in the machine's memory in the file's bits, and layers on the CPU in its packed bits", () => {
    const gpu = (gibibytes: number) => ({
      gpu: { name: 'NVIDIA GeForce RTX 3060', memoryBytes: gibibytes * GiB, unified: false },
    });
    const outside = (id: string, hardware: Hardware) =>
      Number(
        / on NVIDIA .*, but the experts of (\d+) layers on the CPU\.$/.exec(
          judge(requireEntry(id), hardware).reason,
        )?.[1],
      );
    // The planner leaves 23 of 48 layers' experts to the CPU with the same shapes, 25 of 36 and (with BF16 beside MXFP4: 14) 11 of 24 (placement.test.ts).
    expect(outside('qwen3-coder-30b-a3b', machine(32, 2, gpu(12)))).toBe(22);
    // With more cores whole layers are estimated to be faster.
    expect(judge(requireEntry('qwen3-coder-30b-a3b'), machine(32, 8, gpu(12))).reason).toMatch(
      /: 61 % of its layers on /,
    );
    expect(outside('gpt-oss-20b', machine(32, 8, gpu(8)))).toBe(14);
    expect(outside('gpt-oss-120b', machine(64, 16, gpu(24)))).toBe(25);
    expect(verdict('qwen3-coder-30b-a3b', machine(32, 8, gpu(12)))).toBe('good');
    expect(verdict('gpt-oss-120b', machine(64, 16, gpu(24)))).toBe('good');
    expect(verdict('gpt-oss-120b', machine(32, 16, gpu(24)))).toBe('no');
    // 4 GiB less 0.51 and 0.4 GB, of 5.03 GB and a context of 1.21.
    expect(judge(requireEntry('qwen3-8b'), machine(16, 8, gpu(4))).reason).toMatch(
      /: 54 % of its layers on .*, the others on the CPU\.$/,
    );
  });

  it('of experts on the CPU counts the bytes read, one crossing per layer, and the bytes sent for a prompt', () => {
    const entry = requireEntry('gpt-oss-20b');
    const at = (expertsOutside: number, cores: number) =>
      speedOf(entry, { kind: 'split', name: 'NVIDIA GeForce RTX 4060', cores, expertsOutside });
    // 14 of 24 layers: 0.741 GB at 25 GB/s, 2.967 GB at 0.6 · 272 GB/s, 14 crossings, and 1 ms.
    expect(1 / at(14, 8).decode).toBeCloseTo(0.741_243 / 25 + 2.966_84 / 163.2 + 15e-3, 6);
    // 5.93 GB at 8 GB/s for 512 tokens, 4.187 billion operations at 15 · 272e9, and 0.05 ms.
    expect(1 / at(14, 8).prefill).toBeCloseTo(5.929_943 / 8 / 512 + 4.187_44 / 4080 + 5e-5, 6);
    // An expert is computed for 64 tokens on average: too many for 4 cores with two threads each, not for 32, at 64 · 15e9 a second.
    const share = 0.741_243 / 3.708_083;
    expect(1 / at(14, 64).prefill).toBeCloseTo(4.187_44 * (share / 960 + (1 - share) / 4080) + 5e-5, 6);
  });

  it('of a split model lies between that of the card alone and of the CPU alone', () => {
    const entry = requireEntry('qwen3-14b');
    const at = (kind: 'card' | 'processor' | 'split', cardShare?: number) =>
      speedOf(entry, {
        kind,
        name: 'NVIDIA GeForce RTX 4060',
        cores: 8,
        ...(cardShare !== undefined && { cardShare }),
      });
    const speeds = [at('processor'), at('split', 0.25), at('split', 0.5), at('split', 0.9), at('card')];
    for (const of of ['decode', 'prefill'] as const) {
      const ascending = speeds.map((speed) => speed[of]);
      expect(ascending).toEqual([...ascending].sort((a, b) => a - b));
    }
  });

  it('depends on the chip where memory is shared', () => {
    const chip = (name: string) => ({ gpu: { name, unified: true } });
    expect(verdict('qwen3-14b', machine(32, 8, chip('Apple M2 Max')))).toBe('good');
    expect(verdict('qwen3-14b', machine(32, 8, chip('Apple M2')))).toBe('slow');
    expect(verdict('qwen3-32b', machine(16, 8, chip('Apple M2 Max')))).toBe('no');
  });

  it('never improves with less memory or fewer cores', () => {
    const order = { no: 0, slow: 1, good: 2 };
    for (const entry of catalogue) {
      let last = 0;
      for (const gibibytes of [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024]) {
        const now = order[judge(entry, machine(gibibytes, 8)).verdict];
        expect(now, `${entry.id} with ${gibibytes} GiB`).toBeGreaterThanOrEqual(last);
        last = now;
      }
    }
  });

  it('states the needed memory in one or two sentences', () => {
    for (const entry of catalogue) {
      for (const hardware of [machine(4, 2), machine(64, 16), machine(16, 4, { freeMemoryBytes: 0 })]) {
        expect(judge(entry, hardware).reason).toMatch(/^(It needs about )?[\d.]+ (MB|GB) of memory\b.*\.$/);
      }
      expect(hardwareNeeds(entry)).toMatch(/^About [\d.]+ (MB|GB) of .*\.$/);
    }
  });

  it('suggests closing other programs if that makes the model fit', () => {
    const crowded = machine(16, 8, { freeMemoryBytes: GiB / 4 });
    expect(judge(requireEntry('qwen2.5-coder-1.5b-instruct'), crowded).reason).toContain('Close other programs first');
  });

  it('counts weights, KV cache and runtime', () => {
    const entry = requireEntry('qwen3-8b');
    expect(memoryNeededBytes(entry, 'card')).toBe(5_027_783_488 + 8192 * 147_456 + 400e6);
  });

  it('states the memory measured on the CPU after many requests with ONNX Runtime', () => {
    const needed = memoryNeededBytes(requireEntry('smollm2-135m-instruct'), 'processor');
    // `npm run bench:memory`: after 50 requests, and the most of 120 with glibc's usual settings (docs/proof.md).
    expect(needed).toBeGreaterThan(837e6);
    expect(needed).toBeGreaterThan(1_028e6 / 1.05);
    expect(needed).toBeLessThan(1_028e6 * 1.05);
  });

  it.each([
    ['smollm2-135m-instruct', 'onnx'],
    ['qwen3-8b', 'ggml'],
  ] as const)('states for %s the memory that %s plans with when it loads a model', (id, runtime) => {
    const { downloadBytes, cacheBytesPerToken } = requireEntry(id);
    const architecture = architectures['qwen3-8b'];
    if (!architecture) throw new Error('The catalogue has lost its architecture.');
    const { scratchBytes } = hostNeeds(specOfArchitecture(architecture), 0, runtime);
    // The cache keeps an eighth free to grow.
    const cacheBytes = 8192 * 1.125 * cacheBytesPerToken;
    // Q4_1 is packed to 1.25 times its size, Q4_K stays as it is.
    const weightBytes = downloadBytes * (runtime === 'onnx' ? 1.25 : 1);
    expect(memoryNeededBytes(requireEntry(id), 'processor')).toBe(weightBytes + cacheBytes + scratchBytes);
  });
});

describe('the longest context', () => {
  // Q8_0 is packed to 1.07 times its size (placement.test.ts).
  it.each([
    ['qwen3-1.7b', 'onnx', 1.07, 4],
    ['qwen3-1.7b', 'onnx', 1.07, 6],
    ['qwen3-4b', 'ggml', 1, 5],
    ['qwen3-4b', 'ggml', 1, 8],
  ] as const)(
    'of %s on the processor is the one that %s plans for %d times the weights and %d GiB',
    (id, runtime, share, gibibytes) => {
      const { downloadBytes, cacheBytesPerToken, contextTokens, family, quantisation } = requireEntry(id);
      const architecture = architectures[id];
      if (!architecture) throw new Error('The catalogue has lost its architecture.');
      const totalBytes = gibibytes * GiB;
      const pool = { kind: 'host', name: '', totalBytes, availableBytes: totalBytes } as const;
      const planned = planMemory(hostNeeds(specOfArchitecture(architecture), share * downloadBytes, runtime), pool);
      const needs = {
        weightBytes: downloadBytes,
        cacheBytes: (tokens: number) => tokens * cacheBytesPerToken,
        longestTokens: contextTokens,
      };
      const stated = longestContext(needs, { family, quantisation }, machine(gibibytes, 4));
      expect(stated).toBe(planned.contextTokens);
      expect(stated).toBeLessThan(contextTokens);
    },
  );
});

describe('the pair for a machine', () => {
  const pairOf = (hardware: Hardware) => choosePair(catalogue, hardware, { fallbackId: 'smollm2-135m-instruct' });

  // The models that we would recommend to a friend with that machine.
  it.each([
    ['laptop, 2 cores, 4 GB', 'qwen2.5-coder-1.5b-instruct', 'the same'],
    ['laptop, 4 cores, 8 GB', 'qwen3-1.7b', 'qwen2.5-coder-0.5b-instruct'],
    ['laptop, 8 cores, 16 GB', 'qwen3-4b', 'qwen2.5-coder-1.5b-instruct'],
    ['workstation, 16 cores, 64 GB', 'qwen3-coder-30b-a3b', 'qwen2.5-coder-1.5b-instruct'],
    ['RTX 3050, 4 GB, 16 GB', 'qwen3-1.7b', 'qwen2.5-coder-1.5b-instruct'],
    ['RTX 4060, 8 GB, 32 GB', 'qwen2.5-coder-7b-instruct', 'the same'],
    ['RTX 3060, 12 GB, 32 GB', 'qwen3-14b', 'qwen2.5-coder-1.5b-instruct'],
    ['Arc B580, 12 GB, 32 GB', 'qwen3-14b', 'qwen2.5-coder-1.5b-instruct'],
    ['RX 7800 XT, 16 GB, 32 GB', 'gpt-oss-20b', 'qwen2.5-coder-1.5b-instruct'],
    ['RTX 4090, 24 GB, 64 GB', 'qwen3-coder-30b-a3b', 'the same'],
    ['H200, 141 GB', 'gpt-oss-120b', 'qwen2.5-coder-7b-instruct'],
    ['Apple M1, 8 GB', 'qwen3-4b', 'qwen2.5-coder-1.5b-instruct'],
    ['Apple M2, 16 GB', 'qwen2.5-coder-7b-instruct', 'qwen2.5-coder-1.5b-instruct'],
    ['Apple M2 Max, 32 GB', 'qwen3-coder-30b-a3b', 'the same'],
    ['Apple M3 Ultra, 256 GB', 'gpt-oss-120b', 'qwen2.5-coder-7b-instruct'],
    ['Strix Halo, 128 GB', 'gpt-oss-120b', 'qwen2.5-coder-7b-instruct'],
  ])('of %s answers with %s and completes with %s', (name, chat, completion) => {
    const pair = pairOf(machines[name] ?? machine(0, 1));
    expect([pair.chat?.id, pair.completion?.id]).toEqual([chat, completion === 'the same' ? undefined : completion]);
  });

  it('is the one of docs/models.md', () => {
    expect(readFileSync(modelsPath, 'utf8')).toBe(modelsDocument());
  });

  it('fits together in memory, completes, and leaves no card idle', () => {
    for (const [name, hardware] of Object.entries(machines)) {
      const { chat, completion } = pairOf(hardware);
      const { gpu, totalMemoryBytes } = hardware;
      const bytes = [chat, completion].map((entry) =>
        entry ? memoryNeededBytes(entry, placeOf(entry, hardware)?.kind ?? 'processor') : 0,
      );
      const [chatBytes = 0, completionBytes = 0] = bytes;
      expect(chatBytes + completionBytes, name).toBeLessThan(
        totalMemoryBytes + (gpu?.unified ? 0 : (gpu?.memoryBytes ?? 0)),
      );
      if (gpu?.memoryBytes !== undefined) expect(chatBytes, name).toBeLessThan(gpu.memoryBytes);
      expect(completion?.fillInTheMiddle ?? chat?.fillInTheMiddle, name).toBe(true);
    }
  });
});

describe('the recommendation', () => {
  it('is a model that the engine can run', () => {
    expect(chosen(machine(64, 16), ['qwen2'])).toBe('qwen2.5-coder-1.5b-instruct');
    expect(chosen(machine(64, 16), ['llama'])).toBe('smollm2-135m-instruct');
  });

  it('is the default model if no model runs well', () => {
    expect(chosen(machine(0.25, 1))).toBe('smollm2-135m-instruct');
  });

  it('never has a licence that restricts use', () => {
    for (const gibibytes of [1, 2, 4, 6, 8, 12, 16, 32, 64, 1024]) {
      for (const cores of [1, 2, 3, 4, 8, 64]) {
        expect(findEntry(chosen(machine(gibibytes, cores)) ?? '')?.licence.open).toBe(true);
      }
    }
  });
});

describe('this machine', () => {
  it('has memory and cores', () => {
    const hardware = detectHardware();
    expect(hardware.totalMemoryBytes).toBeGreaterThan(GiB / 4);
    expect(hardware.freeMemoryBytes).toBeGreaterThan(0);
    expect(hardware.freeMemoryBytes).toBeLessThanOrEqual(hardware.totalMemoryBytes);
    expect(hardware.cores).toBeGreaterThanOrEqual(1);
    expect(hardware.gpu).toBeUndefined();
  });
});
