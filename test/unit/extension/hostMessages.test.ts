/** Converts VS Code's chat messages to the engine's. */
import { describe, expect, it } from 'vitest';
import { messageText, toChatMessages, toTools } from '../../../extension/languageModel/toolLoop.ts';
import {
  LanguageModelDataPart,
  LanguageModelPromptTsxPart,
  LanguageModelTextPart,
  LanguageModelThinkingPart,
  LanguageModelToolCallPart,
  LanguageModelToolResultPart,
} from './vscode.ts';

const [user, assistant, system] = [1, 2, 3];
const text = (value: string) => new LanguageModelTextPart(value);
const say = (role: number | undefined, ...content: unknown[]) => ({ role: Number(role), content });

describe("messages of VS Code's chat", () => {
  it('merges neighbours of one role, because templates require alternating roles', () => {
    const messages = toChatMessages([
      say(system, text('Be brief.')),
      say(user, text('a'), text('b')),
      say(user, text('c')),
    ]);
    expect(messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'ab\n\nc' },
    ]);
  });

  it('separates thinking, tool calls and results, and pairs results with calls', () => {
    const call = new LanguageModelToolCallPart('1', 'read', { path: 'a' });
    const messages = toChatMessages([
      say(assistant, new LanguageModelThinkingPart('Hm.'), text('I look.'), call),
      say(user, new LanguageModelToolResultPart('1', [text('x'), text('y')]), text('And now?')),
    ]);
    expect(messages).toEqual([
      {
        role: 'assistant',
        content: 'I look.',
        thinking: 'Hm.',
        toolCalls: [{ id: '1', name: 'read', arguments: '{"path":"a"}' }],
      },
      { role: 'tool', toolCallId: '1', content: 'x\ny' },
      { role: 'user', content: 'And now?' },
    ]);
  });

  it("name data parts and leave out the host's notes", () => {
    const data = (value: string, type: string) => new LanguageModelDataPart(new TextEncoder().encode(value), type);
    const parts = [data('{"a":1}', 'application/json'), data('ephemeral', 'cache_control'), data('', 'image/png')];
    expect(messageText(say(user, ...parts))).toBe('{"a":1}(An image, which this model cannot see.)');
  });

  it('reads the text of a prompt-tsx result', () => {
    const node = {
      type: 1,
      children: [
        { type: 2, text: 'a' },
        { type: 2, text: 'b', lineBreakBefore: true },
      ],
    };
    const result = new LanguageModelToolResultPart('1', [new LanguageModelPromptTsxPart({ node })]);
    expect(toChatMessages([say(user, result)])).toEqual([{ role: 'tool', toolCallId: '1', content: 'a\nb' }]);
  });

  it('offers only tools with valid names', () => {
    const names = ['read_file', 'x'.repeat(65), 'white space'];
    const tools = toTools(names.map((name) => ({ name, description: '' })));
    expect(tools).toEqual([{ name: 'read_file', description: '', parameters: { type: 'object', properties: {} } }]);
  });
});
