/** Mistral's calls, written as its templates and mistral-common (`tokens/tokenizers/instruct.py`) write them. */
import { describe, expect, it } from 'vitest';
import type { Tool } from '../../../engine/prompt/conversation.ts';
import { encodeChat } from '../../../engine/prompt/formats/chatPrompt.ts';
import { compileChatTemplate, type ToolSyntax, toolSyntaxOf } from '../../../engine/prompt/formats/chatTemplate.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { ToolCallSplitter } from '../../../engine/prompt/parsers/toolCallText.ts';
import { tokenizerFromJson } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import { smallTokenizerJson } from '../tokenizer/vocabularies.ts';
import { summary } from './pieces.ts';

const named: ToolSyntax = {
  ...{ kind: 'named', open: '[TOOL_CALLS]', close: '', argumentsKey: 'arguments' },
  ...{ given: 'json', inTemplate: true },
};
const tools: Tool[] = ['open', 'opens', 'now'].map((name) => ({
  name,
  description: 'Looks.',
  parameters: { type: 'object', properties: { path: { type: 'string' } } },
}));

function read(output: string, step: number) {
  const splitter = new ToolCallSplitter(named, tools);
  const pieces = [];
  for (let at = 0; at < output.length; at += step) pieces.push(...splitter.push(output.slice(at, at + step)));
  const { thinking: _, ...rest } = summary([...pieces, ...splitter.end()]);
  return rest;
}

const json = '{"path": "a [b]\\n{c}"}';
const call = { name: 'open', arguments: json };
const expectRead = (output: string, expected: ReturnType<typeof read>) => {
  for (const step of [1, 2, 7, output.length]) expect(read(output, step), `${step}`).toEqual(expected);
};

describe("Mistral's calls", () => {
  it('are read by name and arguments, however the text is cut', () => {
    expectRead(`I look.\n[TOOL_CALLS]open[ARGS]${json}`, { text: 'I look.', calls: [call] });
    const second = { name: 'opens', arguments: '{}' };
    expectRead(`[TOOL_CALLS]open[ARGS]${json}[TOOL_CALLS]opens[ARGS]{}`, { text: '', calls: [call, second] });
  });

  it('are read with an identifier, and without a mark before the arguments', () => {
    expectRead(`[TOOL_CALLS]open[CALL_ID]0000call1[ARGS]${json}`, { text: '', calls: [call] });
    expectRead(`[TOOL_CALLS]open${json}`, { text: '', calls: [call] });
  });

  it('are read from a list', () => {
    const compact = { name: 'open', arguments: JSON.stringify(JSON.parse(json)) };
    const listed = `{"name": "open", "arguments": ${json}, "id": "0000call1"}`;
    expectRead(`[TOOL_CALLS] [${listed}]`, { text: '', calls: [compact] });
    const other = '{"name": "now", "arguments": {}}';
    expectRead(`I look.[TOOL_CALLS][${listed}, ${other}]`, {
      text: 'I look.',
      calls: [compact, { name: 'now', arguments: '{}' }],
    });
  });

  it('without arguments have none', () => {
    expectRead('[TOOL_CALLS]now[ARGS]', { text: '', calls: [{ name: 'now', arguments: '{}' }] });
  });

  it('are text if no such tool was offered, and do not hide the call after them', () => {
    const text = '[TOOL_CALLS]other[ARGS]{"a": 1}';
    expectRead(text, { text, calls: [] });
    expectRead(`${text}[TOOL_CALLS]open[ARGS]${json}`, { text, calls: [call] });
    const list = '[TOOL_CALLS] [{"name": "other", "arguments": {}}]';
    expectRead(list, { text: list, calls: [] });
    const half = ', {"name": "other", "arguments": {}}]';
    expectRead(`[TOOL_CALLS] [{"name": "now", "arguments": {}}${half}`, {
      text: half,
      calls: [{ name: 'now', arguments: '{}' }],
    });
    const prose = `[TOOL_CALLS]${'open '.repeat(60)}`;
    expectRead(prose, { text: prose, calls: [] });
  });

  it('that are cut off keep what was read', () => {
    expect(read('[TOOL_CALLS]open[ARGS]{"path": "a', 3).calls).toEqual([{ name: 'open', arguments: '{"path": "a' }]);
  });
});

// As Devstral Small 2 and Ministral 3 write calls and results, less system prompts and pictures (chat_template.jinja).
const devstral = `{{ bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ message['content'] }}
{%- for tool in message['tool_calls'] or [] %}
{%- set arguments = tool['function']['arguments'] %}
{%- if arguments is not string %}{% set arguments = arguments|tojson|safe %}{% elif arguments == '' %}{% set arguments = '{}' %}{% endif %}
{{- '[TOOL_CALLS]' + tool['function']['name'] + '[ARGS]' + arguments }}
{%- endfor %}{{ eos_token }}
{%- elif message['role'] == 'tool' %}{{ '[TOOL_RESULTS]' + message['content']|string + '[/TOOL_RESULTS]' }}
{%- endif %}{% endfor %}`;

