import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it, vi } from 'vitest';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import type { ModelEntry } from '../../../engine/protocol/engineProtocol.ts';
import { EngineFailure } from '../../../extension/client/failure.ts';
import { chooseCompletionModel, chooseModel } from '../../../extension/models/choose.ts';
import { clientOf, untilState } from './support.ts';
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
    recommended: false,
    ...over,
  };
}

describe('the choice of a model', () => {
  it('is never an embedding model, unless the setting names it', () => {
    const vectors = entry('vectors', { embedding: true, state: 'present' });
    expect(chooseModel('', [vectors])).toEqual({ kind: 'download', offers: [] });
    expect(chooseModel('vectors', [vectors])).toMatchObject({ kind: 'use', model: 'vectors' });
  });

  const small = entry('small', { parameters: 1e8, downloadBytes: 1e8 });
  const best = entry('best', { parameters: 7e9, downloadBytes: 5e9, recommended: true });
  const huge = entry('huge', { parameters: 1e12, fit: { verdict: 'no', reason: '' } });
  const present = (model: ModelEntry): ModelEntry => ({ ...model, state: 'present' });

  it('uses the model of the setting if it is on disk', () => {
    expect(chooseModel('small', [present(small), present(best)])).toMatchObject({ kind: 'use', model: 'small' });
  });

  it('offers to download the model of the setting', () => {
    expect(chooseModel('best', [small, best])).toEqual({ kind: 'download', offers: [best] });
  });

  it('accepts an absolute path', () => {
    expect(chooseModel('/models/My.gguf', [])).toEqual({ kind: 'use', model: '/models/My.gguf', name: 'My.gguf' });
  });

  it('reports an unknown model', () => {
    expect(chooseModel('nonsense', [small])).toEqual({ kind: 'unknown', model: 'nonsense' });
  });

  it('is the recommended model on disk, otherwise the largest that runs well', () => {
    expect(chooseModel('', [present(small), present(best)])).toMatchObject({ model: 'best' });
    const medium = entry('medium', { parameters: 1e9 });
    expect(chooseModel('', [present(small), present(medium), best])).toMatchObject({ model: 'medium' });
    const slow = entry('slow', { parameters: 1e10, fit: { verdict: 'slow', reason: '' } });
    expect(chooseModel('', [present(small), present(slow)])).toMatchObject({ model: 'small' });
  });

  it("never uses or offers a model that doesn't fit", () => {
    expect(chooseModel('', [present(huge), small])).toEqual({ kind: 'download', offers: [small] });
    expect(chooseModel('', [huge])).toEqual({ kind: 'download', offers: [] });
  });

  it('offers the best and the quickest download', () => {
    expect(chooseModel('', [best, small, huge])).toEqual({ kind: 'download', offers: [best, small] });
    expect(chooseModel('', [best])).toEqual({ kind: 'download', offers: [best] });
  });
});

describe('the choice of a model that completes', () => {
  const coder = (id: string, over: Partial<ModelEntry> = {}) =>
    entry(id, { fillInTheMiddle: true, state: 'present', parameters: 1.5e9, ...over });
  const chat = entry('chat', { state: 'present', parameters: 2e10 });

  it('is the chat model if it was trained to fill in, or if nothing else was', () => {
    expect(chooseCompletionModel('', coder('both'), [coder('both'), coder('other')])).toBeUndefined();
    expect(chooseCompletionModel('', chat, [chat, coder('absent', { state: 'absent' })])).toBeUndefined();
    expect(chooseCompletionModel('', undefined, [chat, coder('coder')])).toBeUndefined();
  });

  it('is otherwise the best on this computer that is quick enough', () => {
    const [small, medium, large] = [
      coder('small'),
      coder('medium', { parameters: 7e9 }),
      coder('large', { parameters: 3e10 }),
    ];
    expect(chooseCompletionModel('', chat, [chat, small, large, medium])).toMatchObject({ model: 'medium' });
    expect(chooseCompletionModel('', chat, [chat, large])).toMatchObject({ model: 'large' });
    const slow = coder('slow', { parameters: 7e9, fit: { verdict: 'slow', reason: '' } });
    const huge = coder('huge', { fit: { verdict: 'no', reason: '' } });
    expect(chooseCompletionModel('', chat, [chat, slow, small, huge])).toMatchObject({ model: 'small' });
    expect(chooseCompletionModel('', chat, [chat, huge])).toBeUndefined();
  });

  it('is the one that the setting names, or the chat model if it says so', () => {
    const coders = [chat, coder('coder')];
    expect(chooseCompletionModel('coder', coder('both'), coders)).toMatchObject({ kind: 'use', model: 'coder' });
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

  it('is there too beside a file and a server that were not trained for it', async () => {
    const client = clientOf({ FAKE_CODER: 'present' });
    settings.set('hearth.chat.model', '/models/own.gguf');
    await client.ready();
    expect(await who(client)).toBe('coder');
    settings.set('hearth.remote.url', 'http://127.0.0.1:9/single/v1');
    expect((await client.ready()).host).toBe('127.0.0.1:9');
    expect(await who(client)).toBe('coder');
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

  it('reports a missing model and offers downloads', async () => {
    const client = clientOf({ FAKE_MODEL_STATE: 'absent' });
    expect(await codeOf(client.ready())).toBe('no-model');
    expect(client.view.state).toMatchObject({ kind: 'no-model', offers: [{ id: 'small' }] });
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

describe('an engine for developers', () => {
  it('listens for a debugger on loopback if HEARTH_INSPECT names a port', async () => {
    const probe = createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const address = probe.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    probe.close();
    await once(probe, 'close');
    vi.stubEnv('HEARTH_INSPECT', String(port));
    const client = clientOf();
    try {
      await client.ready();
      const version: unknown = await (await fetch(`http://127.0.0.1:${port}/json/version`)).json();
      // The inspector's own protocol: https://nodejs.org/en/docs/guides/debugging-getting-started
      expect(version).toMatchObject({ Browser: `node.js/${process.version}` });
    } finally {
      vi.unstubAllEnvs();
      await client.stop();
    }
  });
});
