import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import type { OutputPiece } from '../../../engine/prompt/conversation.ts';
import { TaggedParser } from '../../../engine/prompt/parsers/toolCallText.ts';
import { type Generated, type GenerationRequest, generate } from '../../../engine/tasks/generate.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';

const tokenizer = new ByteTokenizer({ framing: ['<end>', '<odd>'], end: ['<end>'] });
const bytes = (text: string): number[] => [...Buffer.from(text)];

/** Generates from a model that says `answer`. */
async function run(
  answer: readonly number[],
  fields: Partial<GenerationRequest> = {},
): Promise<Generated & { pieces: OutputPiece[] }> {
  const { decoder } = replying(tokenizer, () => answer);
  const pieces: OutputPiece[] = [];
  const generated = await generate(schedulerOf(decoder), {
    requestClass: 'chat',
    prompt: bytes('question'),
    maxTokens: 1000,
    sampling: greedy,
    random: Math.random,
    stopIds: tokenizer.endIds,
    stopStrings: [],
    parser: new TaggedParser(tokenizer, false),
    onPiece: (piece) => {
      pieces.push(piece);
      return 'continue';
    },
    ...fields,
  });
  return { ...generated, pieces };
}
const joined = (pieces: readonly OutputPiece[]): string => pieces.map(({ text }) => text).join('');

describe('generated text', () => {
  it('ends at an end token, which is not part of it', async () => {
    const { text, finish, statistics } = await run([...bytes('answer'), 256, ...bytes('more')]);
    expect({ text, finish }).toEqual({ text: 'answer', finish: 'stop' });
    expect(statistics).toMatchObject({ promptTokens: 8, cachedTokens: 0, generatedTokens: 7 });
  });

  it('is streamed in whole characters, and the pieces are the text', async () => {
    const { text, pieces } = await run([...bytes('é😀x'), 256]);
    expect(pieces.map((piece) => piece.text)).toEqual(['é', '😀', 'x']);
    expect(joined(pieces)).toBe(text);
  });

  it('leaves out special tokens that do not end it', async () => {
    expect((await run([...bytes('a'), 257, ...bytes('b'), 256])).text).toBe('ab');
  });

  it('ends at a stop string without showing any of it, also when it comes in pieces', async () => {
    const { text, finish, pieces } = await run(bytes('one\nUser: two'), { stopStrings: ['\nUser:'] });
    expect({ text, finish }).toEqual({ text: 'one', finish: 'stop' });
    expect(joined(pieces)).toBe('one');
  });

  it('shows held-back text that does not become a stop string', async () => {
    expect((await run([...bytes('one\nUs'), 256], { stopStrings: ['\nUser:'] })).text).toBe('one\nUs');
    expect((await run(bytes('one\nUs'), { stopStrings: ['\nUser:'], maxTokens: 6 })).text).toBe('one\nUs');
  });

  it('ignores stop strings within thinking', async () => {
    const { text, thinking, pieces } = await run([...bytes('<think>a.b</think>c.d'), 256], { stopStrings: ['.'] });
    expect({ text, thinking }).toEqual({ text: 'c', thinking: 'a.b' });
    expect(pieces[0]).toEqual({ kind: 'thinking', text: 'a' });
  });

  it('ends as repetition when it repeats in a cycle, on request', async () => {
    const circle = bytes('It is so. '.repeat(400));
    const ended = await run(circle, { maxTokens: 4000, endRepetition: true });
    expect(ended.finish).toBe('repetition');
    expect(ended.text.length).toBeLessThan(3000);
    expect((await run(circle, { maxTokens: 3500 })).finish).toBe('length');
  });

  it('ends when its consumer says so', async () => {
    let seen = '';
    const { finish, statistics } = await run(bytes('one two three'), {
      onPiece: (piece) => {
        seen += piece.text;
        return seen.endsWith(' ') ? 'stop' : 'continue';
      },
    });
    expect({ seen, finish, tokens: statistics.generatedTokens }).toEqual({ seen: 'one ', finish: 'stop', tokens: 4 });
  });

  it('keeps what was written when it is cancelled', async () => {
    const controller = new AbortController();
    const { text, finish } = await run(bytes('one two three'), {
      signal: controller.signal,
      onPiece: ({ text: piece }) => {
        if (piece === ' ') controller.abort();
        return 'continue';
      },
    });
    expect({ text, finish }).toEqual({ text: 'one ', finish: 'cancelled' });
  });

  it('penalises earlier tokens', async () => {
    // The fake model is sure of itself by 40; the presence of a token costs it 60.
    const { text } = await run([...bytes('aaaa'), 256], { sampling: { ...greedy, presencePenalty: 60 }, maxTokens: 4 });
    expect(text.startsWith('a')).toBe(true);
    expect(text.startsWith('aa')).toBe(false);
  });

  it('is measured: tokens a second count the tokens after the first', async () => {
    const { statistics } = await run([...bytes('abcd'), 256]);
    // Each of the fake decoder's runs takes a millisecond: the first token comes after one, four more after as many.
    expect(statistics).toMatchObject({ generatedTokens: 5, timeToFirstTokenMs: 1, tokensPerSecond: 1000 });
  });
});
