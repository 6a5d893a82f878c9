import { describe, expect, it } from 'vitest';
import { catalogue, findEntry, requireEntry } from '../../../engine/catalogue/catalogue.ts';
import {
  chooseModel,
  detectHardware,
  type Hardware,
  hardwareNeeds,
  judge,
  memoryNeededBytes,
} from '../../../engine/catalogue/fit.ts';

const GiB = 2 ** 30;
const machine = (gibibytes: number, cores: number, changes: Partial<Hardware> = {}): Hardware => ({
  totalMemoryBytes: gibibytes * GiB,
  freeMemoryBytes: gibibytes * GiB * 0.8,
  cores,
  ...changes,
});
const verdict = (id: string, hardware: Hardware) => judge(requireEntry(id), hardware).verdict;
const chosen = (hardware: Hardware, families?: Parameters<typeof chooseModel>[2]['families']) =>
  chooseModel(catalogue, hardware, { fallbackId: 'smollm2-135m-instruct', ...(families && { families }) })?.id;

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

  it('is good on a GPU with unified memory if the memory suffices', () => {
    const gpu = { name: 'a chip', unified: true };
    expect(verdict('qwen3-14b', machine(16, 8, { gpu }))).toBe('good');
    expect(verdict('qwen3-32b', machine(16, 8, { gpu }))).toBe('no');
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
        expect(judge(entry, hardware).reason).toMatch(/needs about [\d.]+ (MB|GB)\b.*\.$/);
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
    expect(memoryNeededBytes(entry)).toBe(5_027_783_488 + 8192 * 147_456 + 400e6);
  });
});

describe('the recommendation', () => {
  it('is the highest-ranked model that runs well', () => {
    expect(chosen(machine(8, 2))).toBe('qwen2.5-coder-1.5b-instruct');
    expect(chosen(machine(64, 16))).toBe('qwen3-coder-30b-a3b');
    const gpu = { name: 'a card', memoryBytes: 8 * GiB, unified: false };
    expect(chosen(machine(16, 8, { gpu }))).toBe('qwen2.5-coder-7b-instruct');
  });

  it('is a model that the engine can run', () => {
    expect(chosen(machine(64, 16), ['llama', 'qwen2', 'qwen3'])).toBe('qwen2.5-coder-1.5b-instruct');
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
