/** The official client against the server: requests reach the engine, and its answers reach the client. */
import OpenAI from 'openai';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cancelled, HearthError } from '../../../engine/errors.ts';
import type { HttpServer } from '../../../engine/http/server.ts';
import { answerOf, ScriptedEngine, startScripted, statistics, token } from './support.ts';

let engine: ScriptedEngine;
let server: HttpServer;
let client: OpenAI;
const log: string[] = [];

beforeAll(async () => {
  engine = new ScriptedEngine();
  server = await startScripted(engine, log);
  client = new OpenAI({ baseURL: `${server.address}/v1`, apiKey: token, maxRetries: 0 });
});
beforeEach(() => {
  engine.answer = async () => answerOf();
  for (const list of [engine.asked, engine.completed, engine.generated, log]) list.length = 0;
});
afterAll(() => server.close());

const user = (content: string) => ({ role: 'user' as const, content });
const chat = (fields: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming> = {}) =>
  client.chat.completions.create({ model: 'scripted', messages: [user('hi')], ...fields });
const weather = {
  name: 'weather',
  description: 'Tells the weather.',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};
const called = answerOf({
  text: '',
  thinking: 'Which city?',
  toolCalls: [
    { id: 'call_1', name: 'weather', arguments: '{"city":"Oslo"}' },
    { id: 'call_2', name: 'weather', arguments: '{"city":"Rome"}' },
  ],
  finish: 'tool-calls',
});

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describe('models', () => {
  it('lists the loaded one, and finds it by name alone', async () => {
    const listed = await all(await client.models.list());
    expect(listed).toMatchObject([{ id: 'scripted', object: 'model', owned_by: 'hearth', max_model_len: 4096 }]);
    expect(await client.models.retrieve('scripted')).toMatchObject({ id: 'scripted' });
    await expect(client.models.retrieve('other')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });
});

describe('chat completions', () => {
  it('answer with text, an end and a usage that counts cached tokens', async () => {
    const { choices, usage, model } = await chat();
    expect(model).toBe('scripted');
    expect(choices).toMatchObject([
      { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'One two.' } },
    ]);
    expect(usage).toEqual({
      prompt_tokens: 20,
      completion_tokens: 3,
      total_tokens: 23,
      prompt_tokens_details: { cached_tokens: 5 },
      completion_tokens_details: { reasoning_tokens: 0 },
    });
  });

  it('pass the whole conversation and every setting to the engine', async () => {
    await chat({
      messages: [
        { role: 'developer', content: 'Be short.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }],
        },
        { role: 'tool', tool_call_id: 'c', content: 'done' },
      ],
      temperature: 0.5,
      top_p: 0.9,
      presence_penalty: 1,
      seed: 7,
      stop: ['END'],
      logit_bias: { '5': -100 },
      max_completion_tokens: 9,
      reasoning_effort: 'high',
    });
    expect(engine.asked[0]).toMatchObject({
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'a\nb' },
        { role: 'assistant', content: '', toolCalls: [{ id: 'c', name: 'f', arguments: '{}' }] },
        { role: 'tool', toolCallId: 'c', content: 'done' },
      ],
      thinking: 'high',
      maxTokens: 9,
      stop: ['END'],
      sampling: { temperature: 0.5, topP: 0.9, presencePenalty: 1, seed: 7, logitBias: { '5': -100 } },
    });
  });

  it('stream the same answer in pieces, with separate thinking, and the usage last if requested', async () => {
    engine.answer = async () => answerOf({ thinking: 'Hm.' });
    const asked = {
      model: 'scripted',
      messages: [user('hi')],
      stream: true as const,
      stream_options: { include_usage: true },
    };
    const chunks = await all(await client.chat.completions.create(asked));
    const deltas = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta));
    expect(deltas[0]).toEqual({ role: 'assistant', reasoning_content: 'Hm.' });
    expect(deltas.map(({ content }) => content ?? '').join('')).toBe('One two.');
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('stop');
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: 23 } });
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  it('call tools, streamed and whole alike', async () => {
    engine.answer = async () => called;
    const tools: OpenAI.ChatCompletionTool[] = [{ type: 'function', function: weather }];
    const { choices } = await chat({ tools, tool_choice: { type: 'function', function: { name: 'weather' } } });
    expect(engine.asked[0]).toMatchObject({ tools: [weather], toolChoice: { name: 'weather' } });
    expect(choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: { content: null, reasoning_content: 'Which city?', tool_calls: [{ id: 'call_1' }, { id: 'call_2' }] },
    });
    const streamed = client.chat.completions.stream({ model: 'scripted', messages: [user('hi')], tools });
    const final = await streamed.finalChatCompletion();
    expect(
      final.choices[0]?.message.tool_calls?.map((call) => call.type === 'function' && call.function),
    ).toMatchObject([
      { name: 'weather', arguments: '{"city":"Oslo"}' },
      { name: 'weather', arguments: '{"city":"Rome"}' },
    ]);
    const one = await chat({ tools, parallel_tool_calls: false });
    expect(one.choices[0]?.message.tool_calls).toHaveLength(1);
  });

  it('ask the engine for JSON, by the schema if there is one', async () => {
    const schema = { type: 'object', properties: { ok: { type: 'boolean' } } };
    await chat({ response_format: { type: 'json_object' } });
    await chat({ response_format: { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } } });
    expect(engine.asked.map(({ responseFormat }) => responseFormat)).toEqual([
      { kind: 'json' },
      { kind: 'json-schema', schema },
    ]);
  });

  it('give several answers, each with its own seed', async () => {
    const { choices, usage } = await chat({ n: 3, seed: 10 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(engine.asked.map(({ sampling }) => sampling.seed)).toEqual([10, 11, 12]);
    expect(usage).toMatchObject({ prompt_tokens: 20, completion_tokens: 9 });
  });

  it('stop in the engine when the client does', async () => {
    const stopped = new Promise<void>((resolve) => {
      engine.answer = (asked, signal) =>
        new Promise((done) => {
          engine.deliver({ stream: asked.stream, kind: 'text', text: 'One' });
          signal.addEventListener('abort', () => {
            resolve();
            done(answerOf({ finish: 'cancelled' }));
          });
        });
    });
    const stream = await client.chat.completions.create({ model: 'scripted', messages: [user('hi')], stream: true });
    for await (const { choices } of stream) if (choices[0]?.delta.content === 'One') break;
    stream.controller.abort();
    await stopped;
    const whole = new AbortController();
    const gone = new Promise<void>((resolve) => {
      engine.answer = (_, signal) =>
        new Promise((_done, fail) => {
          whole.abort();
          signal.addEventListener('abort', () => {
            resolve();
            fail(cancelled());
          });
        });
    });
    const asked = { model: 'scripted', messages: [user('hi')] };
    await expect(client.chat.completions.create(asked, { signal: whole.signal })).rejects.toThrow('aborted');
    await gone;
  });
});

