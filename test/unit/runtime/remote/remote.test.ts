/** The remote endpoint against the project's own server, which has a scripted engine behind it. */

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import { HearthError } from '../../../../engine/errors.ts';
import type { HttpServer } from '../../../../engine/http/server.ts';
import { chatParams, completeParams, type Delta, summariseParams } from '../../../../engine/protocol/engineProtocol.ts';
import type { ConnectParams } from '../../../../engine/protocol/models.ts';
import { RemoteEngine, type RemoteOptions } from '../../../../engine/runtime/remote/remoteEngine.ts';
import { RemoteServer } from '../../../../engine/runtime/remote/server.ts';
import { answerOf, card, ScriptedEngine, startScripted, statistics, token } from '../../http/support.ts';
import { temporaryFolder } from '../../temporaryFolder.ts';
import { askAt, sse, startScriptedServer } from './scripted.ts';

let engine: ScriptedEngine;
let server: HttpServer;
const deltas: Delta[] = [];
const onDelta = (delta: Delta) => void deltas.push(delta);
const connect = (fields: Partial<ConnectParams> = {}, options: Partial<RemoteOptions> = {}) =>
  RemoteEngine.connect({ url: `${server.address}/v1`, token, ...fields }, { onDelta, ...options });
const ask = (fields: object = {}) =>
  chatParams.parse({ stream: 's', messages: [{ role: 'user', content: 'hi' }], ...fields });

beforeAll(async () => {
  engine = new ScriptedEngine();
  server = await startScripted(engine);
});
beforeEach(() => {
  engine.answer = async () => answerOf();
  engine.model = card;
  engine.asked.length = 0;
  deltas.length = 0;
});
afterAll(() => server.close());

describe('a remote server', () => {
  it('says which models it has; the only one needs no name', async () => {
    const models = await new RemoteServer({ url: server.address, token }).models();
    expect(models).toMatchObject([{ id: 'scripted', contextTokens: 4096 }]);
    const { host, contextTokens, thinkingModes, fillInTheMiddle, backend } = (await connect()).card;
    expect({ contextTokens, thinkingModes, fillInTheMiddle, backend }).toEqual({
      contextTokens: 4096,
      thinkingModes: ['off', 'low', 'high'],
      fillInTheMiddle: true,
      backend: 'remote',
    });
    expect(server.address).toContain(host);
    await expect(connect({ model: 'other' })).rejects.toThrow("no 'other' but the models scripted");
    expect((await connect({ contextTokens: 1000 })).card.contextTokens).toBe(1000);
  });

  it('answers with thinking, text and tool calls as the engine itself would', async () => {
    const toolCalls = [{ id: 'c1', name: 'f', arguments: '{"a":1}' }];
    const said = answerOf({ thinking: 'Hm.', toolCalls, finish: 'tool-calls' });
    engine.answer = async () => said;
    const params = ask({ thinking: 'high', tools: [{ name: 'f' }], toolChoice: 'required', maxTokens: 9 });
    const answer = await (await connect()).chat(params);
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
    await (await connect()).chat(ask({ messages }));
    expect(engine.asked[0]?.messages).toMatchObject(messages);
  });

  it('is retried after a temporary failure', async () => {
    let asked = 0;
    engine.answer = async () => {
      if (++asked === 1) throw new HearthError('unavailable', 'Loading.');
      return answerOf();
    };
    expect((await (await connect()).chat(ask())).text).toBe('One two.');
    expect(asked).toBe(2);
  });

  it('stops on cancellation and keeps the text so far', async () => {
    const controller = new AbortController();
    let stopped = false;
    engine.answer = (asked, signal) =>
      new Promise((done) => {
        engine.deliver({ stream: asked.stream, kind: 'text', text: 'One' });
        signal.addEventListener('abort', () => {
          stopped = true;
          done(answerOf({ finish: 'cancelled' }));
        });
      });
    const cutting = await connect({}, { onDelta: () => controller.abort() });
    expect(await cutting.chat(ask(), controller.signal)).toMatchObject({
      text: 'One',
      finish: 'cancelled',
    });
    await vi.waitFor(() => expect(stopped).toBe(true));
  });

  it('completes code in the middle, with related files in comments', async () => {
    const snippets = [{ path: 'b.ts', text: 'const b = 1;' }];
    const place = { prefix: 'let a = ', suffix: ';', path: 'a.ts', snippets, maxTokens: 9, multiline: 'never' };
    const completion = await (await connect()).complete(completeParams.parse(place));
    // The server says 'the middle', of which only the first word parses.
    expect(completion).toMatchObject({ text: 'the', finish: 'stop' });
    expect(engine.completed.at(-1)).toMatchObject({
      prefix: '// b.ts\nconst b = 1;\n\n// a.ts\nlet a = ',
      suffix: ';',
      maxTokens: 9,
      stop: ['\n'],
      sampling: { temperature: 0 },
    });
  });

  it('continues the prefix if the server does not fill in', async () => {
    engine.model = { ...card, fillInTheMiddle: false };
    const remote = await connect();
    expect(remote.card.notes.join(' ')).toContain('ignore the text after the cursor');
    const { text } = await remote.complete(completeParams.parse({ prefix: 'let a = ', suffix: ';' }));
    expect(text).toBe('went on');
    expect(engine.generated.at(-1)).toMatchObject({ prompt: 'let a = ', raw: true });
  });

  it('summarises by chat requests and caches the result', async () => {
    const storeDirectory = temporaryFolder();
    const remote = await connect({}, { storeDirectory });
    const params = summariseParams.parse({ stream: 's', path: 'a.ts', text: 'const a = 1;' });
    expect(await remote.summarise(params)).toMatchObject({ text: 'One two.', parts: 1 });
    expect(engine.asked[0]).toMatchObject({ thinking: 'off', sampling: { temperature: 0 } });
    expect(await remote.summarise(params)).toMatchObject({ text: 'One two.' });
    expect(engine.asked).toHaveLength(1);
    expect(deltas.map(({ text }) => text).join('')).toBe('One two.One two.');
  });

  it('fails with messages that say what to do', async () => {
    await expect(connect({ token: 'wrong' })).rejects.toThrow('Check the token.');
    await expect(connect({ url: 'http://127.0.0.1:1/v1' })).rejects.toThrow('cannot be reached');
    await expect(connect({ url: 'file:///etc/passwd' })).rejects.toThrow('not a server address');
    engine.answer = async () => {
      throw new HearthError('context-overflow', 'Too long.');
    };
    await expect((await connect()).chat(ask())).rejects.toMatchObject({ code: 'context-overflow' });
  });
});

