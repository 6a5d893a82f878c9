/** Calls and answers follow their schemas whatever the model prefers: here, all allowed tokens are equally likely. */
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import type { Tool } from '../../../engine/prompt/conversation.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { Grammars } from '../../../engine/sampling/grammar.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { type ChatAnswer, type ChatRequest, chat } from '../../../engine/tasks/chat.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';
import { schedulerOf } from '../scheduler/setUp.ts';
import { describeShared } from '../shared.ts';
import { publishedFiles, publishedTemplate, publishedTokenizer, smallTokenizer } from '../tokenizer/vocabularies.ts';

const tools: Tool[] = [
  {
    name: 'read',
    description: 'Reads a file.',
    parameters: {
      type: 'object',
      properties: {
        mode: { type: 'string', enum: ['text', 'bytes'] },
        lines: { type: 'array', items: { type: 'integer', minimum: 0, maximum: 99 }, maxItems: 3 },
        name: { type: 'string', maxLength: 12 },
        all: { type: 'boolean' },
      },
      required: ['mode', 'lines'],
      additionalProperties: false,
    },
  },
  { name: 'read_folder', description: 'Reads a folder.', parameters: { type: 'object', properties: {} } },
];

async function ask(
  tokenizer: Tokenizer,
  seed: number,
  fields: Partial<ChatRequest>,
  grammars: Grammars,
): Promise<ChatAnswer> {
  return chat(
    {
      scheduler: schedulerOf(new FakeDecoder({ vocabularySize: tokenizer.vocabularySize, contextTokens: 8192 })),
      format: promptFormatOf(tokenizer),
      tokenizer,
      grammars,
      contextTokens: 8192,
      now: () => new Date(0),
    },
    {
      requestClass: 'chat',
      messages: [{ role: 'user', content: 'Hi' }],
      thinking: 'off',
      maxTokens: 400,
      stopStrings: [],
      sampling: { ...greedy, temperature: 1 },
      random: seededRandom(seed),
      onPiece: () => {},
      ...fields,
    },
  );
}

/** A model of Llama 3's kind: a call is the whole answer, without a frame. */
const bare = 'a bare call';
const bareTemplate =
  '{% for m in messages %}{% if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", ' +
  '"parameters": {{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.role }}: {{ m.content }}{% endif %}\n' +
  '{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}assistant:{% endif %}';

