/** A chat model and a completion model in one engine. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { argmax } from '../../../engine/backend/sampler.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import { chatParams, completeParams } from '../../../engine/protocol/engineProtocol.ts';
import { connectParams, loadParams, modelRoles } from '../../../engine/protocol/models.ts';
import { ModelPool } from '../../../engine/runtime/modelPool.ts';
import { ModelRoles } from '../../../engine/runtime/modelRoles.ts';
import { Switchboard } from '../../../engine/runtime/serveEngine.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { ScriptedEngine, startScripted, token } from '../http/support.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { makeTinyModel } from './tinyModel.ts';

let models: Awaited<ReturnType<typeof makeTinyModel>>[];
let loads: string[] = [];
let engine: Engine;

beforeAll(async () => {
  models = [await makeTinyModel(), await makeTinyModel()];
  engine = new Engine({
    storeDirectory: temporaryFolder(),
    onDelta: () => {},
    onProgress: ({ task, subject }) => {
      if (task === 'load' && loads.at(-1) !== subject) loads.push(subject);
    },
  });
});
afterAll(async () => {
  await engine.unload();
  for (const { remove } of models) await remove();
});

const path = (index: number): string => models[index]?.path ?? '';
const load = (role: 'chat' | 'completion', index: number, fields: object = {}) =>
  engine.load(loadParams.parse({ role, model: path(index), backend: 'reference', ...fields }));
const complete = () => engine.complete(completeParams.parse({ prefix: 'a = ', suffix: '\n', maxTokens: 4 }));
const chat = () =>
  engine.chat(chatParams.parse({ stream: 's', messages: [{ role: 'user', content: 'hello' }], maxTokens: 4 }));
const requestsOf = (): number => engine.status().requests?.classes.keystroke.submitted ?? 0;

describe('two roles', () => {
  it('are one model if only the chat model is loaded', async () => {
    await load('chat', 0);
    await complete();
    expect(requestsOf()).toBe(1);
    expect(engine.status().completionModel).toBeUndefined();
  });

  it('are two models once another one completes, at the same time', async () => {
    const card = await load('completion', 1);
    expect(card.id).toBe(path(1));
    await Promise.all([complete(), chat(), complete()]);
    // The chat model has answered no completion more.
    expect(requestsOf()).toBe(1);
    expect(engine.status()).toMatchObject({ model: { id: path(0) }, completionModel: { id: path(1) } });
  });

  it('share one copy of the weights if both name the same model', async () => {
    loads = [];
    await load('completion', 0);
    expect(loads).toEqual([]);
    await load('chat', 0, { contextTokens: 256 });
    expect(engine.status()).toMatchObject({ model: { contextTokens: 256 }, completionModel: { contextTokens: 256 } });
    await complete();
    await load('chat', 1);
    expect(engine.status()).toMatchObject({ model: { id: path(1) }, completionModel: { id: path(0) } });
    await complete();
  });

  it('are unloaded one by one', async () => {
    await engine.unload({ role: 'chat' });
    await expect(chat()).rejects.toMatchObject({ code: 'unavailable' });
    await complete();
    await engine.unload({ role: 'completion' });
    await expect(complete()).rejects.toMatchObject({ code: 'unavailable' });
    expect(engine.status().state).toBe('empty');
  });

  it('complete locally while a server answers questions', async () => {
    const board = new Switchboard(engine, { onDelta: () => {}, onProgress: () => {} });
    await load('completion', 0);
    await expect(board.connect(connectParams.parse({ url: 'http://127.0.0.1:9/v1' }))).rejects.toMatchObject({
      code: 'unavailable',
    });
    expect(board.completer).toBe(engine);
    await complete();
  });

  it('answer questions locally while a server completes', async () => {
    const scripted = new ScriptedEngine();
    const server = await startScripted(scripted);
    try {
      const board = new Switchboard(engine, { onDelta: () => {}, onProgress: () => {} });
      const served = connectParams.parse({ role: 'completion', url: server.address, token });
      await load('chat', 0);
      expect(await board.connect(served)).toMatchObject({ backend: 'remote', name: 'scripted' });
      const request = completeParams.parse({ prefix: 'a = ', suffix: '\n', maxTokens: 4 });
      expect((await board.completer.complete(request)).text).toBe('the middle');
      expect(board.answerer).toBe(engine);
      await chat();
      expect([scripted.completed.length, scripted.asked.length]).toEqual([1, 0]);
      expect(board.status()).toMatchObject({ model: { id: path(0) } });
      await board.load(loadParams.parse({ role: 'completion', model: path(1), backend: 'reference' }));
      expect(board.completer).toBe(engine);
      await board.connect(served);
      expect(board.completer).not.toBe(engine);
      await board.unload({ role: 'completion' });
      expect(board.completer).toBe(engine);
    } finally {
      await server.close();
    }
  });
});

describe('a completion model with the vocabulary of the chat model', () => {
  it('drafts for it, and its answers stay the same', async () => {
    const small = await makeTinyModel(1);
    const pool = new ModelPool({ store: openStore({ directory: temporaryFolder() }) });
    const roles = new ModelRoles(pool, { onProgress: () => {}, onChange: () => {} });
    const wish = (role: 'chat' | 'completion', model: string) =>
      loadParams.parse({ role, model, backend: 'reference', contextTokens: 256 });
    const answer = async (): Promise<number[]> => {
      const tokens: number[] = [];
      await roles.get('chat')?.loaded.scheduler.submit({
        requestClass: 'chat',
        prompt: Array.from({ length: 20 }, (_, i) => 20 + 7 * i),
        maxTokens: 200,
        choose: argmax,
        deliver: (token) => {
          tokens.push(token);
          return 'continue';
        },
      });
      return tokens;
    };
    try {
      await roles.load(wish('chat', path(0)));
      const alone = await answer();
      await roles.load(wish('completion', small.path));
      expect(await answer()).toEqual(alone);
      expect(roles.get('completion')?.loaded.scheduler.statistics().classes.chat.generatedTokens).toBeGreaterThan(0);
      await roles.unload('completion');
      expect(await answer()).toEqual(alone);
    } finally {
      await Promise.all(modelRoles.map((role) => roles.unload(role)));
      await small.remove();
    }
  });
});