describe('a server that never stops', () => {
  it.each([
    ['text', { content: 'x'.repeat(8000) }],
    ['thinking', { reasoning_content: 'x'.repeat(8000) }],
    ['names of calls', { tool_calls: [{ index: 0, function: { name: 'x'.repeat(1000) } }] }],
    ['arguments', { tool_calls: [{ index: 0, function: { name: 'f', arguments: 'x'.repeat(8000) } }] }],
    [
      'arguments that are no text',
      { tool_calls: [{ index: 0, function: { name: 'f', arguments: { a: 'x'.repeat(8000) } } }] },
    ],
  ])('is disconnected after four million characters of %s, and the text so far is kept', async (_, delta) => {
    const hostile = await startScriptedServer();
    onTestFinished(() => hostile.close());
    let [sent, closed] = [0, false];
    hostile.chat = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const piece = sse(JSON.stringify({ choices: [{ delta }] }));
      const more = (): void => {
        while (!closed && ++sent < 40_000) if (!response.write(piece)) return;
        response.end();
      };
      response.on('drain', more).on('close', () => {
        closed = true;
      });
      more();
    };
    const { chat } = await askAt(`http://127.0.0.1:${hostile.port}/v1`);
    await expect(chat()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('Hearth closed the connection'),
    });
    await vi.waitFor(() => expect(closed).toBe(true));
    expect(sent).toBeLessThan(20_000);
  });
});

describe('a completion that never stops', () => {
  it.each([true, false])('is cut where its tokens must have ended (whole: %s)', async (whole) => {
    const hostile = await startScriptedServer();
    onTestFinished(() => hostile.close());
    hostile.completions = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const piece = sse(JSON.stringify({ choices: [{ text: 'word '.repeat(50) }] }));
      const timer = setInterval(() => response.write(piece), 1);
      response.on('close', () => clearInterval(timer));
    };
    const { engine } = await askAt(`http://127.0.0.1:${hostile.port}/v1`);
    const params = completeParams.parse({ prefix: 'a = ', suffix: '', maxTokens: 100, whole, multiline: 'always' });
    const { text } = await engine.complete(params);
    // No published vocabulary has tokens of more than 16 characters on average.
    expect(text.length).toBeLessThan(100 * 16 + 300);
  });
});

