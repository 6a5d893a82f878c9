import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import type { ModelEntry } from '../../../engine/protocol/models.ts';
import { pageTexts } from '../../../extension/chat/pages.ts';
import { EngineFailure } from '../../../extension/client/failure.ts';
import { limits } from '../../../extension/limits.ts';
import { chooseCompletionModel, chooseModel, offerLabel } from '../../../extension/models/choose.ts';
import { statusText } from '../../../extension/status.ts';
import { clientOf, logged, untilState } from './support.ts';
import { settings, window } from './vscode.ts';

const never = new CancellationTokenSource().token;
const codeOf = (promise: Promise<unknown>): Promise<string | undefined> =>
  promise.then(
    () => undefined,
    (error: unknown) => (error instanceof EngineFailure ? error.code : String(error)),
  );

function entry(id: string, over: Partial<ModelEntry> = {}): ModelEntry {
  return {
    id,
    name: id.toUpperCase(),
    description: '',
    licence: 'MIT',
    family: 'llama',
    embedding: false,
    fillInTheMiddle: false,
    contextTokens: 8192,
    parameters: 1,
    downloadBytes: 1,
    state: 'absent',
    fit: { verdict: 'good', reason: '' },
    recommendedFor: [],
    suitability: {},
    ...over,
  };
}

describe('the choice of a model', () => {
  it('is never an embedding model, unless the setting names it', () => {
    const vectors = entry('vectors', { embedding: true, state: 'present' });
    expect(chooseModel('', [vectors])).toEqual({ kind: 'download', offers: [] });
    expect(chooseModel('vectors', [vectors])).toMatchObject({ kind: 'use', model: 'vectors' });
  });

  const small = entry('small', { downloadBytes: 1e8, suitability: { chat: 1 } });
  const best = entry('best', { downloadBytes: 5e9, suitability: { chat: 3 } });
  const huge = entry('huge', { fit: { verdict: 'no', reason: '' } });
  const present = (model: ModelEntry): ModelEntry => ({ ...model, state: 'present' });

  it('uses the model of the setting if it is on disk', () => {
    expect(chooseModel('small', [present(small), present(best)])).toMatchObject({ kind: 'use', model: 'small' });
  });

  it('offers to download the model of the setting', () => {
    expect(chooseModel('best', [small, best])).toEqual({ kind: 'download', offers: [{ entry: best }] });
  });

  it('accepts an absolute path', () => {
    expect(chooseModel('/models/My.gguf', [])).toEqual({ kind: 'use', model: '/models/My.gguf', name: 'My.gguf' });
  });

  it('reports an unknown model', () => {
    expect(chooseModel('nonsense', [small])).toEqual({ kind: 'unknown', model: 'nonsense' });
  });

  it('is the one on disk that suits best, as the engine says', () => {
    expect(chooseModel('', [present(small), present(best)])).toMatchObject({ model: 'best' });
    expect(chooseModel('', [present(small), best])).toMatchObject({ model: 'small' });
  });

  it("never uses or offers a model that doesn't suit", () => {
    expect(chooseModel('', [present(huge), small])).toEqual({ kind: 'download', offers: [{ entry: small }] });
    expect(chooseModel('', [huge])).toEqual({ kind: 'download', offers: [] });
  });

  it('offers the best and the quickest download', () => {
    const offers = [{ entry: best }, { entry: small }];
    expect(chooseModel('', [best, small, huge])).toEqual({ kind: 'download', offers });
    expect(chooseModel('', [best])).toEqual({ kind: 'download', offers: [{ entry: best }] });
  });

  it('offers the recommended pair in one', () => {
    const chat: ModelEntry = { ...best, recommendedFor: ['chat'] };
    const completes = entry('coder', { downloadBytes: 1e9, recommendedFor: ['completion'], suitability: { chat: 2 } });
    const pair = { entry: chat, completes };
    expect(chooseModel('', [small, completes, chat])).toEqual({ kind: 'download', offers: [pair, { entry: small }] });
    expect(offerLabel(pair)).toBe('BEST and, for completions, CODER (6.0 GB)');
    const there = { ...completes, state: 'present' as const, suitability: {} };
    expect(chooseModel('', [there, chat])).toEqual({ kind: 'download', offers: [{ entry: chat }] });
  });
});

