import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../../engine/prompt/conversation.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { showIds } from '../scheduler/setUp.ts';

const conversation: ChatMessage[] = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: 'Hi <|end|>' },
  { role: 'assistant', content: 'Yes' },
  { role: 'user', content: 'Why?' },
];

/** The prompt, cut at its boundaries. */
function pieces(tokenizer: ByteTokenizer, messages: readonly ChatMessage[]): string[] {
  const { ids, boundaries } = promptFormatOf(tokenizer).render(messages, { thinking: 'low', now: new Date(0) });
  return boundaries.map((end, i) => showIds(tokenizer, ids.slice(boundaries[i - 1] ?? 0, end)));
}

describe('the boundaries of a prompt', () => {
  it('are the ends of messages and its own, as the template marks them', () => {
    const tokenizer = new ByteTokenizer({ framing: ['<|im_start|>', '<|im_end|>'], end: ['<|im_end|>'] });
    expect(pieces(tokenizer, conversation)).toEqual([
      '<|im_start|>system\nBe kind.<|im_end|>',
      '\n<|im_start|>user\nHi <|end|><|im_end|>',
      '\n<|im_start|>assistant\nYes<|im_end|>',
      '\n<|im_start|>user\nWhy?<|im_end|>',
      '\n<|im_start|>assistant\n',
    ]);
  });

  it('begin in harmony with what all conversations have in common', () => {
    const names = ['start', 'end', 'message', 'channel', 'constrain', 'return', 'call'].map((name) => `<|${name}|>`);
    const tokenizer = new ByteTokenizer({ framing: names, end: ['<|return|>', '<|call|>'] });
    const [preamble, ...rest] = pieces(tokenizer, conversation);
    expect(preamble).toMatch(/^<\|start\|>system<\|message\|>.*# Instructions\n\nBe kind\.<\|end\|>$/s);
    const told = [
      '<|start|>user<|message|>Hi <|end|><|end|>',
      '<|start|>assistant<|channel|>final<|message|>Yes<|end|>',
      '<|start|>user<|message|>Why?<|end|>',
      '<|start|>assistant',
    ];
    expect(rest).toEqual(told);
    expect(pieces(tokenizer, conversation.slice(1)).slice(1)).toEqual(told);
  });

  it('in harmony exclude the parts of a turn, which nobody edits', () => {
    const names = ['start', 'end', 'message', 'channel', 'constrain', 'return', 'call'].map((name) => `<|${name}|>`);
    const tokenizer = new ByteTokenizer({ framing: names, end: ['<|return|>', '<|call|>'] });
    const turn = pieces(tokenizer, [
      ...conversation,
      { role: 'assistant', content: '', thinking: 'Hm.', toolCalls: [{ id: '1', name: 'why', arguments: '{}' }] },
      { role: 'tool', toolCallId: '1', content: 'Because.' },
    ]);
    expect(turn.slice(0, -1)).toEqual(pieces(tokenizer, conversation).slice(0, -1));
    expect(turn.at(-1)).toMatch(/^<\|start\|>assistant<\|channel\|>analysis.*Because\.<\|end\|><\|start\|>assistant$/);
  });

  it('are only its end if nothing marks messages', () => {
    const tokenizer = new ByteTokenizer({});
    expect(pieces(tokenizer, conversation)).toHaveLength(1);
  });
});