// As Mistral Small 3.1 does: a list, with identifiers of nine characters.
const small = `{{ bos_token }}{% for message in messages %}
{%- if message.role == 'user' %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' + '[INST]' + message.content + '[/INST]' }}
{%- elif message.tool_calls is defined %}{{ '[TOOL_CALLS] [' }}
{%- for tool_call in message.tool_calls %}{% set out = tool_call.function|tojson %}{{ out[:-1] }}
{%- if not tool_call.id is defined or tool_call.id|length < 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length >= 9!') }}{% endif %}
{{- ', "id": "' + tool_call.id[-9:] + '"}' }}{{ ', ' if not loop.last else ']' + eos_token }}{% endfor %}
{%- elif message.role == 'tool' %}{{ '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- else %}{{ message.content + eos_token }}{% endif %}{% endfor %}`;

describe('A template', () => {
  const none = { templateTokens: { begin: '', end: '' } };

  it('that writes calls by name, or in a list, is recognised', () => {
    expect(toolSyntaxOf(compileChatTemplate(devstral), none)).toEqual(named);
    expect(toolSyntaxOf(compileChatTemplate(small), none)).toEqual({
      ...named,
      kind: 'listed',
      given: 'mapping',
      callIds: 'nine characters',
    });
  });

  const marks = ['[INST]', '[/INST]', '[AVAILABLE_TOOLS]', '[/AVAILABLE_TOOLS]', '[TOOL_RESULTS]', '[/TOOL_RESULTS]'];
  const added = [...marks, '[TOOL_CALLS]', '[ARGS]', '[THINK]', '[/THINK]', '</s>'];
  const file = smallTokenizerJson();
  const added_tokens = added.map((content, i) => ({ id: 400 + i, content, special: true }));
  const withTemplate = (chat_template: string) =>
    tokenizerFromJson({ ...file, added_tokens }, { eos_token: '</s>', chat_template });
  const conversation = [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: '', toolCalls: [{ id: 'call_1', ...call }] },
    { role: 'tool', toolCallId: 'call_1', content: '20' },
  ] as const;

  it('of lists gets identifiers of nine characters, the same for a call and its result', () => {
    const tokenizer = withTemplate(small);
    const template = compileChatTemplate(small);
    const { ids } = encodeChat(tokenizer, template, conversation, {
      ...{ addGenerationPrompt: true, now: new Date(0), tools },
      toolSyntax: toolSyntaxOf(template, tokenizer),
    });
    const text = ids.map((id) => Buffer.from(tokenizer.bytesOf(id)).toString()).join('');
    expect(text).toContain(`[TOOL_CALLS] [{"name": "open", "arguments": ${json}, "id": "0000call1"}]</s>`);
    expect(text).toContain('"call_id": "0000call1"');
  });

  it('lets its answers be parsed: thinking, text and calls between tokens flagged special', () => {
    const tokenizer = withTemplate(devstral);
    const prompt = promptFormatOf(tokenizer).render(conversation, { thinking: 'off', now: new Date(0), tools });
    const shown = prompt.ids.map((id) => Buffer.from(tokenizer.bytesOf(id)).toString()).join('');
    expect(shown.endsWith(`[INST]Hi[/INST][TOOL_CALLS]open[ARGS]${json}</s>[TOOL_RESULTS]20[/TOOL_RESULTS]`)).toBe(
      true,
    );
    const parser = prompt.parser();
    const answer = `[THINK]Hm.[/THINK]I look.[TOOL_CALLS]open[ARGS]${json}</s>`;
    const pieces = tokenizer.encode(answer, { special: 'parse' }).flatMap((id) => parser.push(id));
    expect(summary([...pieces, ...parser.end()])).toEqual({ thinking: 'Hm.', text: 'I look.', calls: [call] });
    expect(prompt.plan.calls?.opener).toBe('[TOOL_CALLS]');
  });

  const literal = (text: string) => [{ kind: 'literal', text }];
  const planOf = (template: string, toolChoice: 'auto' | 'required' | 'none') =>
    promptFormatOf(withTemplate(template)).render(conversation, {
      thinking: 'off',
      now: new Date(0),
      tools,
      toolChoice,
    }).plan;

  it('that names calls restricts them to the tools, and allows none if none is wanted', () => {
    const [written, chosen, ...rest] = planOf(devstral, 'required').steps;
    expect(written).toEqual({ kind: 'write', text: '[TOOL_CALLS]' });
    const form = tools.map(({ name }) => literal(`${name}[ARGS]`));
    expect(chosen).toMatchObject({ kind: 'choose', grammar: { form } });
    expect(chosen?.kind === 'choose' && chosen.follow?.('opens[ARGS]')).toMatchObject([
      { kind: 'choose', grammar: { form: [[{ kind: 'json', schema: { type: 'object' } }]] } },
    ]);
    expect(rest).toEqual([{ kind: 'end' }]);
    expect(planOf(devstral, 'none').forbidden).toEqual({ tokens: ['[TOOL_CALLS]'], text: '[TOOL_CALLS]' });
  });

  it('that lists calls may write several, or one if one is wanted', () => {
    const [, begin, , end] = planOf(small, 'required').steps;
    expect(begin).toEqual({ kind: 'write', text: '[{"name": "' });
    expect(end).toMatchObject({ grammar: { form: [literal('}]')] } });
    const several = planOf(small, 'auto').calls?.steps('', '').at(-1);
    expect(several).toMatchObject({ grammar: { form: [literal('}]'), literal('}, {"name": "')] } });
    const follow = (text: string) => (several?.kind === 'choose' ? several.follow?.(text) : undefined);
    expect(follow('}]')).toEqual([]);
    expect(follow('}, {"name": "')?.[0]).toMatchObject({
      grammar: { form: tools.map(({ name }) => literal(`${name}", "arguments": `)) },
    });
  });
});