describe('completions', () => {
  it('continue raw text', async () => {
    const { choices, usage } = await client.completions.create({
      model: 'scripted',
      prompt: 'It',
      max_tokens: 5,
      stop: 'X',
    });
    expect(engine.generated[0]).toMatchObject({ prompt: 'It', raw: true, maxTokens: 5, stop: ['X'] });
    expect(choices).toMatchObject([{ text: 'went on', finish_reason: 'length' }]);
    expect(usage?.total_tokens).toBe(23);
  });

  it('fill in the middle when there is a suffix, streamed as well', async () => {
    const asked = { model: 'scripted', prompt: 'a = ', suffix: ';' };
    expect((await client.completions.create(asked)).choices[0]?.text).toBe('the middle');
    expect(engine.completed[0]).toMatchObject({ prefix: 'a = ', suffix: ';', whole: true });
    const chunks = await all(await client.completions.create({ ...asked, stream: true }));
    expect(chunks.map(({ choices }) => choices[0]?.text).join('')).toBe('the middle');
  });

  it('report a model that cannot', async () => {
    const { model } = engine;
    engine.model = model && { ...model, fillInTheMiddle: false };
    const asked = client.completions.create({ model: 'scripted', prompt: 'a', suffix: 'b' });
    await expect(asked).rejects.toMatchObject({ status: 400, param: 'suffix' });
    engine.model = model;
  });
});

