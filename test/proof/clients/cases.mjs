// Cases of openai-node and LangChain.js against Hearth's server. Prints a line of JSON for each. Runs in the folder that has the clients.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [base, embeddingBase, key, model] = process.argv.slice(2);
const scripted = model === 'scripted';
const found = createRequire(join(process.cwd(), 'package.json'));
const load = async (name) => import(pathToFileURL(found.resolve(name)).href);
const { default: OpenAI } = await load('openai');
const { zodResponseFormat, zodFunction, zodTextFormat } = await load('openai/helpers/zod');
const { z } = await load('zod');
const { ChatOpenAI, OpenAIEmbeddings } = await load('@langchain/openai');
const { tool } = await load('@langchain/core/tools');
const { HumanMessage, ToolMessage } = await load('@langchain/core/messages');

const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
const embedder = new OpenAI({ baseURL: embeddingBase, apiKey: key, maxRetries: 0 });
const messages = [{ role: 'user', content: 'hi' }];
const few = { max_tokens: 24, temperature: 0 };
const City = z.object({ city: z.string() });
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const tools = [{ type: 'function', function: { name: 'weather', parameters } }];
const textIs = (text) => (scripted ? assert.equal(text, 'One two.') : assert.ok(text?.length > 0));
const lasts = async (stream) => {
  let whole;
  for await (const chunk of stream) whole = whole === undefined ? chunk : whole.concat(chunk);
  return whole;
};

const chat = new ChatOpenAI({
  model,
  apiKey: key,
  maxRetries: 0,
  configuration: { baseURL: base },
  ...(!scripted && { maxTokens: 24, temperature: 0 }),
});
const weather = tool(async ({ city }) => `rain in ${city}`, {
  name: 'weather',
  description: 'Tells the weather.',
  schema: City,
});

const cases = [
  [
    'openai-node',
    'chat',
    async () => textIs((await client.chat.completions.create({ model, messages, ...few })).choices[0].message.content),
  ],
  [
    'openai-node',
    'chat, streamed with usage',
    async () => {
      let [text, usage] = ['', undefined];
      const stream = await client.chat.completions.create({
        model,
        messages,
        stream: true,
        stream_options: { include_usage: true },
        ...few,
      });
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta.content ?? '';
        usage = chunk.usage ?? usage;
      }
      textIs(text);
      assert.ok(usage.total_tokens > 0);
    },
  ],
  [
    'openai-node',
    'chat.completions.stream with events',
    async () => {
      const heard = [];
      const stream = client.chat.completions
        .stream({ model, messages, ...few })
        .on('content.done', ({ content }) => heard.push(content));
      textIs((await stream.finalChatCompletion()).choices[0].message.content);
      textIs(heard[0]);
    },
  ],
  [
    'openai-node',
    'chat.completions.parse with Zod',
    async () => {
      const answer = await client.chat.completions.parse({
        model,
        messages,
        response_format: zodResponseFormat(City, 'city'),
        max_tokens: 200,
        temperature: 0,
      });
      assert.equal(typeof answer.choices[0].message.parsed.city, 'string');
    },
  ],
  [
    'openai-node',
    'runTools until the answer',
    async () => {
      const cities = [];
      const run = client.chat.completions.runTools({
        model,
        messages,
        tools: [
          zodFunction({
            name: 'weather',
            parameters: City,
            function: ({ city }) => {
              cities.push(city);
              return 'rain';
            },
          }),
        ],
      });
      textIs(await run.finalContent());
      assert.deepEqual(cities, ['Oslo', 'Rome']);
    },
    true,
  ],
  [
    'openai-node',
    'tools, streamed',
    async () => {
      const final = await client.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
      assert.equal(JSON.parse(final.choices[0].message.tool_calls[1].function.arguments).city, 'Rome');
    },
    true,
  ],
  [
    'openai-node',
    'responses: create, parse, stream',
    async () => {
      textIs((await client.responses.create({ model, input: 'hi' })).output_text);
      const parsed = await client.responses.parse({
        model,
        input: 'hi',
        text: { format: zodTextFormat(City, 'city') },
      });
      assert.equal(typeof parsed.output_parsed.city, 'string');
      textIs((await client.responses.stream({ model, input: 'hi' }).finalResponse()).output_text);
    },
    true,
  ],
  [
    'openai-node',
    'aborted by a signal',
    async () => {
      await assert.rejects(client.chat.completions.create({ model, messages }, { signal: AbortSignal.timeout(0) }));
      textIs((await client.chat.completions.create({ model, messages, ...few })).choices[0].message.content);
    },
  ],
  [
    'openai-node',
    'embeddings',
    async () => {
      const { data } = await embedder.embeddings.create({ model, input: ['hello', 'hi'] });
      assert.deepEqual(
        data.map(({ embedding }) => [...embedding]),
        [
          [0, 5, 0.5],
          [1, 2, 0.5],
        ],
      );
    },
    true,
  ],
  [
    'openai-node',
    "errors have the client's classes",
    async () => {
      await assert.rejects(
        new OpenAI({ baseURL: base, apiKey: 'no', maxRetries: 0 }).models.list(),
        OpenAI.AuthenticationError,
      );
      await assert.rejects(client.chat.completions.create({ model, messages: [] }), OpenAI.BadRequestError);
    },
  ],
  [
    'LangChain.js',
    'invoke and stream',
    async () => {
      textIs((await chat.invoke('hi')).content);
      textIs((await lasts(await chat.stream('hi'))).content);
    },
  ],
  [
    'LangChain.js',
    'bindTools, whole and streamed, results sent back',
    async () => {
      const bound = chat.bindTools([weather]);
      const called = await bound.invoke('hi');
      assert.deepEqual(
        (await lasts(await bound.stream('hi'))).tool_calls.map(({ args }) => args.city),
        ['Oslo', 'Rome'],
      );
      const results = called.tool_calls.map(({ id }) => new ToolMessage({ content: 'rain', tool_call_id: id }));
      textIs((await bound.invoke([new HumanMessage('hi'), called, ...results])).content);
    },
    true,
  ],
  [
    'LangChain.js',
    'withStructuredOutput: jsonSchema, functionCalling, jsonMode',
    async () => {
      for (const method of ['jsonSchema', 'functionCalling', 'jsonMode']) {
        const name = method === 'functionCalling' ? 'weather' : 'city';
        assert.equal(
          typeof (await chat.withStructuredOutput(City, { method, name }).invoke('hi')).city,
          'string',
          method,
        );
      }
    },
    true,
  ],
  [
    'LangChain.js',
    'embeddings',
    async () => {
      const embeddings = new OpenAIEmbeddings({
        model,
        apiKey: key,
        maxRetries: 0,
        configuration: { baseURL: embeddingBase },
      });
      assert.deepEqual(await embeddings.embedDocuments(['hello', 'hi']), [
        [0, 5, 0.5],
        [1, 2, 0.5],
      ]);
    },
    true,
  ],
];

for (const [who, name, run, needsScript] of cases) {
  if (needsScript && !scripted) continue;
  const error = await run().then(
    () => null,
    (failure) => String(failure?.stack ?? failure),
  );
  console.log(JSON.stringify({ who, case: name, error }));
}
