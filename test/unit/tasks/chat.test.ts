import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import type { ChatMessage, OutputPiece } from '../../../engine/prompt/conversation.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { Grammars } from '../../../engine/sampling/grammar.ts';
import { type ChatAnswer, type ChatRequest, chat } from '../../../engine/tasks/chat.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';

const framing = ['<user>', '<system>', '<bot>', '<end>'];
/** Switches thinking as Qwen3's template does. */
const chatTemplate = `{% for m in messages %}<{{ 'bot' if m.role == 'assistant' else m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<bot>{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}`;
const tokenizer = new ByteTokenizer({ framing, end: ['<end>'], chatTemplate });
const plain = new ByteTokenizer({ framing: ['<b>', '<end>'], end: ['<end>'], begin: '<b>' });
const bytes = (text: string): number[] => [...Buffer.from(text)];
const user = (content: string): ChatMessage => ({ role: 'user', content });

async function ask(
  model: ByteTokenizer,
  answer: string,
  fields: Partial<ChatRequest> & { readonly contextTokens?: number } = {},
): Promise<ChatAnswer & { prompts: string[]; pieces: OutputPiece[] }> {
  const { contextTokens = 4096, ...request } = fields;
  const { decoder, prompts } = replying(model, () => bytes(answer), { contextTokens });
  const pieces: OutputPiece[] = [];
  const given = await chat(
    {
      scheduler: schedulerOf(decoder),
      format: promptFormatOf(model),
      tokenizer: model,
      grammars: new Grammars(model),
      contextTokens,
      now: () => new Date(0),
    },
    {
      requestClass: 'chat',
      messages: [user('Hi')],
      thinking: 'off',
      stopStrings: [],
      sampling: greedy,
      random: Math.random,
      onPiece: (piece) => pieces.push(piece),
      ...request,
    },
  );
  return { ...given, prompts, pieces };
}

describe('an answer with a schema', () => {
  it('is cancelled with its request while the schema is compiled', async () => {
    const names = Array.from(
      { length: 100 },
      (_, i) => [`p${i}`, { pattern: `^(?=.*a.{5})(?=.*b.{4}).*${i}` }] as const,
    );
    const slow = { properties: Object.fromEntries(names) };
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 400);
    const responseFormat = { kind: 'json-schema', schema: slow } as const;
    const answer = await ask(tokenizer, '{}', { responseFormat, signal: stop.signal, contextTokens: 32_768 });
    expect(answer).toMatchObject({ finish: 'cancelled', text: '' });
  }, 20_000);

  const schema = { type: 'array', items: { enum: [1, 2] }, uniqueItems: true, maxItems: 2 };
  const responseFormat = { kind: 'json-schema', schema } as const;

  it('is returned if it keeps the keywords that could not be enforced', async () => {
    expect((await ask(tokenizer, '[1,2]', { responseFormat })).text).toBe('[1,2]');
  });

  it('fails if it breaks them, and says which', async () => {
    const failed = expect.stringMatching(/violates a part of its JSON Schema.*duplicate items.*ask again/);
    await expect(ask(tokenizer, '[2,2]', { responseFormat })).rejects.toMatchObject({
      code: 'unavailable',
      message: failed,
    });
  });
});

describe('a chat', () => {
  it('is written in the checkpoint’s template', async () => {
    const messages: ChatMessage[] = [
      { role: 'system', content: 'Be kind.' },
      user('Hi'),
      { role: 'assistant', content: 'Yes' },
      user('Why?'),
    ];
    const { prompts, text } = await ask(tokenizer, 'Because.', { messages, thinking: 'on' });
    expect(prompts[0]).toBe('<system>Be kind.<end><user>Hi<end><bot>Yes<end><user>Why?<end><bot>');
    expect(text).toBe('Because.');
  });

  it('takes framing tokens in a message as text', () => {
    const format = promptFormatOf(tokenizer);
    const { ids } = format.render([user('a<end>b')], { thinking: 'on', now: new Date(0) });
    expect(ids.filter((id) => tokenizer.isSpecial(id))).toEqual(
      ['<user>', '<end>', '<bot>'].map((name) => tokenizer.require(name)),
    );
  });

  it('detects the thinking modes of the template and uses them', async () => {
    expect(promptFormatOf(tokenizer).thinkingModes).toEqual(['off', 'on']);
    expect((await ask(tokenizer, 'x', { thinking: 'off' })).prompts[0]).toContain('<think>\n\n</think>');
    expect((await ask(tokenizer, 'x', { thinking: 'high' })).prompts[0]).not.toContain('<think>');
  });

  it('separates thinking from the answer, also while streaming', async () => {
    const { text, thinking, pieces } = await ask(tokenizer, '<think>\nhm\n</think>\n\nyes', { thinking: 'on' });
    expect({ text, thinking }).toEqual({ text: 'yes', thinking: 'hm' });
    for (const kind of ['text', 'thinking'] as const) {
      const streamed = pieces.filter((piece) => piece.kind === kind).map((piece) => piece.text);
      expect(streamed.join('')).toBe(kind === 'text' ? text : thinking);
    }
  });

  it('ends at the caller’s stop strings and token limit', async () => {
    expect(await ask(tokenizer, 'one. two.', { stopStrings: ['.'] })).toMatchObject({ text: 'one', finish: 'stop' });
    expect(await ask(tokenizer, 'one. two.', { maxTokens: 3 })).toMatchObject({ text: 'one', finish: 'length' });
  });

  it('drops the earliest turns when the context is full and says how many messages', async () => {
    const turns = Array.from({ length: 8 }, (_, i) => [
      user(`${i}`.repeat(30)),
      { role: 'assistant', content: 'ok' } as const,
    ]);
    const messages: ChatMessage[] = [{ role: 'system', content: 'S' }, ...turns.flat(), user('last')];
    const { droppedMessages, prompts } = await ask(tokenizer, 'fine', { messages, contextTokens: 200 });
    expect(droppedMessages).toBeGreaterThan(0);
    expect(droppedMessages % 2).toBe(0);
    expect(prompts[0]).toMatch(/^<system>S<end><user>/);
    expect(prompts[0]).toContain('<user>last<end>');
    expect(prompts[0]).not.toContain('000');
  });

  it('uses what is left of the context for the answer', async () => {
    const { finish, statistics } = await ask(tokenizer, 'x'.repeat(500), {
      messages: [user('q'.repeat(100))],
      contextTokens: 200,
    });
    expect(finish).toBe('context');
    // The last token needs no place of its own.
    expect(statistics.promptTokens + statistics.generatedTokens).toBe(201);
  });
});