describe('responses', () => {
  const create = (fields: Partial<OpenAI.Responses.ResponseCreateParamsNonStreaming> = {}) =>
    client.responses.create({ model: 'scripted', input: 'hi', ...fields });

  it('answer with reasoning and a message', async () => {
    engine.answer = async () => answerOf({ thinking: 'Hm.' });
    const response = await create({ instructions: 'Be short.', reasoning: { effort: 'low' }, max_output_tokens: 9 });
    expect(engine.asked[0]).toMatchObject({
      messages: [{ role: 'system', content: 'Be short.' }, user('hi')],
      thinking: 'low',
      maxTokens: 9,
    });
    expect(response).toMatchObject({ status: 'completed', output_text: 'One two.' });
    expect(response.output).toMatchObject([
      { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Hm.' }] },
      { type: 'message', role: 'assistant', status: 'completed' },
    ]);
    expect(response.usage).toMatchObject({
      input_tokens: 20,
      output_tokens: 3,
      input_tokens_details: { cached_tokens: 5 },
      output_tokens_details: { reasoning_tokens: 3 },
    });
  });

  it('accept a turn’s items as one message', async () => {
    await create({
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Weather?' }] },
        { type: 'reasoning', id: 'rs_1', summary: [], content: [{ type: 'reasoning_text', text: 'Hm.' }] },
        { type: 'function_call', call_id: 'c1', name: 'weather', arguments: '{}' },
        { type: 'function_call_output', call_id: 'c1', output: 'sun' },
      ],
    });
    expect(engine.asked[0]?.messages).toEqual([
      user('Weather?'),
      { role: 'assistant', content: '', thinking: 'Hm.', toolCalls: [{ id: 'c1', name: 'weather', arguments: '{}' }] },
      { role: 'tool', toolCallId: 'c1', content: 'sun' },
    ]);
  });

  it('stream numbered events that the client adds up to the same response', async () => {
    engine.answer = async () => called;
    const tools = [{ type: 'function' as const, strict: true, ...weather }];
    const stream = client.responses.stream({ model: 'scripted', input: 'hi', tools });
    const events = await all(stream);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, index) => index));
    expect(events.map(({ type }) => type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.reasoning_text.delta',
      'response.reasoning_text.done',
      'response.content_part.done',
      'response.output_item.done',
      ...Array.from({ length: 2 }, () => [
        'response.output_item.added',
        'response.function_call_arguments.delta',
        'response.function_call_arguments.delta',
        'response.function_call_arguments.done',
        'response.output_item.done',
      ]).flat(),
      'response.completed',
    ]);
    const { output } = await stream.finalResponse();
    expect(output).toMatchObject([
      { type: 'reasoning' },
      { type: 'function_call', call_id: 'call_1', arguments: '{"city":"Oslo"}' },
      { type: 'function_call', call_id: 'call_2', arguments: '{"city":"Rome"}' },
    ]);
  });

  it('pass a schema on, and report a cut answer', async () => {
    engine.answer = async () => answerOf({ finish: 'context' });
    const schema = { type: 'object' };
    const response = await create({ text: { format: { type: 'json_schema', name: 'x', schema } } });
    expect(engine.asked[0]?.responseFormat).toEqual({ kind: 'json-schema', schema });
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
  });

  it('refuse options that would need a store', async () => {
    await expect(create({ previous_response_id: 'resp_1' })).rejects.toMatchObject({
      status: 400,
      param: 'previous_response_id',
    });
  });
});

