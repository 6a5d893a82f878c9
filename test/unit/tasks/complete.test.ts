import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import type { CompleteResult } from '../../../engine/protocol/engineProtocol.ts';
import { type CompletionRequest, complete } from '../../../engine/tasks/complete.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';

const framing = ['<P>', '<S>', '<M>', '<end>'];
const names = new ByteTokenizer({ framing });
const fillingIn = (order: 'prefix-suffix-middle' | 'suffix-prefix-middle') =>
  new ByteTokenizer({
    framing,
    end: ['<end>'],
    fillInTheMiddle: {
      prefix: names.require('<P>'),
      suffix: names.require('<S>'),
      middle: names.require('<M>'),
      order,
    },
  });
const fim = fillingIn('prefix-suffix-middle');
const plain = new ByteTokenizer({ framing: ['<end>'], end: ['<end>'], words: ['ret', 'return', 'urn'] });
const bytes = (text: string): number[] => [...Buffer.from(text)];

/** `|` is the cursor in `file`. */
async function run(
  tokenizer: ByteTokenizer,
  file: string,
  answer: readonly number[],
  fields: Partial<CompletionRequest> = {},
): Promise<CompleteResult & { prompts: string[] }> {
  const { decoder, prompts } = replying(tokenizer, () => answer);
  const cursor = file.indexOf('|');
  const completion = await complete(schedulerOf(decoder), tokenizer, 4096, {
    prefix: file.slice(0, cursor),
    suffix: file.slice(cursor + 1),
    snippets: [],
    maxTokens: 200,
    languageId: 'typescript',
    multiline: 'never',
    candidates: 1,
    confidence: 'eager',
    whole: false,
    stopStrings: [],
    sampling: greedy,
    random: Math.random,
    ...fields,
  });
  return { ...completion, prompts };
}

describe('an inline completion', () => {
  it('is untrimmed with `whole`, and ends at a stop string', async () => {
    const pieces: string[] = [];
    const answer = [...bytes('1;\n}\nEND and more'), fim.require('<end>')];
    const onText = (piece: string) => void pieces.push(piece);
    const { text } = await run(fim, 'a = |;', answer, { whole: true, stopStrings: ['END'], onText });
    expect(text).toBe('1;\n}\n');
    expect(pieces.join('')).toBe(text);
  });

  it('fills in the middle', async () => {
    const { text, prompts } = await run(fim, 'a = |;\n', [...bytes('1 + 2'), fim.require('<end>')]);
    expect(text).toBe('1 + 2');
    expect(prompts[0]).toBe('<P><S>;\n<M>a =');
  });

  it('stops computing at the end of its line', async () => {
    const { text, statistics } = await run(fim, 'a = |', bytes('1;\nb = 2;\nc = 3;\n'));
    expect(text).toBe('1;');
    // The space before the cursor is sampled again.
    expect(statistics.generatedTokens).toBe(' 1;\n'.length);
  });

  it('stops computing when its scope closes', async () => {
    const answer = '\n  return 1;\n}\nfunction g() {\n  return 2;\n}\n';
    const { text, statistics } = await run(fim, 'function f() {|', bytes(answer), { multiline: 'auto' });
    expect(text).toBe('\n  return 1;\n}');
    expect(statistics.generatedTokens).toBe('{\n  return 1;\n}\nfunction '.length);
  });

  it('never shows a framing token or the suffix', async () => {
    const { text } = await run(fim, 'foo(|);\n', [
      ...bytes('a'),
      fim.require('<M>'),
      ...bytes(', b);'),
      fim.require('<end>'),
    ]);
    expect(text).toBe('a, b');
  });

  it('gives whole lines at the token limit, but shows a partial single line', async () => {
    const several = await run(fim, 'f() {|', bytes('\n  one();\n  two();\n'), { multiline: 'auto', maxTokens: 14 });
    expect(several).toMatchObject({ text: '\n  one();', finish: 'length' });
    expect(await run(fim, 'a = |', bytes('12345'), { maxTokens: 4 })).toMatchObject({ text: '123', finish: 'length' });
  });

  it('samples the last token of the prefix again if the vocabulary has no fill-in-the-middle', async () => {
    // `x ret` ends with the token `ret`; healed, the model may say `return`, which begins with it.
    const { text, prompts } = await run(plain, 'x ret|', [
      plain.require('return'),
      ...bytes(' 1;'),
      plain.require('<end>'),
    ]);
    expect(prompts[0]).toBe('x ');
    expect(text).toBe('urn 1;');
  });

  it('forces the model to match the text before the cursor', async () => {
    // The fake model wants `Z`; only tokens that go on from `ret` are allowed until it has come again.
    const { text } = await run(plain, 'x ret|', [...bytes('Z'), plain.require('<end>')], { maxTokens: 1 });
    expect(text).not.toContain('Z');
  });

  it('is empty if there is nothing to continue', async () => {
    expect(await run(plain, '|', bytes('x'))).toMatchObject({ text: '', finish: 'stop' });
  });

  it('decodes several alternatives, each with another first token', async () => {
    // This order has an empty middle, so no token is sampled again.
    const suffixFirst = fillingIn('suffix-prefix-middle');
    const { decoder } = replying(suffixFirst, (prompt) => [
      ...bytes(prompt.endsWith('<M>') ? 'first' : ' other'),
      fim.require('<end>'),
    ]);
    const request = {
      prefix: 'a = ',
      suffix: '\n',
      snippets: [],
      maxTokens: 20,
      multiline: 'never',
      whole: false,
    } as const;
    const asked = { ...request, stopStrings: [], sampling: greedy, random: Math.random, confidence: 'eager' } as const;
    const { text, alternatives, logProbability } = await complete(schedulerOf(decoder), suffixFirst, 4096, {
      ...asked,
      candidates: 3,
    });
    expect(text).toBe('first');
    expect(alternatives).toHaveLength(2);
    expect(new Set([text, ...alternatives]).size).toBe(3);
    // The scripted model puts all weight on one token.
    expect(logProbability).toBeCloseTo(0, 3);
  });

  it('is not requested if nothing could be offered', async () => {
    const { text, statistics } = await run(fim, 'x = 1;\n\n\n\n|', bytes('y'));
    expect([text, statistics.generatedTokens]).toEqual(['', 0]);
  });
});
