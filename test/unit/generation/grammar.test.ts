/** Calls and answers that are held to schemas, however little the model knows: here, all that may come is as likely. */
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';
import { type ChatAnswer, type ChatRequest, chat } from '../../../engine/generation/chat.ts';
import { Grammars } from '../../../engine/generation/grammar.ts';
import { seededRandom } from '../../../engine/generation/random.ts';
import { greedy } from '../../../engine/generation/sampler.ts';
import type { Tool } from '../../../engine/text/conversation.ts';
import type { OutputPiece } from '../../../engine/text/output.ts';
import { promptFormatOf } from '../../../engine/text/promptFormat.ts';
import type { Tokenizer } from '../../../engine/text/tokenizer.ts';
import { describeShared } from '../shared.ts';
import { publishedFiles, publishedTemplate, publishedTokenizer, smallTokenizer } from '../text/vocabularies.ts';
import { FakeDecoder } from './fakeDecoder.ts';
import { schedulerOf } from './setUp.ts';

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

async function tokenizerFor(model: string): Promise<Tokenizer> {
  const tokenizer = await publishedTokenizer(model.startsWith('Qwen3') ? 'Qwen3-0.6B' : model);
  const members: Partial<Tokenizer> = { chatTemplate: publishedTemplate(model) };
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
        // It would not end by itself: it is stopped after its call.
        const stop = new AbortController();
        let json = '';
        const onPiece = (piece: OutputPiece): void => {
          if (piece.kind !== 'tool-call') return;
          json += piece.text;
          if (json.endsWith('}')) stop.abort();
        };
        const request = { tools, toolChoice, maxTokens: 150, signal: stop.signal, onPiece };
        const answer = await ask(tokenizer, seed, request, grammars);
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

describe('A schema that cannot be followed', () => {
  it('is refused, and says so', async () => {
    const grammars = new Grammars(smallTokenizer());
    const walk = grammars.walk({ rules: 'top ::= root', schema: { type: 'strange' } });
    await expect(walk).rejects.toMatchObject({ code: 'invalid-input' });
    await expect(grammars.walk({ rules: 'top ::= root', schema: { title: 'x'.repeat(300_000) } })).rejects.toThrow(
      'at most',
    );
  });
});
