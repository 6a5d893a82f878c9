/** Prompts and outputs of each family, compared with their publishers' software. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { z } from 'zod';
import type { ChatMessage, Tool } from '../../../engine/prompt/conversation.ts';
import {
  assistantStart,
  developerText,
  type HarmonyMessage,
  harmonyParts,
  systemText,
  withoutOldAnalysis,
} from '../../../engine/prompt/formats/harmony.ts';
import { type PromptFormat, promptFormatOf, type ResponseFormat } from '../../../engine/prompt/formats/promptFormat.ts';
import { ChannelParser } from '../../../engine/prompt/parsers/channels.ts';
import type { ThinkingMode } from '../../../engine/prompt/thinking.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { describeShared, sharedFile } from '../shared.ts';
import {
  publishedFiles,
  publishedTemplate,
  publishedTokenizer,
  readJson,
  smallTokenizer,
} from '../tokenizer/vocabularies.ts';
import { summary } from './pieces.ts';

const now = new Date(2025, 5, 28);

/** A message as templates are given it. */
interface TemplateMessage {
  readonly role: string;
  readonly content: unknown;
  readonly thinking?: string;
  readonly tool_calls?: readonly { readonly function: { readonly name: string; readonly arguments: unknown } }[];
}

interface Render {
  readonly context: {
    readonly messages: readonly TemplateMessage[];
    readonly tools?: readonly { readonly function: Tool }[];
    readonly enable_thinking?: boolean;
    readonly thinking?: boolean;
    readonly reasoning_effort?: ThinkingMode;
  };
  readonly rendered: string;
}

/** Python's spelling of JSON, in which templates were given mappings. */
function text(value: unknown): string {
  return typeof value === 'string'
    ? value
    : JSON.stringify(value ?? '', undefined, 1)
        .replace(/\n\s*/g, ' ')
        .replace(/([{[]) | ([}\]])/g, '$1$2');
}

function message(given: TemplateMessage): ChatMessage {
  const content = given.content === null ? '' : text(given.content);
  switch (given.role) {
    case 'system':
    case 'user':
      return { role: given.role, content };
    case 'tool':
      return { role: 'tool', toolCallId: 'call_1', content };
    default: {
      const toolCalls = given.tool_calls?.map((call, i) => ({
        id: `call_${i + 1}`,
        name: call.function.name,
        arguments: text(call.function.arguments),
      }));
      return { role: 'assistant', content, thinking: given.thinking, toolCalls };
    }
  }
}

async function formatOf(model: string): Promise<{ tokenizer: Tokenizer; format: PromptFormat }> {
  const tokenizers: Record<string, string> = { 'Qwen3-Coder-30B-A3B-Instruct': 'Qwen3-0.6B' };
  const tokenizer = await publishedTokenizer(tokenizers[model] ?? model);
  return { tokenizer, format: promptFormatOf({ ...boundTo(tokenizer), chatTemplate: publishedTemplate(model) }) };
}

/** Methods of a class, as own members. */
function boundTo(tokenizer: Tokenizer): Tokenizer {
  return {
    vocabularySize: tokenizer.vocabularySize,
    endIds: tokenizer.endIds,
    templateTokens: tokenizer.templateTokens,
    framing: tokenizer.framing,
    encode: (...args) => tokenizer.encode(...args),
    split: (...args) => tokenizer.split(...args),
    encodeSliced: (...args) => tokenizer.encodeSliced(...args),
    encodeParts: (...args) => tokenizer.encodeParts(...args),
    bytesOf: (id) => tokenizer.bytesOf(id),
    isSpecial: (id) => tokenizer.isSpecial(id),
    idOf: (token) => tokenizer.idOf(token),
    decode: (ids) => tokenizer.decode(ids),
  };
}

