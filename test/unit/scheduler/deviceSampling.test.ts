import { describe, expect, it } from 'vitest';
import { argmax, greedy, without } from '../../../engine/backend/sampler.ts';
import { type FreeTokens, free } from '../../../engine/sampling/logitsProcessor.ts';
import { Uniforms } from '../../../engine/sampling/random.ts';
import type { SamplingState, TokenRequest } from '../../../engine/scheduler/job.ts';
import { FakeDecoder, type FakeDecoderOptions, hashOf } from './fakeDecoder.ts';
import { schedulerOf } from './setUp.ts';

const vocabularySize = 50;

/** The fake decoder's tokens if its sequence is complete. */
function expectedTokens(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) tokens.push(hashOf(tokens, vocabularySize));
  return tokens.slice(prompt.length);
}

function sampling(fields: Partial<SamplingState> = {}): SamplingState {
  const history = { sequence: new Set<number>(), generated: new Set<number>() };
  return {
    rules: greedy,
    history,
    stopIds: new Set(),
    uniforms: (count) => new Array<number>(count).fill(0),
    sampled: () => {},
    free: () => free,
    ...fields,
  };
}

function request(prompt: readonly number[], fields: Partial<TokenRequest> = {}) {
  const received: number[] = [];
  const deliver = (token: number) => {
    received.push(token);
    return 'continue' as const;
  };
  const base: TokenRequest = { requestClass: 'chat', prompt, maxTokens: 20, choose: argmax, deliver };
  return { ...base, sampling: sampling(), ...fields, received };
}

/** The scheduler's clock counts the fake's passes: a sampled token takes a millisecond. */
function setUp(options: FakeDecoderOptions = {}) {
  const decoder = new FakeDecoder({ vocabularySize, draws: true, ...options });
  return { decoder, scheduler: schedulerOf(decoder) };
}

const prompt = [3, 1, 4, 1, 5, 9];