describe('thinking', () => {
  const thought = `<think>\n${'I wonder. '.repeat(50)}`;
  /** Thinks for long, and answers once it may not think any more. */
  async function think(fields: Partial<ChatRequest>): Promise<ChatAnswer & { tokens: number[] }> {
    const { decoder } = replying(tokenizer, (prompt) => bytes(prompt.includes('</think>') ? 'yes' : thought));
    const tokens: number[] = [];
    const answer = await chat(
      {
        scheduler: schedulerOf(decoder),
        format: promptFormatOf(tokenizer),
        tokenizer,
        grammars: new Grammars(tokenizer),
        contextTokens: 4096,
        now: () => new Date(0),
      },
      {
        requestClass: 'chat',
        messages: [user('Hi')],
        thinking: 'on',
        stopStrings: [],
        sampling: greedy,
        random: Math.random,
        onPiece: (piece) => tokens.push(piece.text.length),
        ...fields,
      },
    );
    return { ...answer, tokens };
  }

  it('ends at the end of a sentence within its limit, and the answer follows', async () => {
    const { text, thinking } = await think({ thinkingTokens: 45 });
    expect(text).toBe('yes');
    // The template has no `<|im_start|>`, so none of Qwen's words.
    expect(thinking).toBe('I wonder. I wonder. I wonder. I wonder.');
  });

  it('ends at its limit where no sentence ends', async () => {
    const { text, thinking } = await think({ thinkingTokens: 6 });
    expect({ text, thinking }).toEqual({ text: 'yes', thinking: 'I wo' });
  });

  it('ends on Answer now', async () => {
    const answerNow = new AbortController();
    let pieces = 0;
    const { text, thinking } = await think({
      answerNow: answerNow.signal,
      onPiece: () => {
        pieces++;
        if (pieces === 12) answerNow.abort();
      },
    });
    expect(text).toBe('yes');
    expect(thinking.length).toBeLessThan(20);
  });
});

describe('a chat with tools', () => {
  const tools = [{ name: 'read', description: 'Reads a file.', parameters: { type: 'object' } }];
  const call = '<tool_call>\n{"name": "read", "arguments": {"path": "a.ts"}}\n</tool_call>';

  it('shows them, earlier calls and results with a template that has no tools', async () => {
    const messages: ChatMessage[] = [
      user('What is in a.ts?'),
      { role: 'assistant', content: '', toolCalls: [{ id: 'call_1', name: 'read', arguments: '{"path": "a.ts"}' }] },
      { role: 'tool', toolCallId: 'call_1', content: 'nothing' },
    ];
    const { prompts } = await ask(tokenizer, 'Nothing.', { messages, tools, thinking: 'on' });
    expect(prompts[0]).toMatch(/^<system># Tools\n/);
    expect(prompts[0]).toContain('"name":"read","description":"Reads a file."');
    expect(prompts[0]).toContain(`<bot>${call}<end><user><tool_response>\nnothing\n</tool_response><end><bot>`);
  });

  it('separates calls from the answer and streams their arguments', async () => {
    const { text, calls, pieces } = await ask(tokenizer, `I look.\n${call}`, { tools });
    expect(text).toBe('I look.');
    expect(calls).toEqual([{ index: 0, name: 'read', arguments: '{"path": "a.ts"}' }]);
    const streamed = pieces.flatMap((piece) => (piece.kind === 'tool-call' ? [piece.text] : []));
    expect(streamed.join('')).toBe('{"path": "a.ts"}');
    expect(streamed.length).toBeGreaterThan(10);
  });

  it('leaves a call that was cut off out of the answer’s calls', async () => {
    const { calls, finish } = await ask(tokenizer, call, { tools, maxTokens: call.length - 30 });
    expect({ calls, finish }).toEqual({ calls: [], finish: 'length' });
  });

  it('takes calls as text where no tools were offered', async () => {
    expect(await ask(tokenizer, call)).toMatchObject({ text: call, calls: [] });
  });
});

describe('a chat with a model that brings no template', () => {
  it('is a dialogue by names, which ends where the user would speak again', async () => {
    const { prompts, text, finish } = await ask(plain, ' Hello!\nUser: and now', {
      messages: [{ role: 'system', content: 'Be kind.' }, user('Hi')],
    });
    expect(prompts[0]).toBe('<b>System: Be kind.\nUser: Hi\nAssistant:');
    expect({ text, finish }).toEqual({ text: ' Hello!', finish: 'stop' });
  });

  it('cannot think', () => {
    expect(promptFormatOf(plain).thinkingModes).toEqual(['off']);
  });
});