describe('embeddings', () => {
  const create = (fields: Partial<OpenAI.EmbeddingCreateParams>) =>
    client.embeddings.create({ model: 'scripted', input: 'hello', ...fields });
  const { model } = new ScriptedEngine();

  beforeEach(() => {
    engine.model = model && { ...model, embeddingDimensions: 3 };
  });
  afterEach(() => {
    engine.model = model;
  });

  it('give a vector for each text, and count tokens', async () => {
    const { data, usage, model: named } = await create({ input: ['hello', 'hi'] });
    expect(named).toBe('scripted');
    expect(data.map(({ index, embedding }) => [index, [...embedding]])).toEqual([
      [0, [0, 5, 0.5]],
      [1, [1, 2, 0.5]],
    ]);
    expect(usage).toEqual({ prompt_tokens: 7, total_tokens: 7 });
  });

  it('take one text, the token ids of one text, and those of several', async () => {
    const lengths = async (input: OpenAI.EmbeddingCreateParams['input']) =>
      (await create({ input })).data.map(({ embedding }) => embedding[1]);
    expect(await lengths('hello')).toEqual([5]);
    expect(await lengths([5, 6, 7])).toEqual([3]);
    expect(await lengths([[5, 6, 7], [8]])).toEqual([3, 1]);
  });

  it('are numbers, or the same in base64', async () => {
    const { data } = await create({ encoding_format: 'float' });
    expect(data[0]?.embedding).toEqual([0, 5, 0.5]);
    // The client asks for base64 by itself, and reads it; asked for it, it hands the text on.
    const encoded = await create({ encoding_format: 'base64' });
    const bytes = Buffer.from(String(encoded.data[0]?.embedding), 'base64');
    expect([0, 4, 8].map((at) => bytes.readFloatLE(at))).toEqual([0, 5, 0.5]);
  });

  it('have the requested length', async () => {
    expect((await create({ dimensions: 2 })).data[0]?.embedding).toHaveLength(2);
    await expect(create({ dimensions: 0 })).rejects.toMatchObject({ status: 400, param: 'dimensions' });
  });

  it('are refused for no input, too many inputs, and inputs that are not text', async () => {
    const wrong: unknown[] = ['', [], [''], [[]], 7, [1.5], ['a', 1], new Array(2049).fill('a')];
    for (const input of wrong) {
      const asked = create({ input: input as string });
      await expect(asked, JSON.stringify(input)?.slice(0, 40)).rejects.toMatchObject({
        status: 400,
        param: expect.stringMatching(/^input/),
      });
    }
  });

  it('are refused in OpenAI’s shape if the loaded model is not an embedding model', async () => {
    engine.model = model;
    await expect(create({})).rejects.toMatchObject({ status: 400, param: 'model', type: 'invalid_request_error' });
    await expect(create({ model: 'other' })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });
});

/** What no type of the official client knows. */
const asked = (fields: object) =>
  client.chat.completions.create({ model: 'scripted', messages: [user('hi')], ...fields });

describe('Other servers’ fields', () => {
  const schema = { type: 'object', properties: { a: { type: 'integer' } } };
  const json = { kind: 'json-schema', schema };

  it('for the form of an answer are honoured', async () => {
    const forms: [object, object][] = [
      [{ guided_json: schema }, json],
      [{ guided_json: JSON.stringify(schema) }, json],
      [{ json_schema: schema }, json],
      [{ structured_outputs: { json: schema } }, json],
      [{ structured_outputs: { json_object: true } }, { kind: 'json' }],
      [{ structured_outputs: { choice: ['a', 'b'] } }, { kind: 'choice', choices: ['a', 'b'] }],
      [{ guided_choice: ['yes', 'no'] }, { kind: 'choice', choices: ['yes', 'no'] }],
      [{ response_format: { type: 'json_object', schema } }, json],
      [{ response_format: { type: 'json_schema', schema } }, json],
      [{ response_format: { type: 'json_schema', json_schema: { schema } } }, json],
      [{ guided_json: null, guided_choice: null, structured_outputs: null }, { kind: 'text' }],
    ];
    for (const [fields, expected] of forms) {
      await asked(fields);
      expect(engine.asked.at(-1)?.responseFormat, JSON.stringify(fields)).toEqual(expected);
    }
  });

  it('that have no equivalent are refused by name, never ignored', async () => {
    const refused: [object, string][] = [
      [{ guided_regex: 'a+' }, 'guided_regex'],
      [{ guided_grammar: 'root ::= "a"' }, 'guided_grammar'],
      [{ grammar: 'root ::= "a"' }, 'grammar'],
      [{ regex: 'a+' }, 'regex'],
      [{ ebnf: 'root ::= "a"' }, 'ebnf'],
      [{ structured_outputs: { regex: 'a+' } }, 'structured_outputs.regex'],
      [{ structured_outputs: { grammar: 'a' } }, 'structured_outputs.grammar'],
      [{ structural_tag: '{}' }, 'structural_tag'],
      [{ guided_json: schema, guided_choice: ['a'] }, 'guided_choice'],
      [{ guided_json: 'no json' }, 'guided_json'],
      [{ guided_choice: ['a\rb'] }, 'guided_choice.0'],
      [{ response_format: { type: 'json_schema' } }, 'response_format'],
      [{ continue_final_message: true }, 'continue_final_message'],
      [{ add_generation_prompt: false }, 'add_generation_prompt'],
      [{ chat_template_kwargs: { custom: 1 } }, 'chat_template_kwargs.custom'],
      [{ reasoning: { exclude: true } }, 'reasoning.exclude'],
      [{ modalities: ['audio'] }, 'modalities'],
      [{ echo: true }, 'echo'],
    ];
    for (const [fields, param] of refused) {
      await expect(asked(fields), JSON.stringify(fields)).rejects.toMatchObject({ status: 400, param });
    }
    expect(engine.asked).toEqual([]);
  });

  it('for thinking and for where an answer ends are honoured; -1 is off', async () => {
    const settings: [object, object][] = [
      [{ reasoning: { effort: 'high' } }, { thinking: 'high' }],
      [{ reasoning: { max_tokens: 50 } }, { thinking: 'on', thinkingTokens: 50 }],
      [{ reasoning: { enabled: true } }, { thinking: 'on' }],
      [{ chat_template_kwargs: { enable_thinking: true } }, { thinking: 'on' }],
      [{ chat_template_kwargs: { thinking: false } }, { thinking: 'off' }],
      [{ chat_template_kwargs: { reasoning_effort: 'low' } }, { thinking: 'low' }],
      [{ thinking_budget_tokens: 9 }, { thinkingTokens: 9 }],
      [
        { min_tokens: 5, stop_token_ids: [7, 8] },
        { minTokens: 5, stopIds: [7, 8] },
      ],
      [
        { ignore_eos: true, max_tokens: 4 },
        { minTokens: 100_000_000, maxTokens: 4 },
      ],
      [{ parallel_tool_calls: false }, { parallelToolCalls: false }],
      [{ logprobs: true, top_logprobs: 3 }, { logprobs: 3 }],
      [{ modalities: ['text'], add_generation_prompt: true, continue_final_message: false }, { minTokens: 0 }],
    ];
    for (const [fields, expected] of settings) {
      await asked(fields);
      expect(engine.asked.at(-1), JSON.stringify(fields)).toMatchObject(expected);
    }
    await asked({ max_tokens: -1, top_k: -1, seed: -1, min_tokens: -1, thinking_token_budget: -1 });
    const off = engine.asked.at(-1);
    expect([off?.maxTokens, off?.sampling.topK, off?.sampling.seed, off?.thinkingTokens]).toEqual([
      undefined,
      0,
      undefined,
      undefined,
    ]);
  });

  it('in messages are accepted: a tool without content, arguments as an object or absent, a trailing slash, a byte-order mark', async () => {
    const call = (given: unknown) => ({ id: 'c', type: 'function', function: { name: 'f', arguments: given } });
    const messages = [
      user('hi'),
      { role: 'assistant', content: null, tool_calls: [call({ a: 1 }), call(''), call(null), call('{"b":2}')] },
      { role: 'tool', tool_call_id: 'c', content: null },
    ];
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const body = `\ufeff${JSON.stringify({ model: 'scripted', messages })}`;
    const response = await fetch(`${server.address}/v1/chat/completions/`, { method: 'POST', headers, body });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ system_fingerprint: expect.stringMatching(/^hearth-[0-9a-f]{12}$/) });
    const [, assistant, tool] = engine.asked.at(-1)?.messages ?? [];
    expect(assistant).toMatchObject({
      toolCalls: [{ arguments: '{"a":1}' }, { arguments: '{}' }, { arguments: '{}' }, { arguments: '{"b":2}' }],
    });
    expect(tool).toMatchObject({ content: '' });
    const listed = await fetch(`${server.address}/v1/models/`, { headers });
    expect(await listed.json()).toMatchObject({ object: 'list', data: [{ id: 'scripted' }] });
  });
});

