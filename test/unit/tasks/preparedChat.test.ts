/** Preparing a long chat: the amount of work, and that other requests are answered meanwhile. */
import { setImmediate } from 'node:timers/promises';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ChatMessage, Tool } from '../../../engine/prompt/conversation.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { prepareChat } from '../../../engine/tasks/chat.ts';
import type { PromptPart, Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';

/** Every family's way to a prompt: its own template with and without tools, none, harmony's and DeepSeek's. */
const chatTemplate =
  '{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}';
const roles = ['<user>', '<system>', '<assistant>', '<tool>', '<end>'];
const harmony = ['<|start|>', '<|channel|>', '<|constrain|>', '<|message|>', '<|end|>', '<|return|>', '<|call|>'];
const formats: Readonly<Record<'template' | 'dialogue' | 'harmony', () => ByteTokenizer>> = {
  template: () => new ByteTokenizer({ framing: roles, end: ['<end>'], chatTemplate }),
  dialogue: () => new ByteTokenizer({ framing: ['<end>'], end: ['<end>'] }),
  harmony: () => new ByteTokenizer({ framing: harmony, end: ['<|return|>', '<|call|>'] }),
};

const options = { thinking: 'off', now: new Date(0) } as const;
const conversation = (turns: number, chars: number): ChatMessage[] => [
  { role: 'system', content: 'Be brief.' },
  ...Array.from({ length: turns }, (_, i): ChatMessage[] => [
    { role: 'user', content: `${i} ${'question '.repeat(chars / 9)}` },
    {
      role: 'assistant',
      content: 'answer '.repeat(chars / 7),
      toolCalls: [{ id: `call_${i}`, name: 'f', arguments: '{}' }],
    },
    { role: 'tool', toolCallId: `call_${i}`, content: 'result' },
  ]).flat(),
  { role: 'user', content: 'Why?' },
];

interface Work {
  encodedChars: number;
  prompts: number;
}

/** The tokenizer, whose work is counted. */
function counted(tokenizer: ByteTokenizer): { tokenizer: Tokenizer; work: Work } {
  const work: Work = { encodedChars: 0, prompts: 0 };
  const encode = tokenizer.encodeSliced.bind(tokenizer);
  vi.spyOn(tokenizer, 'encodeSliced').mockImplementation((parts: readonly PromptPart[]) => {
    work.prompts++;
    for (const part of parts) work.encodedChars += typeof part === 'string' ? part.length : 0;
    return encode(parts);
  });
  return { tokenizer, work };
}

async function workOf(make: () => ByteTokenizer, messages: readonly ChatMessage[], contextTokens: number) {
  const { tokenizer, work } = counted(make());
  const format = promptFormatOf(tokenizer);
  const { prompt } = await prepareChat({ format, contextTokens }, messages, options, {});
  expect(prompt.ids.length).toBeLessThanOrEqual(contextTokens);
  return work;
}

afterEach(() => vi.restoreAllMocks());

describe.each(Object.entries(formats))('Preparing a chat in the format of a %s', (_, make) => {
  it('encodes and renders at most n log n as it grows a hundredfold', async () => {
    const chars = (turns: number): number => JSON.stringify(conversation(turns, 90)).length;
    const small = await workOf(make, conversation(30, 90), 2048);
    for (const factor of [10, 100]) {
      const large = await workOf(make, conversation(30 * factor, 90), 2048);
      expect(large.prompts).toBeLessThanOrEqual(2 + 2 * Math.log2(30 * factor));
      expect(large.encodedChars).toBeLessThan(small.encodedChars * factor * Math.log2(factor));
      expect(large.encodedChars).toBeLessThan(chars(30 * factor) * 2);
    }
  });

  it('names the tools of all calls once a prompt, whatever its length', async () => {
    const messages = conversation(3300, 9);
    const started = vi.fn();
    const format = promptFormatOf(make());
    const calls = messages.filter(({ role }) => role === 'assistant');
    // An iterator over each message's calls is asked for as often as the calls are looked at.
    for (const message of calls) {
      if (message.role !== 'assistant' || !message.toolCalls) continue;
      const own = message.toolCalls;
      const get = () => {
        started();
        return own;
      };
      Object.defineProperty(message, 'toolCalls', { get });
    }
    await prepareChat({ format, contextTokens: 1_000_000 }, messages, options, {});
    expect(started.mock.calls.length).toBeLessThan(calls.length * 12);
  });

  it('refuses, without encoding them, a message of 15 MB, blanks, framing-like text and 128 tools of 100 kB', async () => {
    const texts = ['word '.repeat(3e6), ' '.repeat(15e6), '<|'.repeat(7e6)];
    const tools = Array.from(
      { length: 128 },
      (_, i): Tool => ({
        name: `f${i}`,
        description: '',
        parameters: { type: 'object', description: 'd'.repeat(1e5) },
      }),
    );
    const cases: [ChatMessage[], Tool[]][] = texts.map((content) => [[{ role: 'user', content }], []]);
    cases.push([[{ role: 'user', content: 'x' }], tools]);
    for (const [messages, offered] of cases) {
      const { tokenizer, work } = counted(make());
      const asked = prepareChat(
        { format: promptFormatOf(tokenizer), contextTokens: 32_768 },
        messages,
        { ...options, tools: offered },
        {},
      );
      await expect(asked).rejects.toMatchObject({ code: 'context-overflow' });
      expect(work.encodedChars).toBe(0);
    }
  });
});

// The dialogue's whole text is one step of the byte tokenizer.
describe.each(['template', 'harmony'] as const)('Preparing chats in the format of a %s', (name) => {
  it('runs one slice a turn of the event loop, so that others are answered, and ends on cancellation', async () => {
    const format = promptFormatOf(formats[name]());
    const controller = new AbortController();
    let turns = 0;
    // Long enough for many slices on any machine.
    const asked = Promise.all(
      Array.from({ length: 8 }, () =>
        prepareChat({ format, contextTokens: 400_000 }, conversation(2000, 9), options, {
          signal: controller.signal,
        }),
      ),
    );
    const failed = expect(asked).rejects.toMatchObject({ code: 'cancelled' });
    while (turns < 5) {
      await setImmediate();
      turns++;
    }
    controller.abort();
    await failed;
  });
});