describe('tokens sampled on the device', () => {
  it('equal those sampled from logits, several a step', async () => {
    const { decoder, scheduler } = setUp();
    const chat = request(prompt, { maxTokens: 40 });
    const outcome = await scheduler.submit(chat);
    expect(chat.received).toEqual(expectedTokens(prompt, 40));
    expect(outcome).toMatchObject({ finish: 'length', generatedTokens: 40 });
    // The prompt's logits give the first token; the next step measures one token; the last step ends at the limit.
    expect(decoder.draws).toEqual([1, 16, 16, 6]);
  });

  it('are sampled one per step if each takes a full step', async () => {
    const decoder = new FakeDecoder({ vocabularySize, draws: true });
    const scheduler = schedulerOf(decoder, () => 30 * decoder.runs.length);
    const chat = request(prompt, { maxTokens: 5 });
    await scheduler.submit(chat);
    expect(chat.received).toEqual(expectedTokens(prompt, 5));
    expect(decoder.draws).toEqual([1, 1, 1, 1]);
  });

  it('end at a stop id, and the sequence holds no token after it', async () => {
    const { decoder, scheduler } = setUp();
    const wanted = expectedTokens(prompt, 9);
    const last = wanted[8] ?? 0;
    const until = wanted.indexOf(last) + 1;
    const chat = request(prompt, {
      maxTokens: 100,
      sampling: sampling({ stopIds: new Set([last]) }),
      deliver: (token) => (token === last ? 'stop' : 'continue'),
    });
    const outcome = await scheduler.submit(chat);
    expect(outcome).toMatchObject({ finish: 'stop', generatedTokens: until });
    const next = request([...prompt, ...wanted.slice(0, until), 7, 7], { maxTokens: 3 });
    await scheduler.submit(next);
    expect(next.received).toEqual(expectedTokens(next.prompt, 3));
    expect(decoder.live.size).toBeGreaterThan(0);
  });

  it('are dropped after a stop that only the text shows', async () => {
    const { scheduler } = setUp();
    const wanted = expectedTokens(prompt, 30);
    let count = 0;
    const used: number[] = [];
    const chat = request(prompt, {
      maxTokens: 100,
      sampling: sampling({ sampled: (tokens) => used.push(tokens) }),
      deliver: () => (++count === 7 ? 'stop' : 'continue'),
    });
    expect(await scheduler.submit(chat)).toMatchObject({ finish: 'stop', generatedTokens: 7 });
    // The first token came from logits.
    expect(used.reduce((sum, tokens) => sum + tokens, 0)).toBe(6);
    const next = request([...prompt, ...wanted.slice(0, 7), 8], { maxTokens: 3 });
    await scheduler.submit(next);
    expect(next.received).toEqual(expectedTokens(next.prompt, 3));
  });

  it('end with the step in which the request was cancelled, and leave the cache intact', async () => {
    const { decoder, scheduler } = setUp();
    const abort = new AbortController();
    const received: number[] = [];
    const outcome = await scheduler.submit(
      request(prompt, {
        maxTokens: 100,
        signal: abort.signal,
        deliver: (token) => {
          received.push(token);
          if (received.length === 5) abort.abort();
          return 'continue';
        },
      }),
    );
    expect(outcome).toMatchObject({ finish: 'cancelled', generatedTokens: 5 });
    expect(decoder.draws).toEqual([1, 16]);
    const next = request([...prompt, ...received, 2], { maxTokens: 4 });
    await scheduler.submit(next);
    expect(next.received).toEqual(expectedTokens(next.prompt, 4));
  });

  it('are replaced by a token that the request forces', async () => {
    const { decoder, scheduler } = setUp();
    const received: number[] = [];
    const forced = () => (received.length === 6 ? 42 : undefined);
    await scheduler.submit(
      request(prompt, {
        maxTokens: 12,
        choose: (logits) => forced() ?? argmax(logits),
        sampling: sampling({ free: () => (forced() === undefined ? free : undefined) }),
        deliver: (token) => {
          received.push(token);
          return 'continue';
        },
      }),
    );
    const start = expectedTokens(prompt, 6);
    expect(received).toEqual([...start, 42, ...expectedTokens([...prompt, ...start, 42], 5)]);
    expect(decoder.draws.length).toBeGreaterThan(2);
  });

  it('are dropped and sampled again if other tokens become forbidden', async () => {
    const { decoder, scheduler } = setUp();
    const received: number[] = [];
    const wanted = expectedTokens(prompt, 12);
    const [early, late]: number[][] = [[], [wanted[6] ?? 0]];
    const now = (): FreeTokens => ({ ...free, forbidden: (received.length < 6 ? early : late) ?? [] });
    await scheduler.submit(
      request(prompt, {
        maxTokens: 12,
        choose: (logits) => argmax(without(logits, now().forbidden)),
        sampling: sampling({ free: now }),
        deliver: (token) => {
          received.push(token);
          return 'continue';
        },
      }),
    );
    expect(received.slice(0, 6)).toEqual(wanted.slice(0, 6));
    expect(received).toHaveLength(12);
    expect(received.slice(6)).not.toContain(wanted[6]);
    // One token, then all that were left, of which five were kept, then the rest.
    expect(decoder.draws).toEqual([1, 10, 6]);
  });

  it("don't exceed the number that the request allows at once", async () => {
    const { decoder, scheduler } = setUp();
    const chat = request(prompt, { maxTokens: 20, sampling: sampling({ free: () => ({ ...free, tokens: 5 }) }) });
    await scheduler.submit(chat);
    expect(chat.received).toEqual(expectedTokens(prompt, 20));
    expect(decoder.draws).toEqual([1, 5, 5, 5, 3]);
  });

  it('stay within the context', async () => {
    const { scheduler } = setUp({ contextTokens: 16 });
    const chat = request(prompt, { maxTokens: 100 });
    expect((await scheduler.submit(chat)).finish).toBe('context');
    expect(chat.received).toEqual(expectedTokens(prompt, 11));
  });

  it('are sampled from logits if the request reads the logits', async () => {
    const { decoder, scheduler } = setUp();
    const chat = request(prompt, { sampling: undefined });
    await scheduler.submit(chat);
    expect(chat.received).toEqual(expectedTokens(prompt, 20));
    expect(decoder.draws).toEqual([]);
  });

  it('are sampled for several sequences at once', async () => {
    const { decoder, scheduler } = setUp({ maxSequencesPerRun: 4 });
    const chats = [prompt, [2, 7, 1], [1, 8, 2, 8]].map((ids) => request(ids));
    await Promise.all(chats.map((chat) => scheduler.submit(chat)));
    for (const chat of chats) expect(chat.received).toEqual(expectedTokens(chat.prompt, 20));
    expect(decoder.runs.some(({ sequences }) => sequences === 3)).toBe(true);
    expect(Math.max(...decoder.draws)).toBeGreaterThan(1);
  });

  it('fail only their own request', async () => {
    const { scheduler } = setUp({
      maxSequencesPerRun: 2,
      beforeRun: (batch) => {
        if (batch.some(({ sequence }) => sequence.length >= 8)) throw new Error('broken');
      },
    });
    const [long, short] = [request(prompt), request([1, 2], { maxTokens: 4 })];
    const [first, second] = await Promise.allSettled([scheduler.submit(long), scheduler.submit(short)]);
    expect(first).toMatchObject({ status: 'rejected', reason: { message: 'broken' } });
    expect(second).toMatchObject({ status: 'fulfilled', value: { generatedTokens: 4 } });
    expect(short.received).toEqual(expectedTokens([1, 2], 4));
  });
});