describe('errors', () => {
  it('name the field that is wrong', async () => {
    const wrong: [Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>, string][] = [
      [{ temperature: 9 }, 'temperature'],
      [{ messages: [] }, 'messages'],
      [{ n: 5 }, 'n'],
      [{ max_tokens: 0 }, 'max_tokens'],
      [{ frequency_penalty: 1 }, 'frequency_penalty'],
      [{ top_logprobs: 3 }, 'top_logprobs'],
      [{ logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
      [{ modalities: ['text', 'audio'] }, 'modalities'],
      [{ tool_choice: 'required' }, 'tool_choice'],
      [{ model: 'other' }, 'model'],
      [
        { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:,' } }] }] },
        'messages.0.content',
      ],
    ];
    for (const [fields, param] of wrong) {
      await expect(chat(fields), param).rejects.toMatchObject({ param, type: 'invalid_request_error' });
    }
    expect(engine.asked).toEqual([]);
  });

  it('of the engine have the status that clients act on', async () => {
    const statuses = [
      ['context-overflow', 400, 'context_length_exceeded'],
      ['unsupported', 400, 'unsupported'],
      ['unavailable', 503, 'unavailable'],
      ['out-of-memory', 503, 'out-of-memory'],
    ] as const;
    for (const [code, status, known] of statuses) {
      engine.answer = async () => {
        throw new HearthError(code, 'A sentence.');
      };
      await expect(chat()).rejects.toMatchObject({ status, code: known, message: `${status} A sentence.` });
    }
  });

  it('report a broken invariant only to the log', async () => {
    engine.answer = async () => {
      throw new TypeError('secret detail');
    };
    const failure = await chat().catch((error: unknown) => error);
    expect(failure).toMatchObject({ status: 500 });
    expect(String(failure)).not.toContain('secret');
    expect(log.join()).toContain('secret detail');
  });

  it('in the middle of a stream end it with an error event', async () => {
    engine.answer = async (asked) => {
      engine.deliver({ stream: asked.stream, kind: 'text', text: 'One' });
      throw new HearthError('device-lost', 'The GPU went away.');
    };
    const stream = await client.chat.completions.create({ model: 'scripted', messages: [user('hi')], stream: true });
    await expect(all(stream)).rejects.toThrow('The GPU went away.');
    const responses = await client.responses.create({ model: 'scripted', input: 'hi', stream: true });
    await expect(all(responses)).rejects.toThrow('The GPU went away.');
  });

  it('reject a client without a token, and one before a model is loaded', async () => {
    const stranger = new OpenAI({ baseURL: `${server.address}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    const { model } = engine;
    engine.model = undefined;
    await expect(chat()).rejects.toMatchObject({ status: 503 });
    expect(await all(await client.models.list())).toEqual([]);
    engine.model = model;
  });

  it('leave the statistics of other answers alone', async () => {
    const [a, b] = await Promise.all([chat(), chat({ n: 2 })]);
    expect([a.usage?.completion_tokens, b.usage?.completion_tokens]).toEqual([
      statistics.generatedTokens,
      2 * statistics.generatedTokens,
    ]);
  });
});