describe('the choice of a model that completes', () => {
  const coder = (id: string, completion: number, over: Partial<ModelEntry> = {}) =>
    entry(id, { fillInTheMiddle: true, state: 'present', suitability: { chat: 1, completion }, ...over });
  const chat = entry('chat', { state: 'present', suitability: { chat: 9 } });

  it('is the chat model if it was trained to fill in, or if nothing else was', () => {
    expect(chooseCompletionModel('', coder('both', 1), [coder('both', 1), coder('other', 2)])).toBeUndefined();
    expect(chooseCompletionModel('', chat, [chat, coder('absent', 1, { state: 'absent' })])).toBeUndefined();
    expect(chooseCompletionModel('', undefined, [chat, coder('coder', 1)])).toBeUndefined();
  });

  it('is otherwise the one on this computer that suits best, as the engine says', () => {
    const models = [
      chat,
      coder('small', 1),
      coder('medium', 3),
      coder('large', 2),
      coder('absent', 9, { state: 'absent' }),
    ];
    expect(chooseCompletionModel('', chat, models)).toMatchObject({ model: 'medium' });
    expect(chooseCompletionModel('', chat, [chat, coder('huge', 1, { suitability: {} })])).toBeUndefined();
  });

  it('is the one that the setting names, or the chat model if it says so', () => {
    const coders = [chat, coder('coder', 1)];
    expect(chooseCompletionModel('coder', coder('both', 1), coders)).toMatchObject({ kind: 'use', model: 'coder' });
    expect(chooseCompletionModel('chat', chat, coders)).toBeUndefined();
    expect(chooseCompletionModel('/models/Own.gguf', chat, coders)).toMatchObject({ model: '/models/Own.gguf' });
    expect(chooseCompletionModel('nonsense', chat, coders)).toMatchObject({ kind: 'unknown' });
  });
});

describe('a model that completes beside the chat model', () => {
  const who = async (client: ReturnType<typeof clientOf>): Promise<string> =>
    (await client.complete({ prefix: 'WHO', suffix: '' }, never)).text;

  it('is loaded by itself and answers completions alone', async () => {
    const client = clientOf({ FAKE_CODER: 'present' });
    settings.set('hearth.chat.model', 'small');
    expect(await who(client)).toBe('coder');
    expect((await client.ready()).id).toBe('small');
    expect(client.completionModel?.id).toBe('coder');
    expect(client.view).toMatchObject({ state: { card: { id: 'small' } }, completion: { card: { id: 'coder' } } });
  });

  it('ends when the settings want the chat model to complete', async () => {
    const client = clientOf({ FAKE_CODER: 'present' });
    settings.set('hearth.chat.model', 'small');
    await client.ready();
    settings.set('hearth.completion.model', 'chat');
    await client.reload();
    expect(await who(client)).toBe('small');
    expect(client.view.completion).toBeUndefined();
  });

  it('leaves completions to the chat model if it cannot be loaded, and says why', async () => {
    const client = clientOf();
    settings.set('hearth.completion.model', 'nonsense');
    expect(await who(client)).toBe('small');
    expect(client.view.completion).toEqual({ problem: expect.stringContaining('hearth.completion.model') });
    const absent = clientOf({ FAKE_CODER: 'absent' });
    settings.set('hearth.completion.model', 'coder');
    expect(await who(absent)).toBe('small');
    expect(absent.view.completion).toEqual({ problem: expect.stringContaining('not on this computer') });
  });

  it('is also loaded beside a file or a server that cannot fill in the middle', async () => {
    const client = clientOf({ FAKE_CODER: 'present' });
    settings.set('hearth.chat.model', '/models/own.gguf');
    await client.ready();
    expect(await who(client)).toBe('coder');
    settings.set('hearth.remote.url', 'http://127.0.0.1:9/single/v1');
    expect((await client.ready()).host).toBe('127.0.0.1:9');
    expect(await who(client)).toBe('coder');
  });

  it('may be on a server of its own, which questions never go to', async () => {
    const client = clientOf();
    settings.set('hearth.completion.model', 'https://team.example/v1#two');
    expect((await client.readyToComplete()).host).toBe('team.example');
    expect((await client.ready()).id).toBe('small');
    expect(await who(client)).toBe('remote:https://team.example/v1#two');
    expect(statusText(client.view, 'on').tooltip).toContain('Model two on team.example completes code.');
    expect(pageTexts().emptyText).toContain('your questions stay here. Completions send the code around the cursor to');
    settings.set('hearth.completion.model', '');
    await client.reload();
    expect(await who(client)).toBe('small');
  });

  it('is tried again after its server was down; meanwhile the chat model completes', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout'], shouldAdvanceTime: true });
    onTestFinished(() => void vi.useRealTimers());
    const client = clientOf();
    settings.set('hearth.completion.model', 'https://away.example/v1');
    expect(await who(client)).toBe('small');
    expect(client.view.completion).toEqual({ problem: expect.stringContaining('check the address') });
    const attempts = () => logged.filter((line) => line.includes('Loading the model for completions')).length;
    expect(attempts()).toBe(1);
    await vi.advanceTimersByTimeAsync(limits.remote.retryMs);
    await expect.poll(attempts).toBe(2);
  });

  it('is loaded again after the engine was restarted, and unloaded when it is removed', async () => {
    const client = clientOf({ FAKE_CODER: 'present' });
    settings.set('hearth.chat.model', 'small');
    await client.ready();
    await client.restart();
    expect(await who(client)).toBe('coder');
    await client.remove(entry('coder', { state: 'present', fillInTheMiddle: true }));
    expect(await who(client)).toBe('small');
  });
});

