import { describe, expect, it } from 'vitest';
import { type PoolOptions, SequencePool } from '../../../engine/cache/sequencePool.ts';
import { FakeDecoder } from '../generation/fakeDecoder.ts';

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

function setUp(options: Partial<PoolOptions> = {}) {
  const decoder = new FakeDecoder({ contextTokens: 1000, vocabularySize: 10 });
  const pool = new SequencePool({
    createSequence: () => decoder.createSequence(),
    bytesPerToken: 1,
    budgetBytes: 1_000_000,
    maxIdlePerOwner: 2,
    ...options,
  });
  /** What a request does: take a sequence, compute the rest, give it back. */
  const use = async (tokens: number[], owner = 'chat'): Promise<number> => {
    const lease = pool.acquire(tokens, owner);
    const { sequence, cachedTokens } = lease;
    await decoder.run([{ sequence, tokens: tokens.slice(cachedTokens), logits: 'none' }]);
    pool.release(lease, tokens);
    return cachedTokens;
  };
  return { decoder, pool, use };
}

describe('a sequence pool', () => {
  it('gives a new sequence for a prompt it has not seen', async () => {
    const { use } = setUp();
    expect(await use(range(40))).toBe(0);
    expect(await use(range(40, 500))).toBe(0);
  });

  it('continues a conversation where it stopped, in the same sequence', async () => {
    const { decoder, use } = setUp();
    await use(range(40));
    expect(await use(range(60))).toBe(40);
    expect(decoder.live.size).toBe(1);
  });

  it('leaves the last token to compute when all of them are cached', async () => {
    const { use } = setUp();
    await use(range(40));
    expect(await use(range(40))).toBe(39);
    expect(await use(range(20))).toBe(19);
  });

  it('holds exactly the shared beginning when it hands out a sequence', async () => {
    const { decoder, use } = setUp();
    await use(range(60));
    expect(await use([...range(40), 7, 7, 7])).toBe(40);
    const [sequence] = [...decoder.live];
    expect(sequence?.tokens).toEqual([...range(40), 7, 7, 7]);
  });

  it('ignores a shared beginning too short to pay', async () => {
    const { use } = setUp();
    await use(range(60));
    expect(await use([...range(10), ...range(50, 700)])).toBe(0);
  });

  it('copies a shared preamble instead of cutting another conversation short', async () => {
    const { use } = setUp({ maxIdlePerOwner: 3 });
    const first = [...range(20), ...range(200, 300)];
    const second = [...range(20), ...range(200, 600)];
    await use(first);
    expect(await use(second)).toBe(20);
    expect(await use([...first, 1])).toBe(220);
    expect(await use([...second, 1])).toBe(220);
  });

  it('lets one kind of request begin from the tokens of another without taking them away', async () => {
    const { use } = setUp();
    await use(range(100), 'chat');
    expect(await use([...range(90), 5, 5], 'summary')).toBe(90);
    expect(await use(range(120), 'chat')).toBe(100);
  });

  it('keeps a chat through any number of keystrokes and summaries', async () => {
    const { decoder, use } = setUp();
    await use(range(100), 'chat');
    for (let i = 0; i < 50; i++) {
      await use(range(80, 1000 + 100 * i), 'keystroke');
      await use(range(80, 9000 + 100 * i), 'summary');
    }
    expect(await use(range(101), 'chat')).toBe(100);
    expect(decoder.live.size).toBe(5);
  });

  it('drops the longest unused sequences when the budget is spent, and counts what it holds', async () => {
    const { pool, decoder, use } = setUp({ budgetBytes: 250 });
    await use(range(100), 'chat');
    await use(range(100, 1000), 'keystroke');
    expect(pool.bytes).toBe(200);
    await use(range(100, 2000), 'summary');
    expect(pool.bytes).toBe(200);
    expect(decoder.live.size).toBe(2);
    expect(await use(range(101, 1000), 'keystroke')).toBe(100);
    expect(await use(range(101), 'chat')).toBe(0);
  });

  it('makes room before a prompt is computed, not after', () => {
    const { pool, decoder } = setUp({ budgetBytes: 250 });
    const filled = pool.acquire(range(200), 'chat');
    filled.sequence.truncate(0);
    for (const sequence of decoder.live) sequence.tokens = range(200);
    pool.release(filled, range(200));
    pool.acquire(range(100, 500), 'keystroke');
    expect(pool.bytes).toBe(0);
  });

  it('remembers only the tokens that were computed', async () => {
    const { pool, decoder, use } = setUp();
    const lease = pool.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(25), logits: 'none' }]);
    pool.release(lease, range(40));
    expect(await use(range(40))).toBe(25);
  });

  it('forgets a discarded sequence', async () => {
    const { pool, decoder, use } = setUp();
    const lease = pool.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(40), logits: 'none' }]);
    pool.discard(lease);
    expect(decoder.live.size).toBe(0);
    expect(await use(range(40))).toBe(0);
  });

  it('refuses a sequence that is given back twice, or with too few tokens', async () => {
    const { pool, decoder } = setUp();
    const lease = pool.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(40), logits: 'none' }]);
    expect(() => pool.release(lease, range(10))).toThrow('40 tokens was released with 10');
    expect(() => pool.release(lease, range(40))).toThrow('twice');
  });

  it('copes with a decoder that cannot rewind as far as asked', () => {
    const { pool, decoder } = setUp();
    const lease = pool.acquire(range(60), 'chat');
    for (const sequence of decoder.live) {
      sequence.tokens = range(60);
      sequence.truncate = () => {
        sequence.tokens.length = 0;
        return 0;
      };
    }
    pool.release(lease, range(60));
    expect(pool.acquire(range(50), 'chat').cachedTokens).toBe(0);
  });

  it('frees everything when cleared', async () => {
    const { pool, decoder, use } = setUp();
    await use(range(40));
    pool.clear();
    expect(decoder.live.size).toBe(0);
    expect(pool.bytes).toBe(0);
  });
});
