import { describe, expect, it } from 'vitest';
import { longestShared, PrefixCache, sharedLength } from '../../../engine/kv/prefixCache.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);
const blockTokens = 32;

interface SetUp {
  readonly maxIdle?: number;
  readonly blocks?: number;
  readonly slidingWindow?: number;
}

function setUp({ maxIdle = 2, ...options }: SetUp = {}) {
  const decoder = new FakeDecoder({ contextTokens: 4000, vocabularySize: 10, ...options });
  const cache = new PrefixCache({ decoder, maxIdle: () => maxIdle });
  /** A request: takes a sequence, makes room, computes the rest, gives it back. */
  const use = async (tokens: number[], owner = 'chat', marks: number[] = []): Promise<number> => {
    const lease = cache.acquire(tokens, owner);
    lease.sequence.setCheckpoints(marks);
    const { sequence, cachedTokens } = lease;
    cache.evictFor([{ sequence, tokens: tokens.length - cachedTokens }]);
    await decoder.run([{ sequence, tokens: tokens.slice(cachedTokens), logits: 'none' }]);
    cache.release(lease, tokens);
    return cachedTokens;
  };
  return { decoder, cache, use };
}

describe('the prefix cache', () => {
  it('creates a sequence for an unknown prompt', async () => {
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

  it('leaves the last token to compute if all are cached', async () => {
    const { use } = setUp();
    await use(range(40));
    expect(await use(range(40))).toBe(39);
    expect(await use(range(20))).toBe(19);
  });

  it('returns a sequence that holds exactly the shared prefix', async () => {
    const { decoder, use } = setUp();
    await use(range(60));
    expect(await use([...range(40), 7, 7, 7])).toBe(40);
    const [sequence] = [...decoder.live];
    expect(sequence?.tokens).toEqual([...range(40), 7, 7, 7]);
  });

  it('evicts the least recently used beyond the memory limit of idle sequences, never the last one', async () => {
    const { decoder, cache, use } = setUp({ maxIdle: 8 });
    const idleLimitBytes = 4 * blockTokens;
    const memory = decoder.memory.bind(decoder);
    // FakeDecoder counts a byte for each token of its blocks.
    decoder.memory = () => ({ ...memory(), idleLimitBytes });
    for (const first of [0, 1000, 2000, 3000]) await use(range(2 * blockTokens, first));
    expect(decoder.memory().cacheBytes).toBeLessThanOrEqual(idleLimitBytes);
    expect(cache.cachedPrefixTokens(range(2 * blockTokens, 0))).toBe(0);
    expect(cache.cachedPrefixTokens(range(2 * blockTokens, 3000))).toBe(2 * blockTokens);
    await use(range(5 * blockTokens, 500));
    expect(cache.idle.size).toBe(1);
  });

  it('ignores a shared prefix that is too short', async () => {
    const { use } = setUp();
    await use(range(60));
    expect(await use([...range(10), ...range(50, 700)])).toBe(0);
  });

  it('forks a shared preamble instead of truncating another conversation', async () => {
    const { use } = setUp({ maxIdle: 3 });
    const first = [...range(20), ...range(200, 300)];
    const second = [...range(20), ...range(200, 600)];
    await use(first);
    expect(await use(second)).toBe(20);
    expect(await use([...first, 1])).toBe(220);
    expect(await use([...second, 1])).toBe(220);
  });

  it('forks the sequence of another request class', async () => {
    const { use } = setUp();
    await use(range(100), 'chat');
    expect(await use([...range(90), 5, 5], 'summary')).toBe(90);
    expect(await use(range(120), 'chat')).toBe(100);
  });

  it('keeps a chat despite any number of keystrokes and summaries', async () => {
    const { decoder, use } = setUp();
    await use(range(100), 'chat');
    for (let i = 0; i < 50; i++) {
      await use(range(80, 1000 + 100 * i), 'keystroke');
      await use(range(80, 9000 + 100 * i), 'summary');
    }
    expect(await use(range(101), 'chat')).toBe(100);
    expect(decoder.live.size).toBe(5);
  });

  it('evicts the least recently used sequences, and only as many as needed', async () => {
    const { cache, decoder, use } = setUp({ blocks: 8 });
    await use(range(3 * blockTokens), 'chat');
    await use(range(3 * blockTokens, 1000), 'keystroke');
    expect(decoder.pool.freeBlocks).toBe(2);
    await use(range(3 * blockTokens, 2000), 'summary');
    expect(cache.idle.size).toBe(2);
    expect(decoder.pool.freeBlocks).toBe(2);
    expect(await use(range(3 * blockTokens, 1000), 'keystroke')).toBe(3 * blockTokens - 1);
    expect(await use(range(3 * blockTokens), 'chat')).toBe(0);
  });

  it('counts shared blocks once', async () => {
    const { decoder, use } = setUp({ maxIdle: 4 });
    const preamble = range(4 * blockTokens);
    const free = decoder.pool.freeBlocks;
    for (const from of [1000, 2000, 3000]) await use([...preamble, ...range(5 * blockTokens, from)], 'chat');
    expect(free - decoder.pool.freeBlocks).toBe(4 + 3 * 5);
  });

  it('evicts before a prompt is computed', async () => {
    const { cache, decoder, use } = setUp({ blocks: 8 });
    await use(range(6 * blockTokens));
    const { sequence } = cache.acquire(range(3 * blockTokens, 500), 'keystroke');
    expect(cache.evictFor([{ sequence, tokens: 3 * blockTokens }])).toBe(true);
    expect(decoder.pool.freeBlocks).toBe(8);
    expect(cache.evictFor([{ sequence, tokens: 9 * blockTokens }])).toBe(false);
  });

  it('remembers only the tokens that were computed', async () => {
    const { cache, decoder, use } = setUp();
    const lease = cache.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(25), logits: 'none' }]);
    cache.release(lease, range(40));
    expect(await use(range(40))).toBe(25);
  });

  it('forgets a discarded sequence', async () => {
    const { cache, decoder, use } = setUp();
    const lease = cache.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(40), logits: 'none' }]);
    cache.discard(lease);
    expect(decoder.live.size).toBe(0);
    expect(await use(range(40))).toBe(0);
  });

  it('refuses a sequence that is given back twice, or with too few tokens', async () => {
    const { cache, decoder } = setUp();
    const lease = cache.acquire(range(40), 'chat');
    await decoder.run([{ sequence: lease.sequence, tokens: range(40), logits: 'none' }]);
    expect(() => cache.release(lease, range(10))).toThrow('40 tokens was released with only 10 token ids');
    expect(() => cache.release(lease, range(40))).toThrow('twice');
  });

  it('accepts a decoder that can’t truncate as far as asked', () => {
    const { cache, decoder } = setUp();
    const lease = cache.acquire(range(60), 'chat');
    for (const sequence of decoder.live) {
      sequence.tokens = range(60);
      sequence.reachable = () => 0;
      sequence.truncate = () => {
        sequence.tokens.length = 0;
        return 0;
      };
    }
    cache.release(lease, range(60));
    expect(cache.acquire(range(50), 'chat').cachedTokens).toBe(0);
  });

  it('chooses the sequence with the longest reachable prefix, not the longest sequence', async () => {
    const { cache, use } = setUp({ slidingWindow: 32 });
    const prompt = range(900);
    // Shares 900 tokens, and goes back to a snapshot of 512; shares 800, and goes back to a mark there.
    await use([...prompt, ...range(1000, 2000)], 'chat');
    await use([...prompt.slice(0, 800), ...range(1000, 5000)], 'summary', [800]);
    expect(cache.cachedPrefixTokens([...prompt, 7])).toBe(800);
    expect(await use([...prompt, 7], 'chat')).toBe(800);
  });

  it('truncates no further than needed with a sliding window', async () => {
    const { use } = setUp({ slidingWindow: 32 });
    const conversation = [...range(700), ...range(500, 2000)];
    await use(conversation, 'chat', [701]);
    expect(await use([...range(700), 1, 1], 'chat', [701])).toBe(700);
  });

  it('releases everything when cleared', async () => {
    const { cache, decoder, use } = setUp();
    await use(range(40));
    cache.clear();
    expect(decoder.live.size).toBe(0);
    expect(decoder.pool.usedBlocks).toBe(0);
    expect(cache.idle.size).toBe(0);
  });

  it('finds the longest prefix that a sequence holds after any requests and evictions', async () => {
    const { cache, decoder, use } = setUp({ maxIdle: 6, blocks: 20 });
    const random = seededRandom(11);
    const pick = (count: number): number => Math.floor(random() * count);
    const prompt = (): number[] =>
      Array.from({ length: 1 + pick(8) }, () => (random() < 0.6 ? range(8) : range(8, 100))).flat();
    let found = 0;
    for (let round = 0; round < 2000; round++) {
      await use(prompt(), `owner ${pick(3)}`);
      const asked = prompt();
      const held = [...decoder.live].map(({ tokens }) => tokens.findIndex((id, i) => id !== asked[i]));
      const shares = [...decoder.live].map(({ tokens }, i) => (held[i] === -1 ? tokens.length : (held[i] ?? 0)));
      expect(cache.cachedPrefixTokens(asked)).toBe(Math.max(0, ...shares));
      found += Math.max(0, ...shares) > 0 ? 1 : 0;
    }
    expect(found).toBeGreaterThan(1000);
  });
});

describe('the longest shared prefix', () => {
  const ids = (text: string): number[] => [...text].map((char) => char.charCodeAt(0));
  const longest = (texts: readonly string[], asked: string) =>
    longestShared(texts, (text) => sharedLength(ids(text), ids(asked)));

  it('is empty if no list shares one', () => {
    expect(longest(['abc'], 'xbc')).toEqual({ shared: 0, entries: [] });
    expect(longest([], 'abc')).toEqual({ shared: 0, entries: [] });
  });

  it('is that of a longer list, of a shorter one, or of those that diverge at the same position', () => {
    expect(longest(['abcdef'], 'abc')).toEqual({ shared: 3, entries: ['abcdef'] });
    expect(longest(['abc'], 'abcdef')).toEqual({ shared: 3, entries: ['abc'] });
    expect(longest(['abxx', 'acz', 'abyy'], 'abzz')).toEqual({ shared: 2, entries: ['abxx', 'abyy'] });
    expect(longest(['ab', 'abcd'], 'abce')).toEqual({ shared: 3, entries: ['abcd'] });
  });
});