async function tokenizerFor(model: string): Promise<Tokenizer> {
  const known = model === bare ? 'SmolLM2-135M-Instruct' : model;
  const tokenizer = await publishedTokenizer(known.startsWith('Qwen3') ? 'Qwen3-0.6B' : known);
  const members: Partial<Tokenizer> = { chatTemplate: model === bare ? bareTemplate : publishedTemplate(model) };
  return new Proxy(tokenizer, {
    get: (target, key) => {
      if (key in members) return members[key as keyof Tokenizer];
      const member: unknown = target[key as keyof Tokenizer];
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}

const models = [
  'Qwen3-0.6B',
  'Qwen3-Coder-30B-A3B-Instruct',
  'DeepSeek-V3',
  'DeepSeek-V3.1',
  'gpt-oss-20b',
  'SmolLM2-135M-Instruct',
];

/** What was compiled for one test serves the next. */
const shared = new Map<string, Promise<{ tokenizer: Tokenizer; grammars: Grammars }>>();
function prepared(model: string): Promise<{ tokenizer: Tokenizer; grammars: Grammars }> {
  const known = shared.get(model);
  const ready = known ?? tokenizerFor(model).then((tokenizer) => ({ tokenizer, grammars: new Grammars(tokenizer) }));
  shared.set(model, ready);
  return ready;
}

describeShared('A model that knows nothing', publishedFiles, () => {
  const ajv = new Ajv();
  const validators = new Map(tools.map(({ name, parameters }) => [name, ajv.compile(parameters)]));

  for (const model of models) {
    it(`calls tools by their names and schemas when it must: ${model}`, async () => {
      const { tokenizer, grammars } = await prepared(model);
      let calls = 0;
      for (const [seed, toolChoice] of [
        [1, 'required'],
        [2, { name: 'read' }],
      ] as const) {
        // It would not end by itself: the call that it must make ends its turn.
        const answer = await ask(tokenizer, seed, { tools, toolChoice, maxTokens: 150 }, grammars);
        if (answer.calls.length > 0) expect(answer).toMatchObject({ finish: 'stop', text: '', calls: [{ index: 0 }] });
        for (const call of answer.calls) {
          calls++;
          const validate = validators.get(call.name);
          expect(validate?.(JSON.parse(call.arguments)), `${call.name} ${call.arguments}`).toBe(true);
        }
        if (answer.calls.length === 0) expect(answer.finish, answer.text).toBe('length');
      }
      expect(calls).toBeGreaterThan(0);
    }, 60_000);

    it(`answers in the wanted JSON: ${model}`, async () => {
      const { tokenizer, grammars } = await prepared(model);
      const schema = tools[0]?.parameters ?? {};
      const validate = ajv.compile(schema);
      let answers = 0;
      for (let seed = 1; seed <= 2; seed++) {
        const answer = await ask(tokenizer, seed, { responseFormat: { kind: 'json-schema', schema } }, grammars);
        if (answer.finish !== 'stop') continue;
        answers++;
        expect(validate(JSON.parse(answer.text)), answer.text).toBe(true);
      }
      expect(answers).toBeGreaterThan(0);
    }, 60_000);
  }
});

/** How each family writes a call, after what its prompt ends with. */
const writtenCalls: Readonly<Record<string, string>> = {
  'Qwen3-0.6B': '<tool_call>\n{"name": "read", "arguments": {"mode": "text", "lines": []}}\n</tool_call>',
  'Qwen3-Coder-30B-A3B-Instruct':
    '<tool_call>\n<function=read>\n<parameter=mode>\ntext\n</parameter>\n</function>\n</tool_call>',
  'DeepSeek-V3':
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>read\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
  'DeepSeek-V3.1':
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>read<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
  'gpt-oss-20b': '<|channel|>commentary to=functions.read <|constrain|>json<|message|>{"mode": "text"}<|call|>',
  'SmolLM2-135M-Instruct': '<tool_call>\n{"name": "read", "arguments": {"mode": "text"}}\n</tool_call>',
  [bare]: '{"name": "read", "parameters": {"mode": "text"}}',
};

describeShared('A model that insists on a call', publishedFiles, () => {
  /** Writes the text regardless of the tokens before it, then ends. */
  async function insisting(
    tokenizer: Tokenizer,
    text: string,
    special: 'plain' | 'parse',
    { toolChoice = 'none', draws = false }: { readonly toolChoice?: 'none' | 'auto'; readonly draws?: boolean } = {},
  ): Promise<ChatAnswer & { readonly onDevice: number }> {
    const end = [...tokenizer.endIds][0] ?? 0;
    const ids = [...tokenizer.encode(text, { special }), end];
    const messages = [{ role: 'user', content: 'Hi' }] as const;
    const options = { thinking: 'off', tools, toolChoice } as const;
    const format = promptFormatOf(tokenizer);
    const promptTokens = format.render(messages, { ...options, now: new Date(0) }).ids.length;
    const decoder = new FakeDecoder({
      vocabularySize: tokenizer.vocabularySize,
      contextTokens: 8192,
      follow: (tokens) => ids[tokens.length - promptTokens] ?? end,
      draws,
    });
    const model = { scheduler: schedulerOf(decoder), format, tokenizer, grammars: new Grammars(tokenizer) };
    const drawing = { sampling: greedy, random: seededRandom(1), stopStrings: [], onPiece: () => {} };
    const answer = await chat(
      { ...model, contextTokens: 8192, now: () => new Date(0) },
      { requestClass: 'chat', messages, ...options, ...drawing, maxTokens: ids.length },
    );
    return { ...answer, onDevice: model.scheduler.statistics().classes.chat.deviceTokens };
  }

  for (const [model, call] of Object.entries(writtenCalls)) {
    // DeepSeek's framing is none when it is spelled.
    for (const special of model.startsWith('DeepSeek') ? (['parse'] as const) : (['parse', 'plain'] as const)) {
      it(`makes no call if none is allowed: ${model}, framing ${special}`, async () => {
        const answer = await insisting(await tokenizerFor(model), call, special);
        expect(answer.calls).toEqual([]);
        // Nothing of the frame is shown as an answer.
        const [opener = ''] = /^(<tool_call>|<\S*begin\S*?>|\{"name":|<\|channel\|>commentary to=)/.exec(call) ?? [];
        expect(opener).not.toBe('');
        expect(answer.text).not.toContain(opener);
      });
    }

    it(`ends its turn with a call where calls may not be parallel: ${model}`, async () => {
      const tokenizer = await tokenizerFor(model);
      const lastStep = (parallelToolCalls: boolean): unknown => {
        const options = { thinking: 'off', now: new Date(0), tools, parallelToolCalls } as const;
        const { plan, stops } = promptFormatOf(tokenizer).render([{ role: 'user', content: 'Hi' }], options);
        const step = plan.calls?.steps('', '').at(-1);
        return step?.kind === 'write' && stops.has(tokenizer.encode(step.text, { special: 'parse' })[0] ?? -1)
          ? { kind: 'end' }
          : step;
      };
      expect(lastStep(false)).toEqual({ kind: 'end' });
      // Harmony has no parallel calls, and a bare call is the whole answer.
      if (model !== 'gpt-oss-20b' && model !== bare) expect(lastStep(true)).not.toEqual({ kind: 'end' });
    });
    // The device samples several tokens ahead: past the opener, or a token that is forbidden by then, they are dropped.
    it.each(['none', 'auto'] as const)(
      `gives the same answer when the device samples: ${model}, calls %s`,
      async (toolChoice) => {
        const tokenizer = await tokenizerFor(model);
        const text = `Let me see what < and <tool are.\n${call}`;
        const host = await insisting(tokenizer, text, 'parse', { toolChoice });
        const device = await insisting(tokenizer, text, 'parse', { toolChoice, draws: true });
        expect(host.onDevice).toBe(0);
        expect(device.onDevice).toBeGreaterThan(4);
        expect([device.text, device.calls, device.finish]).toEqual([host.text, host.calls, host.finish]);
      },
    );

    it(`parses a call where one is allowed: ${model}`, async () => {
      const tokenizer = await tokenizerFor(model);
      const options = { thinking: 'off', now: new Date(0), tools } as const;
      const parser = promptFormatOf(tokenizer)
        .render([{ role: 'user', content: 'Hi' }], options)
        .parser();
      const pieces = tokenizer.encode(call, { special: 'parse' }).flatMap((id) => parser.push(id));
      expect([...pieces, ...parser.end()]).toContainEqual(expect.objectContaining({ kind: 'tool-call', name: 'read' }));
    });
  }
});

describeShared('A bare call', publishedFiles, () => {
  async function written(text: string): Promise<ChatAnswer> {
    const tokenizer = await tokenizerFor(bare);
    const ids = tokenizer.encode(text, { special: 'plain' });
    const end = [...tokenizer.endIds][0] ?? 0;
    const format = promptFormatOf(tokenizer);
    const messages = [{ role: 'user', content: 'Hi' }] as const;
    const options = { thinking: 'off', tools } as const;
    const promptTokens = format.render(messages, { ...options, now: new Date(0) }).ids.length;
    const decoder = new FakeDecoder({
      vocabularySize: tokenizer.vocabularySize,
      contextTokens: 8192,
      follow: (tokens) => ids[tokens.length - promptTokens] ?? end,
    });
    const model = { scheduler: schedulerOf(decoder), format, tokenizer, grammars: new Grammars(tokenizer) };
    const drawing = { sampling: greedy, random: seededRandom(1), stopStrings: [], onPiece: () => {} };
    return chat(
      { ...model, contextTokens: 8192, now: () => new Date(0) },
      { requestClass: 'chat', messages, ...options, ...drawing, maxTokens: 200 },
    );
  }

  it('follows the offered tools and their schemas, though the model is otherwise free', async () => {
    const ajv = new Ajv();
    for (const text of [
      '{"name": "rm", "parameters": {"path": "/"}}',
      '{"name":"rm","parameters":{"path":"/"}}',
      ' {"name": "read", "parameters": {"mode": "shell", "x": 1}}',
      '{"name": "reader", "parameters": {}}',
    ]) {
      const { calls } = await written(text);
      for (const call of calls) {
        const tool = tools.find(({ name }) => name === call.name);
        expect(tool && ajv.validate(tool.parameters, JSON.parse(call.arguments)), `${text}: ${call.arguments}`).toBe(
          true,
        );
      }
    }
  });

  it('is a call only at the beginning of the answer', async () => {
    const text = 'Like this: {"name": "read", "parameters": {"mode": "shell"}}';
    expect(await written(text)).toMatchObject({ text, calls: [] });
    const other = '{"names": "read"}';
    expect(await written(other)).toMatchObject({ text: other, calls: [] });
  });
});
const json = (schema: unknown) => ({ form: [[{ kind: 'json', schema }]] }) as const;

describe('A schema that cannot be enforced', () => {
  it('is refused, and says so', async () => {
    const grammars = new Grammars(smallTokenizer());
    await expect(grammars.walk(json({ type: 'strange' }))).rejects.toMatchObject({ code: 'invalid-input' });
    await expect(grammars.walk(json({ title: 'x'.repeat(300_000) }))).rejects.toThrow('characters (at most');
    await grammars.close();
  });
});
