import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  chatParams,
  chatResult,
  completeParams,
  completeResult,
  type Delta,
  engineStatus,
  generateParams,
  type Progress,
  summariseParams,
  summariseResult,
  warmParams,
  warmResult,
} from '../../../engine/protocol/engineProtocol.ts';
import { loadParams, modelCard, modelEntry } from '../../../engine/protocol/models.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { makeTinyModel } from './tinyModel.ts';

let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let store: string;
const deltas: Delta[] = [];
const progress: Progress[] = [];
let engine: Engine;

beforeAll(async () => {
  tiny = await makeTinyModel();
  store = temporaryFolder();
  engine = new Engine({
    storeDirectory: store,
    onDelta: (delta) => deltas.push(delta),
    onProgress: (step) => progress.push(step),
  });
});
afterAll(async () => {
  await engine.unload();
  await tiny.remove();
});

const load = (fields: object = {}) => loadParams.parse({ model: tiny.path, backend: 'reference', ...fields });
const ask = (stream: string, fields: object = {}) =>
  chatParams.parse({
    stream,
    messages: [{ role: 'user', content: 'tell me' }],
    maxTokens: 24,
    sampling: { temperature: 0 },
    ...fields,
  });
const textOf = (stream: string): string =>
  deltas.flatMap((delta) => (delta.stream === stream && delta.kind === 'text' ? [delta.text] : [])).join('');

