import { describe, expect, it } from 'vitest';
import { soak } from '../../soak/soak.ts';

describe('many mixed requests (npm run soak has ten thousand)', () => {
  it('each end once: done, cancelled, or failed as they should', async () => {
    const { finished, cancelled, failed, unexpected, pending } = await soak({
      requests: 150,
      seed: 3,
      backend: 'onnx',
    });
    expect(unexpected).toEqual([]);
    expect(finished + cancelled + failed).toBe(150);
    expect(cancelled).toBeGreaterThan(5);
    expect(failed).toBeGreaterThan(2);
    expect(pending).toBe(0);
  }, 120_000);
});
