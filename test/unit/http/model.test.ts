/** The official client, the server and a real model behind it. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type HttpServer, startHttpServer } from '../../../engine/http/server.ts';
import { loadParams } from '../../../engine/protocol/engineProtocol.ts';
import { DeltaRoutes } from '../../../engine/runtime/deltaRoutes.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { token } from './support.ts';

let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let store: string;
let engine: Engine;
let server: HttpServer;
let client: OpenAI;
let model: string;

beforeAll(async () => {
  tiny = await makeTinyModel();
  store = temporaryFolder();
  const routes = new DeltaRoutes();
  engine = new Engine({
    storeDirectory: store,
    onDelta: (delta) => void routes.deliver(delta),
    onProgress: () => {},
  });
  await engine.load(loadParams.parse({ model: tiny.path, backend: 'reference' }));
  server = await startHttpServer({ engine, routes, port: 0, token, log: (line) => console.error(line) });
  client = new OpenAI({ baseURL: `${server.address}/v1`, apiKey: token, maxRetries: 0 });
  model = (await client.models.list()).data[0]?.id ?? '';
});
afterAll(async () => {
  await server.close();
  await engine.unload();
  await tiny.remove();
});

const messages = [{ role: 'user' as const, content: 'tell me' }];
const greedy = { temperature: 0, max_tokens: 12 };

describe('a model behind the server', () => {
  it('is named by its folder, not by its path', () => {
    expect(tiny.path.endsWith(model)).toBe(true);
    expect(model).not.toContain('/');
  });

  it('says the same whole and streamed', async () => {
    const whole = await client.chat.completions.create({ model, messages, ...greedy });
    expect(whole.usage?.completion_tokens).toBe(12);
    expect(whole.choices[0]?.finish_reason).toBe('length');
    const stream = await client.chat.completions.create({ model, messages, ...greedy, stream: true });
    let text = '';
    for await (const { choices } of stream) text += choices[0]?.delta.content ?? '';
    expect(text).toBe(whole.choices[0]?.message.content);
    const response = await client.responses.create({ model, input: 'tell me', temperature: 0, max_output_tokens: 16 });
    expect(response.output_text.startsWith(text)).toBe(true);
  });

  it('serves a prompt that it has seen from the cache, and counts it', async () => {
    const again = await client.chat.completions.create({ model, messages, ...greedy });
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(0);
  });

  it('thinks when it is asked to', async () => {
    const thinking = await client.chat.completions.create({ model, messages, ...greedy, reasoning_effort: 'high' });
    const plain = await client.chat.completions.create({ model, messages, ...greedy });
    // The template closes the thinking at once unless it is wanted.
    expect(plain.usage?.prompt_tokens).toBeGreaterThan(thinking.usage?.prompt_tokens ?? Number.NaN);
  });

  it('continues raw text and fills in the middle', async () => {
    const raw = await client.completions.create({ model, prompt: 'const a = ', ...greedy });
    expect(raw.usage?.completion_tokens).toBe(12);
    const middle = await client.completions.create({ model, prompt: 'const a = ', suffix: ';', ...greedy });
    expect(middle.usage?.prompt_tokens).not.toBe(raw.usage?.prompt_tokens);
  });

  it('stops computing when the client goes away', async () => {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 1500, stream: true });
    for await (const { choices } of stream) if (choices[0]?.delta.content) break;
    stream.controller.abort();
    while (engine.status().state === 'busy') await new Promise((resolve) => setTimeout(resolve, 5));
    expect(engine.status().last?.generatedTokens).toBeLessThan(1000);
  });

  it('refuses a question that is longer than its context, with the code that clients know', async () => {
    const long = [{ role: 'user' as const, content: 'word '.repeat(20_000) }];
    const asked = client.chat.completions.create({ model, messages: long });
    await expect(asked).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
  });
});
