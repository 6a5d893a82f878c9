import { describe, expect, it } from 'vitest';
import { contextFor, DoesNotFit } from '../../../engine/backend/webgpu/device/memoryPlan.ts';

const GB = 1e9;
/** 12 GB of weights, 0.5 GB to compute in, 100 kB a token. */
const needs = { weightBytes: 12 * GB, scratchBytes: 0.5 * GB, cacheBytes: (tokens: number) => tokens * 1e5 };
const card = (freeGB: number) => ({
  vendor: 'nvidia',
  name: 'A Card',
  totalBytes: 24 * GB,
  freeBytes: freeGB * GB,
  unified: false,
});

function refusal(contextTokens: number, freeGB: number, leastContextTokens?: number): DoesNotFit {
  try {
    contextFor(needs, { contextTokens, ...(leastContextTokens && { leastContextTokens }) }, card(freeGB));
  } catch (error) {
    if (error instanceof DoesNotFit) return error;
  }
  throw new Error('it was not refused');
}

describe('the memory plan', () => {
  it('grants what fits', () => {
    expect(contextFor(needs, { contextTokens: 100_000 }, card(22.5))).toBe(100_000);
  });

  it('refuses what does not, with every part in numbers and the context that would fit', () => {
    const { message, code, contextTokens } = refusal(131_072, 16);
    expect(code).toBe('out-of-memory');
    expect(message).toBe(
      'The model needs 25.6 GB of GPU memory (12 GB of weights, 13.1 GB for a context of 131072 tokens, 500 MB to compute in); A Card has 16 GB free. Nothing was loaded. A context of 34816 tokens fits.',
    );
    // 3.5 GB are left beside weights and buffers: 35,000 tokens, down to a multiple of 1024.
    expect(contextTokens).toBe(34_816);
    expect(contextFor(needs, { contextTokens }, card(16))).toBe(34_816);
  });

  it('says when no context helps', () => {
    expect(refusal(8192, 12.5)).toMatchObject({ contextTokens: 0, freeBytes: 12.5 * GB });
    expect(refusal(8192, 12.5).message).toContain('No context fits beside the weights.');
  });

  it('takes a shorter context where the request allows it, and no shorter than that', () => {
    expect(contextFor(needs, { contextTokens: 8192, leastContextTokens: 1024 }, card(12.8))).toBe(2048);
    expect(refusal(8192, 12.6, 1024).contextTokens).toBe(0);
  });
});