describe('tokens sampled ahead', () => {
  const setUpAhead = (options: FakeDecoderOptions = {}) => setUp({ samplesAhead: true, ...options });

  it('overlap: the next are submitted before the last are delivered', async () => {
    const { decoder, scheduler } = setUpAhead();
    const chat = request(prompt, { maxTokens: 40 });
    await scheduler.submit(chat);
    expect(chat.received).toEqual(expectedTokens(prompt, 40));
    // One token, which measures; then steps of 8 with 8 ahead, never beyond the end.
    expect(decoder.draws).toEqual([1, 8, 8, 8, 8, 6]);
    expect(decoder.ahead).toEqual([0, 8, 8, 8, 6, 0]);
  });

  it('delay no token: one per step if each takes a full step', async () => {
    const decoder = new FakeDecoder({ vocabularySize, draws: true, samplesAhead: true });
    const scheduler = schedulerOf(decoder, () => 30 * decoder.runs.length);
    await scheduler.submit(request(prompt, { maxTokens: 5 }));
    expect(decoder.ahead).toEqual([0, 0, 0, 0]);
  });

  it('end with the request that is cancelled: nothing more is submitted', async () => {
    const { decoder, scheduler } = setUpAhead();
    const abort = new AbortController();
    const received: number[] = [];
    const deliver = (token: number) => {
      received.push(token);
      if (received.length === 5) abort.abort();
      return 'continue' as const;
    };
    await scheduler.submit(request(prompt, { maxTokens: 100, signal: abort.signal, deliver }));
    expect(received).toHaveLength(5);
    expect(decoder.draws).toEqual([1, 8]);
  });

  it('are not begun while another request waits', async () => {
    const { decoder, scheduler } = setUpAhead();
    let key: Promise<unknown> | undefined;
    const deliver = (token: number) => {
      // Of the first step of 8 the last but one.
      if (++delivered === 9) {
        const keystroke = request([9, 9, 9], { requestClass: 'keystroke', maxTokens: 4, sampling: undefined });
        key = scheduler.submit(keystroke).then(() => keysAt.push(delivered));
      }
      received.push(token);
      return 'continue' as const;
    };
    let delivered = 0;
    const keysAt: number[] = [];
    const received: number[] = [];
    await scheduler.submit(request(prompt, { maxTokens: 40, deliver }));
    await key;
    expect(received).toEqual(expectedTokens(prompt, 40));
    // No token of the chat between the key's arrival and its answer, but the step that was under way.
    expect(keysAt).toEqual([10]);
    expect(decoder.ahead.slice(0, 2)).toEqual([0, 8]);
  });

  it('stay within the context', async () => {
    const { scheduler } = setUpAhead({ contextTokens: 16 });
    const chat = request(prompt, { maxTokens: 100 });
    expect((await scheduler.submit(chat)).finish).toBe('context');
    expect(chat.received).toEqual(expectedTokens(prompt, 11));
  });
});

describe('random numbers with look-ahead', () => {
  it('keep their values and their order', () => {
    let next = 0;
    const uniforms = new Uniforms(() => next++);
    expect(uniforms.next()).toBe(0);
    expect(uniforms.peek(3)).toEqual([1, 2, 3]);
    expect(uniforms.peek(2)).toEqual([1, 2]);
    uniforms.skip(2);
    expect(uniforms.next()).toBe(3);
    expect(uniforms.next()).toBe(4);
  });
});
