/** The official client, the server and a real model behind it. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type HttpServer, startHttpServer } from '../../../engine/http/server.ts';
import type { Delta } from '../../../engine/protocol/engineProtocol.ts';
import { loadParams } from '../../../engine/protocol/models.ts';
import { Streams } from '../../../engine/protocol/rpc.ts';
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
  const streams = new Streams<(delta: Delta) => void>();
  engine = new Engine({
    storeDirectory: store,
    onDelta: (delta) => streams.receiver(delta.stream)?.(delta),
    onProgress: () => {},
  });
  await engine.load(loadParams.parse({ model: tiny.path, backend: 'reference' }));
  server = await startHttpServer({ engine, streams, port: 0, token, log: (line) => console.error(line) });
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

  it('gives the same answer whole and streamed', async () => {
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

  it('serves a repeated prompt from the cache, and counts it', async () => {
    const again = await client.chat.completions.create({ model, messages, ...greedy });
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(0);
  });

  it('writes the same with the same seed, alone and beside other answers, cold and from the cache', async () => {
    const seeded = (content: string, seed: number) =>
      client.chat.completions.create({
        model,
        messages: [{ role: 'user', content }],
        temperature: 1,
        max_tokens: 16,
        seed,
      });
    const textOf = (answer: OpenAI.ChatCompletion): string => answer.choices[0]?.message.content ?? '';
    const question = 'tell me a story of a seed '.repeat(4);
    const alone = textOf(await seeded(question, 7));
    expect(alone).not.toBe('');
    const answers = await Promise.all([7, 8, 7, 9].map((seed, i) => seeded(i === 3 ? 'another' : question, seed)));
    expect([answers[0], answers[2]].map((answer) => answer && textOf(answer))).toEqual([alone, alone]);
    expect(answers[1] && textOf(answers[1])).not.toBe(alone);
    const [again] = await Promise.all([seeded(question, 7), seeded('more', 1), seeded('others', 2)]);
    expect(textOf(again)).toBe(alone);
  });

  it('thinks on request', async () => {
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

  it('returns the same token probabilities whole and streamed', async () => {
    const request = { model, messages, ...greedy, logprobs: true, top_logprobs: 3 };
    const whole = await client.chat.completions.create(request);
    const tokens = whole.choices[0]?.logprobs?.content ?? [];
    expect(tokens).toHaveLength(12);
    expect(Buffer.from(tokens.flatMap(({ bytes }) => bytes ?? [])).toString()).toBe(whole.choices[0]?.message.content);
    for (const { logprob, token, top_logprobs } of tokens) {
      // Greedy: the token is the most probable one, the others follow, and together they are no more than certain.
      expect(top_logprobs[0]).toMatchObject({ token, logprob });
      const probabilities = top_logprobs.map((top) => Math.exp(top.logprob));
      expect(probabilities).toEqual(probabilities.toSorted((a, b) => b - a));
      expect(probabilities.reduce((a, b) => a + b)).toBeLessThanOrEqual(1 + 1e-6);
    }
    const stream = await client.chat.completions.create({ ...request, stream: true });
    const streamed = [];
    for await (const { choices } of stream) streamed.push(...(choices[0]?.logprobs?.content ?? []));
    expect(streamed).toEqual(tokens);
    const raw = await client.completions.create({ model, prompt: 'const', ...greedy, logprobs: 2 });
    const { text, logprobs } = raw.choices[0] ?? {};
    expect(logprobs?.tokens?.join('')).toBe(text);
    expect(logprobs?.text_offset?.map((at, i) => text?.slice(at, at + (logprobs.tokens?.[i]?.length ?? 0)))).toEqual(
      logprobs?.tokens,
    );
  });

  it('continues several prompts, each from text or from ids, with the same text as alone', async () => {
    const prompts = ['const a = ', 'tell me', 'the end'];
    const alone = await Promise.all(prompts.map((prompt) => client.completions.create({ model, prompt, ...greedy })));
    const together = await client.completions.create({ model, prompt: prompts, ...greedy });
    expect(together.choices.map(({ text, index }) => [text, index])).toEqual(
      alone.map(({ choices }, i) => [choices[0]?.text, i]),
    );
    const sum = alone.reduce((tokens, { usage }) => tokens + (usage?.prompt_tokens ?? 0), 0);
    expect(together.usage?.prompt_tokens).toBe(sum);
    const streamed = ['', '', ''];
    const stream = await client.completions.create({ model, prompt: prompts, ...greedy, stream: true });
    for await (const { choices } of stream) for (const { index, text } of choices) streamed[index] += text;
    expect(streamed).toEqual(together.choices.map(({ text }) => text));
    const ids = await client.completions.create({
      model,
      prompt: [
        [9, 10, 11],
        [12, 13],
      ],
      ...greedy,
    });
    const one = await client.completions.create({ model, prompt: [12, 13], ...greedy });
    expect(ids.choices[1]?.text).toBe(one.choices[0]?.text);
    expect(ids.usage?.prompt_tokens).toBe(5);
    await expect(client.completions.create({ model, prompt: [99_999], ...greedy })).rejects.toMatchObject({
      status: 400,
    });
    const plain = await client.completions.create({ model, prompt: 'tell me', suffix: '', ...greedy });
    expect(plain.choices[0]?.text).toBe(alone[1]?.choices[0]?.text);
  });

  it('answers with one of the given texts, in chat and completions', async () => {
    const choices = ['certainly', 'never', 'certain "quoted" \\ text'];
    for (let seed = 1; seed <= 4; seed++) {
      const fields = { guided_choice: choices, temperature: 1, seed, max_tokens: 60 };
      const chat = await client.chat.completions.create({ model, messages, ...fields });
      expect(choices).toContain(chat.choices[0]?.message.content);
      const raw = await client.completions.create({ model, prompt: 'x', ...fields });
      expect(choices).toContain(raw.choices[0]?.text);
    }
  });

  it('ends at the stop ids of the client, and not before the minimum of tokens', async () => {
    const certain = { logit_bias: { '300': 100 }, temperature: 0, max_tokens: 9 };
    const unstopped = await client.chat.completions.create({ model, messages, ...certain });
    expect(unstopped).toMatchObject({ usage: { completion_tokens: 9 }, choices: [{ finish_reason: 'length' }] });
    const stopped = await client.chat.completions.create({ model, messages, ...certain, ...{ stop_token_ids: [300] } });
    expect(stopped).toMatchObject({ usage: { completion_tokens: 1 }, choices: [{ finish_reason: 'stop' }] });
    const bias = { logit_bias: { '1': 100 }, temperature: 0, max_tokens: 9 };
    // <|end|> is token 1: made certain, it ends the answer at once.
    const ended = await client.chat.completions.create({ model, messages, ...bias });
    expect(ended).toMatchObject({ usage: { completion_tokens: 1 }, choices: [{ finish_reason: 'stop' }] });
    const longer = await client.chat.completions.create({ model, messages, ...bias, ...{ min_tokens: 5 } });
    expect(longer).toMatchObject({ usage: { completion_tokens: 6 }, choices: [{ finish_reason: 'stop' }] });
    const endless = await client.chat.completions.create({ model, messages, ...bias, ...{ ignore_eos: true } });
    expect(endless).toMatchObject({ usage: { completion_tokens: 9 }, choices: [{ finish_reason: 'length' }] });
  });

  it('calls the required tool and ends its turn, so that the official client can parse the call', async () => {
    const tools = [
      {
        type: 'function' as const,
        function: {
          name: 'f',
          parameters: {
            type: 'object',
            properties: { on: { type: 'boolean' } },
            required: ['on'],
            additionalProperties: false,
          },
        },
      },
    ];
    for (const tool_choice of ['required', { type: 'function', function: { name: 'f' } }] as const) {
      const answer = await client.chat.completions.create({
        model,
        messages,
        tools,
        tool_choice,
        temperature: 0,
        max_tokens: 400,
      });
      expect(answer.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
      const calls = answer.choices[0]?.message.tool_calls ?? [];
      expect(calls).toHaveLength(1);
      const [call] = calls;
      expect(JSON.parse(call?.type === 'function' ? call.function.arguments : '')).toEqual({ on: expect.any(Boolean) });
    }
  });

  it('names the system message if it is too long', async () => {
    const long = [{ role: 'system' as const, content: 'word '.repeat(20_000) }, ...messages];
    const asked = client.chat.completions.create({ model, messages: long });
    await expect(asked).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
      message: expect.stringContaining('The system message'),
    });
  });

  it('stops computing when the client disconnects', async () => {
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
