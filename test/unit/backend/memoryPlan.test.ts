import { describe, expect, it } from 'vitest';
import {
  DoesNotFit,
  type HostSystem,
  hostMemory,
  type MemoryPool,
  type ModelNeeds,
  planMemory,
} from '../../../engine/backend/memoryPlan.ts';

const GB = 1e9;
/** 12 GB of weights, 0.5 GB of scratch, 100 kB a token. */
const needs: ModelNeeds = {
  weightBytes: 12 * GB,
  scratchBytes: 0.5 * GB,
  cacheBytes: (tokens) => tokens * 1e5,
  longestTokens: 131_072,
};
const pool = (kind: MemoryPool['kind'], totalGB: number, availableGB: number): MemoryPool => ({
  kind,
  name: kind === 'host' ? "this machine's memory" : 'A Card',
  totalBytes: totalGB * GB,
  availableBytes: availableGB * GB,
});
/** A card without other users. */
const card = (totalGB: number) => pool('card', totalGB, totalGB);

function refusal(memory: MemoryPool, asked?: number): DoesNotFit {
  try {
    planMemory(needs, memory, asked);
  } catch (error) {
    if (error instanceof DoesNotFit) return error;
  }
  throw new Error('it was not refused');
}

describe('the memory plan of a GPU', () => {
  it('grants the requested context if it fits, and the remaining memory to all sequences', () => {
    expect(planMemory(needs, card(25), 100_000)).toEqual({
      contextTokens: 100_000,
      cacheBudgetBytes: 10 * GB,
      isCrowded: false,
    });
  });

  it('gives the trained context, or as much as fits', () => {
    expect(planMemory(needs, card(40)).contextTokens).toBe(131_072);
    // 17.1 GB, of which 4.6 are left beside weights and buffers: 46,000 tokens, down to a multiple of 1,024.
    expect(planMemory(needs, card(18)).contextTokens).toBe(45_056);
  });

  it('leaves a twentieth of the card, but at least 512 MB, to driver and desktop', () => {
    // 19 GB of 20, of which 6.5 GB are left.
    expect(planMemory(needs, card(20)).contextTokens).toBe(64_512);
    // Of 15 GB that others leave of 20, 1 GB stays free: 1.5 GB are left.
    expect(planMemory(needs, pool('card', 20, 15)).contextTokens).toBe(14_336);
    const small = { ...needs, weightBytes: 1 * GB };
    // 4 - 0.512 - 1.5 GB.
    expect(planMemory(small, card(4)).contextTokens).toBe(19_456);
    expect(() => planMemory(small, card(0.4))).toThrow(DoesNotFit);
  });

  it('refuses what does not fit, with the size of every part and the context that would fit', () => {
    const { message, code, contextTokens } = refusal(card(18), 131_072);
    expect(code).toBe('out-of-memory');
    expect(message).toBe(
      'The model needs 25.6 GB of GPU memory (12 GB of weights, 13.1 GB for a context of 131072 tokens, 500 MB to compute in); a model may take 17.1 GB of A Card now. Nothing was loaded. A context of 45056 tokens fits.',
    );
    expect(contextTokens).toBe(45_056);
    expect(planMemory(needs, card(18), contextTokens).contextTokens).toBe(45_056);
  });

  it('says if no context fits, and refuses one too short to hold a file', () => {
    expect(refusal(card(12.5))).toMatchObject({ contextTokens: 0, usableBytes: 11.875 * GB });
    expect(refusal(card(12.5)).message).toContain('No context fits beside the weights.');
    // 4,096 tokens take 0.41 GB; 12.73 and 12.92 GB may be taken.
    expect(refusal(card(13.4)).contextTokens).toBe(2048);
    expect(planMemory(needs, card(13.6)).contextTokens).toBe(4096);
  });
});

describe('the memory plan of a processor', () => {
  it('takes nine tenths of what is available, and at most three quarters of the machine', () => {
    // 14.4 GB of the 16, of which 1.9 are left.
    expect(planMemory(needs, pool('host', 64, 16)).contextTokens).toBe(18_432);
    // 18 GB of 24, of which 5.5 GB are left.
    expect(planMemory(needs, pool('host', 24, 24)).contextTokens).toBe(54_272);
  });

  it('loads with the shortest context if only other programs take the memory', () => {
    expect(planMemory(needs, pool('host', 32, 2))).toEqual({
      contextTokens: 4096,
      cacheBudgetBytes: 4096 * 1e5,
      isCrowded: true,
    });
  });

  it('refuses what is not available if models of other windows take the memory', () => {
    expect(() => planMemory(needs, pool('host', 32, 2), undefined, true)).toThrow(DoesNotFit);
    // 14.4 GB of the 16.
    expect(planMemory(needs, pool('host', 64, 16), undefined, true).contextTokens).toBe(18_432);
  });

  it("refuses what exceeds the machine's memory", () => {
    expect(refusal(pool('host', 16, 16))).toMatchObject({ contextTokens: 0, usableBytes: 12 * GB });
    // 18 GB of 24.
    expect(refusal(pool('host', 24, 24), 100_000).contextTokens).toBe(54_272);
  });
});

describe('the memory of this machine', () => {
  const host = (fields: Partial<HostSystem> = {}): MemoryPool =>
    hostMemory({
      platform: 'linux',
      totalBytes: 16 * GB,
      freeBytes: 9 * GB,
      limitBytes: 0,
      residentBytes: 0.2 * GB,
      vmStat: () => '',
      ...fields,
    });

  it('is what the system says is available', () => {
    expect(host()).toMatchObject({ kind: 'host', totalBytes: 16 * GB, availableBytes: 9 * GB });
  });

  it('is a container’s where there is one', () => {
    expect(host({ limitBytes: 4 * GB })).toMatchObject({ totalBytes: 4 * GB, availableBytes: 3.8 * GB });
    // cgroup v1's value for no limit.
    expect(host({ limitBytes: 2 ** 63 })).toMatchObject({ totalBytes: 16 * GB, availableBytes: 9 * GB });
  });

  // The format is vm_stat(1)'s: a header with the page size, then counts that end in a full stop.
  const vmStat = [
    'Mach Virtual Memory Statistics: (page size of 16384 bytes)',
    'Pages free:                                5000.',
    'Pages active:                            300000.',
    'Pages inactive:                          250000.',
    'Pages speculative:                         3000.',
    'Pages throttled:                              0.',
    'Pages wired down:                        150000.',
    'Pages purgeable:                           2000.',
    '"Translation faults":                1234567890.',
  ].join('\n');

  it('on macOS is the reclaimable memory, not only the free memory', () => {
    const mac = { platform: 'darwin', freeBytes: 5000 * 16_384 } as const;
    expect(host({ ...mac, vmStat: () => vmStat }).availableBytes).toBe(260_000 * 16_384);
    expect(host(mac).availableBytes).toBe(8 * GB);
  });

  it('is known on this machine', () => {
    const { totalBytes, availableBytes } = hostMemory();
    expect(availableBytes).toBeGreaterThan(0);
    expect(availableBytes).toBeLessThanOrEqual(totalBytes);
  });
});