function read(format: PromptFormat, tokenizer: Tokenizer, output: string, tools: readonly Tool[]) {
  const prompt = format.render([{ role: 'user', content: 'Hi' }], { thinking: 'off', now, tools });
  const parser = prompt.parser();
  const ids = tokenizer.encode(output, { special: 'parse' });
  const pieces = [...ids.flatMap((id) => parser.push(id)), ...parser.end()];
  return summary(pieces);
}

const weather: Tool = {
  name: 'get_weather',
  description: 'Get the weather',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' }, days: { type: 'integer' } },
    required: ['city'],
  },
};

describeShared('Prompts', [...publishedFiles, 'reference/template_renders.json'], () => {
  /** Where the documents are followed, not the template: see engine/prompt/formats/harmony.ts. */
  const documented = (model: string, rendered: string): string =>
    model.startsWith('gpt-oss')
      ? rendered
          .replace(/(# Instructions\n\n.*?)\n\n(?=<\|end\|>)/s, '$1')
          .replace(
            ' to=functions.get_weather<|channel|>commentary json',
            '<|channel|>commentary to=functions.get_weather <|constrain|>json',
          )
      : rendered;

  const renders = readJson<Record<string, Record<string, Render>>>(sharedFile('reference/template_renders.json'));
  for (const [model, cases] of Object.entries(renders)) {
    for (const [name, { context, rendered }] of Object.entries(cases)) {
      it(`are those of transformers' templates: ${model}, ${name}`, async () => {
        const { tokenizer, format } = await formatOf(model);
        const thinks = context.enable_thinking ?? context.thinking;
        const byDefault = model.startsWith('Qwen') ? 'on' : model.startsWith('gpt-oss') ? 'medium' : 'off';
        const thinking = context.reasoning_effort ?? (thinks === undefined ? byDefault : thinks ? 'on' : 'off');
        const tools = context.tools?.map((tool) => tool.function);
        const { ids } = format.render(context.messages.map(message), { thinking, now, tools });
        const shown = Buffer.concat(ids.map((id) => tokenizer.bytesOf(id))).toString();
        expect(shown).toBe(documented(model, rendered));
        expect(ids).toEqual(tokenizer.encode(documented(model, rendered), { special: 'parse' }));
      });
    }
  }
});

describeShared('Calls', publishedFiles, () => {
  const calls = [{ name: 'get_weather', arguments: '{"city": "Paris", "days": 2}' }];
  const written: [model: string, output: string][] = [
    ['Qwen3-0.6B', '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'],
    [
      'Qwen3-Coder-30B-A3B-Instruct',
      '<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>',
    ],
    [
      'DeepSeek-V3',
      '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ],
    [
      'DeepSeek-V3.1',
      '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris", "days": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ],
    [
      'gpt-oss-20b',
      '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris", "days": 2}<|call|>',
    ],
    [
      'gpt-oss-20b',
      ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris", "days": 2}<|call|>',
    ],
    [
      'SmolLM2-135M-Instruct',
      '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>',
    ],
  ];
  for (const [model, output] of written) {
    it(`are read as the family writes them: ${model}, ${output.slice(0, 30)}`, async () => {
      const { tokenizer, format } = await formatOf(model);
      expect(read(format, tokenizer, output, [weather])).toEqual({ text: '', thinking: '', calls });
    });
  }
});

interface HarmonyCase {
  readonly fixture: string;
  readonly render: 'completion' | 'conversation';
  readonly config: { readonly auto_drop_analysis: boolean };
  readonly messages: readonly {
    readonly role: string;
    readonly name?: string;
    readonly channel?: HarmonyMessage['channel'];
    readonly recipient?: string;
    readonly content_type?: string;
    readonly content: readonly Record<string, unknown>[];
  }[];
  readonly ids: readonly number[];
}

const harmonyFiles = ['reference/harmony/cases.json', 'reference/harmony/expected_ids.json'];
describeShared('Harmony', [...publishedFiles, ...harmonyFiles], () => {
  const cases = readJson<HarmonyCase[]>(sharedFile('reference/harmony/cases.json'));
  const harmonyTool = z.object({
    name: z.string(),
    description: z.string(),
    parameters: z
      .record(z.string(), z.unknown())
      .nullable()
      .transform((schema) => schema ?? {}),
  });
  const namespaces = z.record(z.string(), z.object({ tools: z.array(harmonyTool) })).nullish();
  const systemContent = z.object({
    reasoning_effort: z.enum(['Low', 'Medium', 'High']),
    knowledge_cutoff: z.string(),
    conversation_start_date: z.string().optional(),
    channel_config: z.object({ valid_channels: z.array(z.string()) }),
  });
  const developerContent = z.object({ instructions: z.string(), tools: namespaces });

  function harmonyText(role: string, content: unknown, functions: boolean): string {
    if (role === 'system') {
      const system = systemContent.parse(content);
      return systemText({
        effort: system.reasoning_effort === 'Low' ? 'low' : system.reasoning_effort === 'High' ? 'high' : 'medium',
        knowledgeCutoff: system.knowledge_cutoff,
        channels: system.channel_config.valid_channels,
        functions,
        ...(system.conversation_start_date === undefined ? {} : { date: system.conversation_start_date }),
      });
    }
    if (role !== 'developer') return z.object({ text: z.string() }).parse(content).text;
    const developer = developerContent.parse(content);
    return developerText(developer.instructions, developer.tools?.['functions']?.tools ?? []);
  }

  // openai/harmony, tests/test_harmony.py: ids that its own parser reads as an analysis and an answer, or a call.
  it('reads back the publisher’s completions', async () => {
    const tokenizer = await publishedTokenizer('gpt-oss-20b');
    const parsed = (fixture: string, tools: readonly Tool[]) => {
      const ids = readFileSync(sharedFile(`reference/harmony/${fixture}`), 'utf8')
        .trim()
        .split(/\s+/)
        .map(Number);
      const parser = new ChannelParser(tokenizer, tools);
      return summary([...ids.flatMap((id) => parser.push(id)), ...parser.end()]);
    };
    const thinking = 'User asks: "What is 2 + 2?" Simple arithmetic. Provide answer.';
    expect(parsed('test_simple_reasoning_response.txt', [])).toEqual({ thinking, text: '2 + 2 = 4.', calls: [] });
    const { calls } = parsed('test_simple_tool_call.txt', [{ ...weather, name: 'lookup_weather' }]);
    expect(parsed('test_simple_tool_call.txt', [weather]).calls, 'of a tool that is not offered').toEqual([]);
    expect(calls).toEqual([{ name: 'lookup_weather', arguments: '{"location": "Tokyo"}' }]);
  });

  for (const { fixture, render, config, messages, ids } of cases) {
    it(`renders the publisher's conversation ${fixture}`, async () => {
      const tokenizer = await publishedTokenizer('gpt-oss-20b');
      const functions = messages.some(({ content }) => JSON.stringify(content).includes('"functions":{"name"'));
      const given = messages.map(
        ({ role, name, channel, recipient, content_type: type, content }): HarmonyMessage => ({
          author: name ?? role,
          text: harmonyText(role, content[0], functions),
          // The publisher's renderer names it there.
          recipientIn: 'author',
          ...(channel && { channel }),
          ...(recipient && { recipient }),
          ...(type && { type: 'json' }),
        }),
      );
      const kept = config.auto_drop_analysis ? withoutOldAnalysis(given) : given;
      const start = render === 'completion' ? assistantStart(tokenizer) : [];
      expect(tokenizer.encodeParts([...harmonyParts(tokenizer, kept), ...start])).toEqual(ids);
    });
  }
});

describeShared('A prompt', publishedFiles, () => {
  const json = '{"city": "Paris", "days": 2}';
  const xml =
    '<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>';
  const v31 = `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>${json}<｜tool▁call▁end｜>`;
  const written: [model: string, output: string][] = [
    [
      'Qwen3-0.6B',
      `<think>\nhm\n</think>\n\n<tool_call>\n{"name": "get_weather", "arguments": ${json}}\n</tool_call><|im_end|>`,
    ],
    ['Qwen3-Coder-30B-A3B-Instruct', `<tool_call>\n${xml}\n</tool_call><|im_end|>`],
    ['DeepSeek-V3.1', `I look.${v31}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>`],
    [
      'gpt-oss-20b',
      `<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>${json}<|call|>`,
    ],
  ];
  for (const [model, output] of written) {
    it(`continues the one before and its answer, token by token, while tools are called: ${model}`, async () => {
      const { tokenizer, format } = await formatOf(model);
      const options = { thinking: 'on', now, tools: [weather] } as const;
      const question: ChatMessage = { role: 'user', content: 'Hi' };
      const first = format.render([question], options);
      const generated = tokenizer.encode(output, { special: 'parse' });
      const parser = first.parser();
      const { text, thinking, calls } = summary([...generated.flatMap((id) => parser.push(id)), ...parser.end()]);
      const toolCalls = calls.map((call) => ({ id: 'call_1', ...call }));
      const second = format.render(
        [
          question,
          { role: 'assistant', content: text, thinking, toolCalls },
          { role: 'tool', toolCallId: 'call_1', content: '20' },
        ],
        options,
      );
      const before = [...first.ids, ...generated];
      expect(second.ids.slice(0, before.length)).toEqual(before);
    });
  }
});

describeShared('A wanted form of the answer', publishedFiles, () => {
  const schema = { type: 'object', properties: { items: { type: 'array' } } };
  const stated = '{"type":"object","properties":{"items":{"type":"array"}}}';
  const conversation: ChatMessage[] = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'First.' },
    { role: 'assistant', content: 'Yes.' },
    { role: 'user', content: 'Then?' },
  ];
  const prompted = (tokenizer: Tokenizer, format: PromptFormat, responseFormat: ResponseFormat): string =>
    tokenizer.decode(format.render(conversation, { thinking: 'off', now, responseFormat }).ids);

  for (const model of ['Qwen3-0.6B', 'DeepSeek-V3', 'DeepSeek-V3.1', 'SmolLM2-135M-Instruct']) {
    it(`is stated at the end of the last question: ${model}`, async () => {
      const { tokenizer, format } = await formatOf(model);
      const prompt = prompted(tokenizer, format, { kind: 'json-schema', schema });
      expect(prompt.split(stated)).toHaveLength(2);
      expect(prompt.indexOf(stated)).toBeGreaterThan(prompt.indexOf('Then?'));
      expect(prompted(tokenizer, format, { kind: 'json' })).toContain('Answer with a JSON object');
      const plain = prompted(tokenizer, format, { kind: 'text' });
      expect(prompt.startsWith(plain.slice(0, plain.indexOf('Then?')))).toBe(true);
    });
  }

  it('has a section of its own in GPT-OSS: "Structured output" in docs/format.md of openai/harmony', async () => {
    const { tokenizer, format } = await formatOf('gpt-oss-20b');
    const prompt = prompted(tokenizer, format, { kind: 'json-schema', schema });
    expect(prompt).toContain(`# Instructions\n\nBe brief.\n\n# Response Formats\n\n## answer\n\n${stated}`);
    expect(prompted(tokenizer, format, { kind: 'text' })).not.toContain('Response Formats');
  });

  it('constrains even a model that was never trained to converse', () => {
    const format = promptFormatOf({ ...boundTo(smallTokenizer()), framing: new Map() });
    const responseFormat = { kind: 'json-schema', schema } as const;
    const { plan } = format.render(conversation, { thinking: 'off', now, responseFormat });
    expect(plan.steps).toMatchObject([{ kind: 'choose', grammar: { form: [[{ kind: 'json', schema }]], last: true } }]);
  });
});
