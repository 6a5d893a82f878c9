import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { WarmUp } from '../../../extension/completion/provider.ts';
import { limits } from '../../../extension/limits.ts';
import { log } from './support.ts';

const { idleMs, restMs } = limits.completion;

describe('warm-up', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** Records starts and stops. */
  function setUp() {
    const events: string[] = [];
    const warmUp = new WarmUp((token) => {
      events.push('begun');
      return new Promise((resolve) => {
        token.onCancellationRequested(() => {
          events.push('stopped');
          resolve();
        });
      });
    }, log);
    return { events, warmUp };
  }

  it('begins after a pause in typing, not before', () => {
    const { events, warmUp } = setUp();
    warmUp.touch();
    vi.advanceTimersByTime(idleMs - 1);
    warmUp.touch();
    vi.advanceTimersByTime(idleMs - 1);
    expect(events).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(events).toEqual(['begun']);
  });

  it('begins sooner where the cursor was moved, since the next key is near', () => {
    const { events, warmUp } = setUp();
    warmUp.moved();
    vi.advanceTimersByTime(restMs);
    expect(events).toEqual(['begun']);
  });

  it('stops at the next key', () => {
    const { events, warmUp } = setUp();
    warmUp.touch();
    vi.advanceTimersByTime(idleMs);
    warmUp.touch();
    expect(events).toEqual(['begun', 'stopped']);
  });

  it('ends when the window closes', () => {
    const { events, warmUp } = setUp();
    warmUp.touch();
    warmUp.dispose();
    vi.advanceTimersByTime(2 * idleMs);
    expect(events).toEqual([]);
  });
});