describe('a server of another kind', () => {
  /** What it was asked, and how it answers: a status, or pieces of a stream. */
  const bodies: Record<string, unknown>[] = [];
  let answer: (path: string, body: Record<string, unknown>) => { status: number; body: unknown } | string[];
  let foreign: Server;
  let url: string;

  beforeAll(async () => {
    foreign = createServer(async (request, response) => {
      const text = await new Response(Readable.toWeb(request) as ReadableStream).text();
      const body = text === '' ? {} : JSON.parse(text);
      const said = answer(request.url ?? '', body);
      if (request.method === 'POST') bodies.push(body);
      if (Array.isArray(said)) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.end(said.map((piece) => `data: ${piece}\n\n`).join(''));
      } else {
        response.writeHead(said.status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(said.body));
      }
    });
    foreign.listen(0, '127.0.0.1');
    await once(foreign, 'listening');
    url = `http://127.0.0.1:${(foreign.address() as AddressInfo).port}`;
  });
  beforeEach(() => void bodies.splice(0));
  afterAll(() => void foreign.close());

  const refusal = (message: string) => ({ status: 400, body: { error: { message, type: 'BadRequestError' } } });
  const list = (...data: object[]) => ({ status: 200, body: { object: 'list', data } });
  const said = (content: string) => [JSON.stringify({ choices: [{ delta: { content } }] }), '[DONE]'];

  it('is asked without the fields that it refuses by name, from then on', async () => {
    answer = (path, body) => {
      if (path === '/v1/models') return list({ id: 'strict', max_model_len: 1000 });
      if (path === '/v1/completions') return { status: 404, body: {} };
      if ('chat_template_kwargs' in body) return refusal('Unrecognized request argument: chat_template_kwargs');
      return said('Yes.');
    };
    const remote = await connect({ url });
    expect((await remote.chat(ask({ thinking: 'low' }))).text).toBe('Yes.');
    expect((await remote.chat(ask({ thinking: 'low' }))).text).toBe('Yes.');
    const chats = bodies.filter((body) => 'messages' in body);
    expect(chats.map((body) => 'chat_template_kwargs' in body)).toEqual([true, false, false]);
    expect(chats[2]).toMatchObject({ reasoning_effort: 'low' });
    expect(remote.card.notes.join(' ')).toContain("it can't complete code");
    expect((await remote.complete(completeParams.parse({ prefix: 'a', suffix: '' }))).text).toBe('');
  });

  it('that refuses `suffix`, as vLLM does, continues the prefix', async () => {
    answer = (path, body) => {
      if (path === '/v1/models') return list({ id: 'vllm', owned_by: 'vllm', max_model_len: 5000 });
      if ('suffix' in body) return refusal('suffix is not currently supported');
      return [JSON.stringify({ choices: [{ text: '1;', finish_reason: 'stop' }] }), '[DONE]'];
    };
    const remote = await connect({ url: `${url}/v1/` });
    expect(remote.card).toMatchObject({ contextTokens: 5000, fillInTheMiddle: false });
    expect((await remote.complete(completeParams.parse({ prefix: 'a = ', suffix: '' }))).text).toBe('1;');
  });

  it('that reports a context that is too short gets a shorter conversation', async () => {
    answer = (path, body) => {
      if (path === '/v1/models') return list({ id: 'vllm', max_model_len: 1000 });
      if ('prompt' in body) return { status: 404, body: {} };
      const messages = z.array(z.object({ content: z.string() })).parse(body['messages']);
      const chars = messages.reduce((sum, { content }) => sum + content.length, 0);
      return chars > 1000 ? refusal("This model's maximum context length is 1000 tokens.") : said('Short.');
    };
    const remote = await connect({ url });
    const turn = (role: string, content: string) => ({ role, content });
    const messages = [turn('user', 'x'.repeat(4000)), turn('assistant', 'y'), turn('user', 'z')];
    expect(await remote.chat(ask({ messages }))).toMatchObject({ text: 'Short.', droppedMessages: 2 });
    const alone = remote.chat(ask({ messages: [turn('user', 'x'.repeat(1001))] }));
    await expect(alone).rejects.toMatchObject({ code: 'context-overflow' });
  });

  it('that is not an OpenAI-compatible server is recognised', async () => {
    answer = () => ({ status: 200, body: { hello: 'world' } });
    await expect(connect({ url })).rejects.toThrow("does not follow OpenAI's API");
    answer = (path) => (path === '/v1/models' ? list({ id: 'odd' }) : ['{"choices":"none"}', '[DONE]']);
    const remote = await connect({ url });
    expect(remote.card.notes.join(' ')).toContain('does not report its context length');
    await expect(remote.chat(ask())).rejects.toThrow("does not follow OpenAI's API");
    answer = () => ['this is no JSON'];
    await expect(remote.chat(ask())).rejects.toThrow("does not follow OpenAI's API");
  });
});