describe('the engine without a model', () => {
  it('is empty, and says so when asked', async () => {
    expect(engineStatus.parse(engine.status())).toMatchObject({ state: 'empty', queuedRequests: 0 });
    await expect(engine.chat(ask('none'))).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('refuses what does not exist with the name in the message', async () => {
    await expect(engine.load(load({ model: '/no/such/model' }))).rejects.toMatchObject({ code: 'not-found' });
    await expect(engine.load(load({ model: '/no/such/model' }))).rejects.toThrow('/no/such/model');
    expect(engine.status().state).toBe('empty');
  });

  it('lists the catalogue as the protocol says', async () => {
    const entries = await engine.models.list();
    for (const entry of entries) modelEntry.parse(entry);
    expect(entries).toContainEqual(expect.objectContaining({ id: 'smollm2-135m-instruct', state: 'absent' }));
  });
});

describe('the engine with a model', () => {
  it('loads it and describes it', async () => {
    const card = modelCard.parse(await engine.load(load()));
    expect(card).toMatchObject({
      id: tiny.path,
      family: 'llama',
      backend: 'reference',
      contextTokens: 2048,
      thinkingModes: ['off', 'on'],
      fillInTheMiddle: true,
      chat: true,
    });
    // 512 x 96 embedding; 3 layers of 96² + 2·96·32 + 96² attention, 3·96·256 feed-forward, 2·96 norms; 96 norm.
    expect(card.parameters).toBe(512 * 96 + 3 * (2 * 96 * 96 + 2 * 96 * 32 + 3 * 96 * 256 + 2 * 96) + 96);
    expect(engine.status()).toMatchObject({ state: 'ready', model: { id: tiny.path } });
    expect(progress.at(-1)).toMatchObject({ task: 'load', subject: tiny.path, unit: 'bytes' });
  });

  it('does not load the same again', async () => {
    const before = progress.length;
    expect(await engine.load(load())).toMatchObject({ id: tiny.path });
    expect(progress).toHaveLength(before);
  });

  it('streams a chat whose pieces are its answer, the same every time', async () => {
    const first = chatResult.parse(await engine.chat(ask('first')));
    const second = await engine.chat(ask('second'));
    expect(first.text.length).toBeGreaterThan(10);
    expect(textOf('first')).toBe(first.text);
    const counts = deltas.flatMap((delta) => (delta.stream === 'first' && 'tokens' in delta ? [delta.tokens] : []));
    expect(counts).toEqual(counts.toSorted((a, b) => (a ?? 0) - (b ?? 0)));
    expect(counts.at(-1)).toBe(first.statistics.generatedTokens);
    expect(second.text).toBe(first.text);
    expect(second.statistics.cachedTokens).toBe(second.statistics.promptTokens - 1);
    expect(engine.status().last).toEqual(second.statistics);
  });

  it('counts tokens in the model’s vocabulary, framing as text', async () => {
    expect(await engine.countTokens({ texts: ['', 'a', '<|end|>'] })).toEqual([0, 1, 6]); // 'nd' is a token
  });

  it('answers a completion, a status request and a cancellation while long chats are being prepared', async () => {
    // Words that no cache of pieces knows: each chat takes several slices.
    const messages = Array.from({ length: 10_001 }, (_, i) => ({
      role: i % 2 === 0 ? 'user' : 'assistant',
      content: `${i} ${((i * 7919) % 99_991).toString(2)}x`.repeat(2),
    }));
    const controller = new AbortController();
    let ended = 0;
    const submitted = engine.status().requests?.classes.chat.submitted;
    const chats = Array.from({ length: 24 }, async (_, i) => {
      const result = await engine.chat(ask(`long${i}`, { messages }), controller.signal);
      ended++;
      return result;
    });
    const completion = await engine.complete(completeParams.parse({ prefix: 'const a', suffix: '', maxTokens: 2 }));
    expect(completion.statistics.generatedTokens).toBeGreaterThan(0);
    expect(engineStatus.parse(engine.status())).toMatchObject({ state: 'busy' });
    expect(engine.status().requests?.classes.chat.submitted).toBe(submitted);
    expect(ended).toBe(0);
    controller.abort();
    for (const result of await Promise.all(chats)) {
      // Cancelled before anything was asked of the model.
      expect(result).toMatchObject({ finish: 'cancelled', text: '', statistics: { promptTokens: 0 } });
    }
  });

  it('answers a chat of 10,000 turns from those that fit', async () => {
    const messages = Array.from({ length: 10_000 }, (_, i) => ({
      role: i % 2 === 1 ? 'user' : 'assistant',
      content: `${i}`,
    }));
    const answer = await engine.chat(ask('ten thousand', { messages, maxTokens: 4 }));
    expect(answer.statistics.promptTokens).toBeLessThanOrEqual(2048);
    expect(answer.statistics.promptTokens).toBeGreaterThan(1000);
    expect(answer.droppedMessages).toBeGreaterThan(9000);
  });

  it('prefills a second turn from where the first one ended', async () => {
    const question = { role: 'user' as const, content: 'tell me about the sea' };
    const thinking = 'on';
    const first = await engine.chat(ask('turn1', { messages: [question], thinking }));
    const messages = [question, { role: 'assistant', content: first.text }, { role: 'user', content: 'more' }];
    const second = await engine.chat(ask('turn2', { messages, thinking }));
    expect(second.statistics.cachedTokens).toBeGreaterThanOrEqual(first.statistics.promptTokens);
  });

  it('gives the same text for the same seed and other text for another', async () => {
    const draw = (seed: number) => engine.chat(ask('seeded', { sampling: { temperature: 1.5, seed } }));
    const [one, again, other] = [await draw(1), await draw(1), await draw(2)];
    expect(again.text).toBe(one.text);
    expect(other.text).not.toBe(one.text);
  });

  it('continues a raw prompt and answers any other as a chat', async () => {
    const raw = generateParams.parse({
      stream: 'raw',
      prompt: 'tell me',
      raw: true,
      maxTokens: 8,
      sampling: { temperature: 0 },
    });
    const { statistics } = await engine.generate(raw);
    const chatted = await engine.generate({ ...raw, raw: false });
    expect(chatted.statistics.promptTokens).toBeGreaterThan(statistics.promptTokens);
  });

  it('completes code by the vocabulary’s own middle', async () => {
    const params = completeParams.parse({ prefix: 'const a = ', suffix: ';\n', maxTokens: 8 });
    const { statistics, text } = completeResult.parse(await engine.complete(params));
    expect(statistics.generatedTokens).toBeGreaterThan(0);
    expect(text).not.toContain('<|');
    expect(text).not.toContain('\n');
  });

  it("warms a completion's prompt up, which then hits the cache; a cancelled warm-up keeps what it computed", async () => {
    const place = { prefix: Array.from({ length: 30 }, (_, i) => `const warm${i} = ${i};`).join('\n'), suffix: '\n' };
    const controller = new AbortController();
    controller.abort();
    const ahead = warmParams.parse({ kind: 'completion', ...place, maxTokens: 8 });
    expect(await engine.warm(ahead, controller.signal)).toMatchObject({ finish: 'cancelled' });
    const warmed = warmResult.parse(await engine.warm(ahead));
    expect(warmed).toMatchObject({ cachedTokens: 0, finish: 'length' });
    const { statistics } = await engine.complete(completeParams.parse({ ...place, maxTokens: 8 }));
    expect(statistics.cachedTokens).toBe(warmed.promptTokens - 1);
  });

  it('summarises a file longer than the context in parts, with progress', async () => {
    await engine.load(load({ contextTokens: 512 }));
    const text = Array.from({ length: 40 }, (_, i) => `def f${i}(x):\n    return x + ${i}\n`).join('\n');
    const params = summariseParams.parse({ stream: 'sum', path: 'a.py', text, languageId: 'python', maxTokens: 16 });
    const summary = summariseResult.parse(await engine.summarise(params));
    expect(summary.parts).toBeGreaterThan(2);
    expect(textOf('sum')).toBe(summary.text);
    // The names are found where the client sends none.
    expect(summary.text).toMatch(/\*\*Lines 1–\d+ \(`f0`, `f1`, .*\)\*\*/);
    const steps = progress.filter(({ subject }) => subject === 'sum');
    expect(steps.length).toBeGreaterThan(summary.parts);
    await engine.load(load());
  });

  it('returns the text of a cancelled chat, and ends a cancelled completion as an error', async () => {
    const controller = new AbortController();
    const cancelling = new Engine({
      storeDirectory: store,
      onDelta: () => controller.abort(),
      onProgress: () => {},
    });
    await cancelling.load(load());
    const answer = await cancelling.chat(ask('cut', { maxTokens: 1000 }), controller.signal);
    expect(answer.finish).toBe('cancelled');
    expect(answer.statistics.generatedTokens).toBeLessThan(10);
    const params = completeParams.parse({ prefix: 'a', suffix: '' });
    await expect(cancelling.complete(params, controller.signal)).rejects.toMatchObject({ code: 'cancelled' });
    await cancelling.unload();
  });

  it('is busy while it answers and ready again afterwards', async () => {
    const answers = [engine.chat(ask('busy1')), engine.chat(ask('busy2'))];
    expect(engine.status()).toMatchObject({ state: 'busy', queuedRequests: 1 });
    await Promise.all(answers);
    expect(engine.status()).toMatchObject({ state: 'ready', queuedRequests: 0 });
  });

  it('fails any request at its deadline', async () => {
    const timeoutMs = 1;
    // A warm-up of one pass could begin within the millisecond, but never beside a chat.
    const blocker = new AbortController();
    const blocked = engine.chat(ask('blocker', { maxTokens: 1000 }), blocker.signal);
    await vi.waitFor(() => expect(textOf('blocker')).not.toBe(''));
    const place = { prefix: 'value = other(1)\n'.repeat(60), suffix: '\n' };
    const file = { stream: 'late', path: 'a.py', text: place.prefix, languageId: 'python', fresh: true };
    const requests = [
      engine.complete(completeParams.parse({ ...place, timeoutMs })),
      engine.chat(ask('late', { maxTokens: 1000, timeoutMs })),
      engine.generate(generateParams.parse({ stream: 'late', prompt: 'x', raw: true, maxTokens: 1000, timeoutMs })),
      engine.warm(warmParams.parse({ kind: 'completion', ...place, timeoutMs })),
      engine.warm(warmParams.parse({ kind: 'chat', messages: [{ role: 'user', content: place.prefix }], timeoutMs })),
      engine.summarise(summariseParams.parse({ ...file, timeoutMs })),
    ];
    const ends = await Promise.allSettled(requests);
    expect(ends.map((end) => end.status === 'rejected' && end.reason.code)).toEqual(requests.map(() => 'timeout'));
    blocker.abort();
    await blocked;
    expect(engine.status()).toMatchObject({ state: 'ready', queuedRequests: 0 });
  });

  it('counts requests and work by class', async () => {
    const before = engine.status().requests?.classes;
    await engine.chat(ask('counted'));
    const { requests } = engineStatus.parse(engine.status());
    expect(requests?.classes.chat.finished).toBe((before?.chat.finished ?? 0) + 1);
    expect(requests?.classes.keystroke).toEqual(before?.keystroke);
  });

  it('cancels running requests when another model is loaded', async () => {
    const answer = engine.chat(ask('ended', { maxTokens: 1000 }));
    await engine.load(load({ contextTokens: 256 }));
    expect(await answer).toMatchObject({ finish: 'cancelled' });
    expect(engine.status().model?.contextTokens).toBe(256);
  });

  it('shares one load between callers, and a later load ends an earlier one', async () => {
    const first = engine.load(load({ contextTokens: 300 }));
    const same = engine.load(load({ contextTokens: 300 }));
    const later = engine.load(load({ contextTokens: 400 }));
    await expect(first).rejects.toMatchObject({ code: 'cancelled' });
    await expect(same).rejects.toMatchObject({ code: 'cancelled' });
    expect(await later).toMatchObject({ contextTokens: 400 });
    expect(engine.status()).toMatchObject({ state: 'ready', model: { contextTokens: 400 } });
  });

  it('refuses a context that the model does not reach, with both numbers', async () => {
    await expect(engine.load(load({ contextTokens: 1_000_000 }))).rejects.toThrow(/2048.*1000000/);
  });

  it('is empty after unloading', async () => {
    await engine.unload();
    expect(engine.status().state).toBe('empty');
    await engine.unload();
  });
});

describe('a checkpoint without a vocabulary', () => {
  it('loads, and says that it cannot chat', async () => {
    const golden = resolve(import.meta.dirname, '../../fixtures/goldens/llama');
    const card = await engine.load(load({ model: golden }));
    expect(card).toMatchObject({ chat: false, fillInTheMiddle: false });
    await expect(engine.chat(ask('mute'))).rejects.toMatchObject({ code: 'unsupported' });
  });

  it('takes sampling values from generation_config.json and refuses malformed ones', async () => {
    await writeFile(join(tiny.path, 'generation_config.json'), JSON.stringify({ temperature: 'hot' }));
    await expect(engine.load(load())).rejects.toMatchObject({ code: 'invalid-input' });
    await writeFile(join(tiny.path, 'generation_config.json'), JSON.stringify({ do_sample: false }));
    await engine.load(load());
    const own = ask('own', { sampling: {} });
    expect((await engine.chat(own)).text).toBe((await engine.chat({ ...own, stream: 'own2' })).text);
  });
});
