/** The remote endpoint against the project's own server, which has a scripted engine behind it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { HearthError } from '../../../../engine/errors.ts';
import type { HttpServer } from '../../../../engine/server/http/server.ts';
import { chatParams, type Delta } from '../../../../engine/server/protocol.ts';
import { RemoteEngine } from '../../../../engine/server/remote/remoteEngine.ts';
import { answerOf, ScriptedEngine, startScripted, statistics, token } from '../http/support.ts';

let engine: ScriptedEngine;
let server: HttpServer;
const deltas: Delta[] = [];
const onDelta = (delta: Delta) => void deltas.push(delta);
const remote = (fields: { url?: string; token?: string } = {}) =>
  new RemoteEngine({ url: `${server.address}/v1`, token, onDelta, ...fields });
const ask = (fields: object = {}) =>
  chatParams.parse({ stream: 's', messages: [{ role: 'user', content: 'hi' }], ...fields });

beforeAll(async () => {
  engine = new ScriptedEngine();
  server = await startScripted(engine);
});
beforeEach(() => {
  engine.answer = async () => answerOf();
  engine.asked.length = 0;
  deltas.length = 0;
});
afterAll(() => server.close());

describe('a remote server', () => {
  it('says which models it has; the only one needs no name', async () => {
    expect(await remote().models()).toEqual(['scripted']);
    expect(await remote().choose(undefined)).toBe('scripted');
    await expect(remote().choose('other')).rejects.toThrow('scripted');
  });

  it('answers with thinking, text and tool calls as the engine itself would', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{"a":1}' }];
    const said = answerOf({ thinking: 'Hm.', toolCalls, finish: 'tool-calls' });
    engine.answer = async () => said;
    const params = ask({ thinking: 'high', tools: [{ name: 'f' }], toolChoice: 'required', maxTokens: 9 });
    const answer = await remote().chat('scripted', params);
    expect(answer).toMatchObject({ text: said.text, thinking: 'Hm.', toolCalls, finish: 'tool-calls' });
    const { promptTokens, cachedTokens, generatedTokens } = statistics;
    expect(answer.statistics).toMatchObject({ promptTokens, cachedTokens, generatedTokens });
    expect(engine.asked[0]).toMatchObject({ thinking: 'high', toolChoice: 'required', maxTokens: 9 });
    expect(deltas.map(({ text }) => text).join('')).toBe('Hm.One two.{"a":1}');
  });

  it('gets a whole conversation, with calls and their results', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{}' }];
    const messages = [
      { role: 'system', content: 's' },
      { role: 'user', content: 'u' },
      { role: 'assistant', content: 'a', toolCalls },
      { role: 'tool', toolCallId: 'c1', content: 'r' },
    ];
    await remote().chat('scripted', ask({ messages }));
    expect(engine.asked[0]?.messages).toMatchObject(messages);
  });

  it('is asked again after a failure that may pass', async () => {
    let asked = 0;
    engine.answer = async () => {
      if (++asked === 1) throw new HearthError('unavailable', 'Loading.');
      return answerOf();
    };
    expect((await remote().chat('scripted', ask())).text).toBe('One two.');
    expect(asked).toBe(2);
  });

  it('stops when it is told to, and what it said is kept', async () => {
    const controller = new AbortController();
    let stopped = false;
    engine.answer = (asked, signal) =>
      new Promise((done) => {
        engine.routes.deliver({ stream: asked.stream, kind: 'text', text: 'One' });
        signal.addEventListener('abort', () => {
          stopped = true;
          done(answerOf({ finish: 'cancelled' }));
        });
      });
    const cutting = new RemoteEngine({
      url: `${server.address}/v1`,
      token,
      onDelta: () => controller.abort(),
    });
    expect(await cutting.chat('scripted', ask(), controller.signal)).toMatchObject({
      text: 'One',
      finish: 'cancelled',
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(stopped).toBe(true);
  });

  it('fails in words that say what to do', async () => {
    await expect(remote({ token: 'wrong' }).models()).rejects.toThrow('Check the token.');
    await expect(remote({ url: 'http://127.0.0.1:1/v1' }).models()).rejects.toThrow('cannot be reached');
    expect(() => remote({ url: 'file:///etc/passwd' })).toThrow('no address of a server');
    engine.answer = async () => {
      throw new HearthError('context-overflow', 'Too long.');
    };
    await expect(remote().chat('scripted', ask())).rejects.toMatchObject({ code: 'context-overflow' });
  });
});