describe("the engine's client", () => {
  it('loads the model once for concurrent requests', async () => {
    const client = clientOf();
    const [a, b] = await Promise.all([client.ready(), client.ready()]);
    expect(a).toBe(b);
    expect(client.view.state).toMatchObject({ kind: 'ready', card: { id: 'small' } });
  });

  it('shows starting, loading and ready', async () => {
    const client = clientOf();
    const seen: string[] = [];
    client.onView(({ state }) => state.kind !== seen.at(-1) && seen.push(state.kind));
    await client.ready();
    expect(seen).toEqual(['starting', 'idle', 'loading', 'ready']);
  });

  it('counts running requests and keeps the last statistics', async () => {
    const client = clientOf();
    const counts: number[] = [];
    client.onView(({ running }) => running !== counts.at(-1) && counts.push(running));
    await client.complete({ prefix: 'const x = ', suffix: '' }, never);
    expect(counts).toEqual([0, 1, 0]);
    expect(client.view.last?.tokensPerSecond).toBe(50);
  });

  it('clears the cache with and without a model', async () => {
    const client = clientOf();
    expect(await client.clearCache()).toEqual({ files: 3, bytes: 2_500_000 });
    expect(client.view.state.kind).toBe('idle');
  });

  it('shows the new backend and a warning after a device loss', async () => {
    const client = clientOf();
    await client.ready();
    const warned = vi.spyOn(window, 'showWarningMessage');
    const messages = [{ role: 'user' as const, content: 'UNPLUG' }];
    await client.chat({ messages }, { onDelta: () => {} }, never);
    expect(client.warmModel?.backend).toBe('reference');
    expect((await client.ready()).backend).toBe('reference');
    expect(warned).toHaveBeenCalledWith('The GPU stopped answering.');
    warned.mockRestore();
  });

  it('delivers deltas and progress to their own stream', async () => {
    const client = clientOf();
    const streamed = async (stream: string): Promise<string> => {
      let text = '';
      const messages = [{ role: 'user' as const, content: stream }];
      const onDelta = (piece: { text: string }) => {
        text += piece.text;
      };
      await client.chat({ messages }, { onDelta }, never);
      return text;
    };
    expect(await Promise.all([streamed('a'), streamed('b')])).toEqual(['One two three.', 'One two three.']);
    const steps: string[] = [];
    const handlers = { onDelta: () => {}, onProgress: (step: { message: string }) => steps.push(step.message) };
    await client.summarise({ path: 'a.ts', text: 'x' }, handlers, never);
    expect(steps).toEqual(['Part 0', 'Part 1', 'Part 2']);
  });

  it.each(['done', 'failed'])('shows the download of another window, and looks again when it is %s', async (how) => {
    const client = clientOf({ FAKE_MODEL_STATE: 'absent', FAKE_OTHERS_DOWNLOAD: how });
    const shown: unknown[] = [];
    client.onView(({ state }) => shown.push(state));
    expect(await codeOf(client.ready())).toBe('no-model');
    await vi.waitFor(() =>
      expect(shown).toContainEqual({ kind: 'downloading', name: 'Model small', done: 1, total: 4 }),
    );
    await untilState(client, how === 'done' ? 'ready' : 'no-model');
    await vi.waitFor(() => expect(client.view.state.kind).toBe(how === 'done' ? 'ready' : 'no-model'));
  });

  it('reports a missing model and offers downloads', async () => {
    const client = clientOf({ FAKE_MODEL_STATE: 'absent' });
    expect(await codeOf(client.ready())).toBe('no-model');
    expect(client.view.state).toMatchObject({ kind: 'no-model', offers: [{ entry: { id: 'small' } }] });
  });

  it('downloads with progress and then uses the model', async () => {
    const client = clientOf({ FAKE_MODEL_STATE: 'absent' });
    await codeOf(client.ready());
    const [offered] = await client.models();
    if (offered === undefined) throw new Error('the scripted engine lists models');
    const done: number[] = [];
    const shown: string[] = [];
    client.onView(({ state }) => shown.push(state.kind));
    await client.pull(offered, (step) => done.push(step.done), never);
    expect(done).toEqual([1, 2, 3, 4]);
    expect(shown).toContain('downloading');
    expect((await client.ready()).id).toBe('small');
  });

  it('cancels a download in the engine', async () => {
    const client = clientOf({ FAKE_MODEL_STATE: 'absent', FAKE_PULL_MS: '30' });
    const [offered] = await client.models();
    if (offered === undefined) throw new Error('the scripted engine lists models');
    const source = new CancellationTokenSource();
    expect(await codeOf(client.pull(offered, () => source.cancel(), source.token))).toBe('cancelled');
  });

  it('shows why a load failed, and loads another model when the setting changes', async () => {
    const client = clientOf();
    settings.set('hearth.chat.model', '/models/broken');
    // The scripted engine refuses the name 'broken'.
    expect(await codeOf(client.ready())).toBeUndefined();
    settings.set('hearth.chat.model', 'nonsense');
    expect(await codeOf(client.ready())).toBe('not-found');
    expect(client.view.state).toMatchObject({ kind: 'failed', remedy: 'choose-model' });
    settings.set('hearth.chat.model', 'small');
    await client.reload();
    expect(client.warmModel?.id).toBe('small');
  });

  it('loads the model again by itself after a crash', async () => {
    const client = clientOf();
    await client.ready();
    const before = client.pid;
    process.kill(before ?? 0, 'SIGKILL');
    await untilState(client, 'restarting');
    expect(client.warmModel).toBeUndefined();
    await untilState(client, 'ready');
    expect(client.pid).not.toBe(before);
  });

  it('answers requests made during the restart', async () => {
    const client = clientOf();
    await client.ready();
    process.kill(client.pid ?? 0, 'SIGKILL');
    await untilState(client, 'restarting');
    expect((await client.complete({ prefix: 'x = ', suffix: '' }, never)).text).toBe('return 1;');
  });

  it('loads nothing for a changed setting until a model is needed', async () => {
    const client = clientOf();
    await client.reload();
    expect(client.pid).toBeUndefined();
  });
});
