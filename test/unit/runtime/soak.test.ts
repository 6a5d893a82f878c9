import { describe, expect, it } from 'vitest';
import { soak } from '../../soak/soak.ts';

describe('many mixed requests (npm run soak has ten thousand)', () => {
  it('end exactly once: finished, cancelled, or failed as expected', async () => {
    const { finished, cancelled, failed, broken, remote, kills, unexpected, pending } = await soak({
      requests: 150,
      seed: 3,
      kills: 2,
      backend: 'onnx',
    });
    expect(unexpected).toEqual([]);
    const { waiting, prefill, decode } = cancelled;
    expect(finished + waiting + prefill + decode + failed + broken).toBe(150);
    // About a fifth, depending on the seed.
    expect(waiting + prefill + decode).toBeGreaterThanOrEqual(20);
    expect(waiting + prefill + decode).toBeLessThanOrEqual(40);
    // Which stage a cancellation meets depends on the machine; each is met.
    expect(Math.min(waiting, prefill, decode)).toBeGreaterThan(0);
    expect(failed).toBeGreaterThan(2);
    expect(remote).toBeGreaterThan(10);
    expect(kills).toBe(2);
    expect(pending).toBe(0);
  }, 120_000);
});
