import { describe, expect, it } from 'vitest';
import type { OutputPiece } from '../../../engine/prompt/conversation.ts';
import { ChannelParser } from '../../../engine/prompt/parsers/channels.ts';
import { TaggedParser } from '../../../engine/prompt/parsers/toolCallText.ts';
import { ThinkingSplitter } from '../../../engine/prompt/thinking.ts';
import { tokenizerFromJson } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import { smallTokenizer, smallTokenizerJson } from '../tokenizer/vocabularies.ts';

function joined(pieces: readonly OutputPiece[]): { thinking: string; text: string } {
  const of = (kind: string): string => pieces.flatMap((piece) => (piece.kind === kind ? [piece.text] : [])).join('');
  expect(pieces.every((piece) => piece.text !== '')).toBe(true);
  return { thinking: of('thinking'), text: of('text') };
}

function split(pieces: readonly string[], insideThinking = false): { thinking: string; text: string } {
  const splitter = new ThinkingSplitter(insideThinking);
  return joined([...pieces.flatMap((piece) => splitter.push(piece)), ...splitter.end()]);
}

describe('ThinkingSplitter', () => {
  const cases: [name: string, output: string, inside: boolean, thinking: string, text: string][] = [
    ['thinking, then an answer', '<think>\nI add.\n</think>\n\nIt is 4.\n', false, 'I add.', 'It is 4.\n'],
    ['blanks before it', '\n <think>a</think>b', false, 'a', 'b'],
    ['an empty thought', '<think>\n\n</think>\n\nHi', false, '', 'Hi'],
    ['no thought', ' Hi <b>', false, '', ' Hi <b>'],
    ['a prompt that opened the thinking', 'I add.\n</think>\n\n4', true, 'I add.', '4'],
    ['thinking that is cut off', '<think>\nso I add </thi', false, 'so I add </thi', ''],
    ['nothing but thinking', '<think>a</think>\n', false, 'a', ''],
    ['tags that an answer talks about', 'Use <think> and </think>.', false, '', 'Use <think> and </think>.'],
    [
      'tags that an answer talks about after thinking',
      '<think>a</think>No <think>b</think>',
      false,
      'a',
      'No <think>b</think>',
    ],
    ['an answer that begins like the tag', '<thin ice', false, '', '<thin ice'],
    ['half of the tag', '<thi', false, '', '<thi'],
    ['nothing', '', false, '', ''],
    ['blanks inside', '<think>a\n\n b </ c\n</think> d', false, 'a\n\n b </ c', 'd'],
  ];
  for (const [name, output, inside, thinking, text] of cases) {
    it(`separates thinking from text however the output is cut: ${name}`, () => {
      expect(split([output], inside)).toEqual({ thinking, text });
      expect(split([...output], inside)).toEqual({ thinking, text });
      for (let first = 0; first <= output.length; first++) {
        for (let second = first; second <= output.length; second++) {
          const pieces = [output.slice(0, first), output.slice(first, second), output.slice(second)];
          expect(split(pieces, inside)).toEqual({ thinking, text });
        }
      }
    });
  }

  it('shows thinking while it comes', () => {
    const splitter = new ThinkingSplitter();
    expect(splitter.push('<think>\none two')).toEqual([{ kind: 'thinking', text: 'one two' }]);
    expect(splitter.push(' three</')).toEqual([{ kind: 'thinking', text: ' three' }]);
    expect(splitter.push('x')).toEqual([{ kind: 'thinking', text: '</x' }]);
  });
});

describe('TaggedParser', () => {
  it('reads ids, with the tags as tokens or as text, and shows no special token', () => {
    const tokenizer = smallTokenizer();
    for (const special of ['plain', 'parse'] as const) {
      const ids = [...tokenizer.encode('<think>\né 日</think>\n\nhello 👍', { special }), 301];
      const parser = new TaggedParser(tokenizer, false);
      const pieces = [...ids.flatMap((id) => parser.push(id)), ...parser.end()];
      expect(joined(pieces)).toEqual({ thinking: 'é 日', text: 'hello 👍' });
    }
  });
});

describe('ChannelParser', () => {
  const names = ['<|start|>', '<|end|>', '<|message|>', '<|channel|>', '<|return|>', '<|call|>', '<|constrain|>'];
  const tokenizer = tokenizerFromJson(
    smallTokenizerJson({ added_tokens: names.map((content, index) => ({ id: 300 + index, content, special: true })) }),
  );
  const parse = (output: string): { thinking: string; text: string } => {
    const parser = new ChannelParser(tokenizer, []);
    const ids = tokenizer.encode(output, { special: 'parse' });
    return joined([...ids.flatMap((id) => parser.push(id)), ...parser.end()]);
  };

  it('suits vocabularies with channels only', () => {
    expect(ChannelParser.suits(tokenizer)).toBe(true);
    expect(ChannelParser.suits(smallTokenizer())).toBe(false);
  });

  // The form is that of openai/harmony, docs/format.md.
  const cases: [name: string, output: string, thinking: string, text: string][] = [
    [
      'thinking and an answer',
      '<|channel|>analysis<|message|>I add.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>',
      'I add.',
      'It is 4.',
    ],
    ['an answer alone', '<|channel|>final<|message|>4<|return|>', '', '4'],
    [
      'a preamble before the answer',
      '<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>',
      '',
      'Let me see.\n\n4',
    ],
    ['thinking that is cut off', '<|channel|>analysis<|message|>so', 'so', ''],
    ['a header that is cut off', '<|channel|>analy', '', ''],
    ['no channel', '<|message|>4<|return|>', '', '4'],
    ['a type before the message', '<|channel|>analysis <|constrain|>text<|message|>a<|end|>', 'a', ''],
    ['no format at all', 'It is 4.', '', 'It is 4.'],
    ['no format at all, for long', 'It is 4. '.repeat(50), '', 'It is 4. '.repeat(50)],
  ];
  for (const [name, output, thinking, text] of cases) {
    it(`tells thinking from text: ${name}`, () => {
      expect(parse(output)).toEqual({ thinking, text });
    });
  }
});
