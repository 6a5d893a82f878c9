/** The limit of thinking with the published vocabularies and templates of every family that thinks. */
import { expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import { type PromptFormat, promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { Grammars } from '../../../engine/sampling/grammar.ts';
import { type ChatAnswer, type ChatRequest, chat } from '../../../engine/tasks/chat.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';
import { schedulerOf } from '../scheduler/setUp.ts';
import { describeShared } from '../shared.ts';
import { publishedFiles, publishedTokenizer } from '../tokenizer/vocabularies.ts';

/**
 * How each family's output begins when it thinks, how many tokens of that are thought already, and how it ends its
 * thinking (model cards; openai/harmony).
 */
const families = {
  'Qwen3-0.6B': { opens: '<think>\n', thought: 2, closes: '\n</think>\n\n' },
  'DeepSeek-V3.1': { opens: '', thought: 0, closes: '</think>' },
  'gpt-oss-20b': {
    opens: '<|channel|>analysis<|message|>',
    thought: 1,
    closes: '<|end|><|start|>assistant<|channel|>final<|message|>',
  },
};
const word = ' wonder';
const words = 100;

interface Thought extends ChatAnswer {
  readonly tokenizer: Tokenizer;
  /** What the model was made to read after its prompt. */
  readonly written: string;
}

/** A model that says one word without end, in thought and out of it, whatever it reads. */
async function think(model: keyof typeof families, fields: Partial<ChatRequest>): Promise<Thought> {
  const tokenizer = await publishedTokenizer(model);
  const format: PromptFormat = promptFormatOf(tokenizer);
  const opening = tokenizer.encode(families[model].opens, { special: 'parse' });
  const [wordId = 0, ...none] = tokenizer.encode(word, { special: 'plain' });
  expect(none).toEqual([]);
  const messages = [{ role: 'user', content: 'Hi' }] as const;
  const options = { messages, thinking: 'high' } as const;
  const promptTokens = format.render(messages, { ...options, now: new Date(0) }).ids.length;
  let last: readonly number[] = [];
  const decoder = new FakeDecoder({
    vocabularySize: tokenizer.vocabularySize,
    contextTokens: 8192,
    follow: (tokens) => {
      if (tokens.length > last.length) last = [...tokens];
      return opening[tokens.length - promptTokens] ?? wordId;
    },
  });
  const answer = await chat(
    {
      ...{ scheduler: schedulerOf(decoder), format, tokenizer, grammars: new Grammars(tokenizer) },
      ...{ contextTokens: 8192, now: () => new Date(0) },
    },
    {
      ...{ requestClass: 'chat', ...options, stopStrings: [], sampling: greedy, random: () => 0 },
      ...{ maxTokens: words, onPiece: () => {}, ...fields },
    },
  );
  const written = last.slice(promptTokens).map((id) => Buffer.from(tokenizer.bytesOf(id)).toString());
  return { ...answer, tokenizer, written: written.join('') };
}

describeShared('Thinking without an end', publishedFiles, () => {
  for (const [model, { opens, thought, closes }] of Object.entries(families)) {
    const name = model as keyof typeof families;

    it(`is ended after its limit, and the answer follows: ${model}`, async () => {
      const { thinking, text, written } = await think(name, { thinkingTokens: 20 });
      // Qwen ends with words of its own.
      expect(thinking.trim().startsWith(word.repeat(20 - thought).trim())).toBe(true);
      expect(thinking.split(word.trim())).toHaveLength(20 - thought + 1);
      expect(text).toMatch(/^( ?wonder)+$/);
      const [before = '', after = '', ...more] = written.split(closes);
      expect(more).toEqual([]);
      expect(before.startsWith(opens + word)).toBe(true);
      expect(after).toMatch(/^( wonder)+$/);
    });

    it(`is ended at once if its limit is zero, or on Answer now: ${model}`, async () => {
      const none = await think(name, { thinkingTokens: 0 });
      expect(none.thinking).not.toContain(word.trim());
      expect(none.text).toMatch(/^( ?wonder)+$/);
      const answerNow = new AbortController();
      let pieces = 0;
      const onPiece = (): void => {
        if (++pieces === 5) answerNow.abort();
      };
      const ended = await think(name, { answerNow: answerNow.signal, onPiece });
      expect(ended.thinking.split(word.trim()).length).toBeLessThan(10);
      expect(ended.text).toMatch(/^( ?wonder)+$/);
    });

    it(`continues without a limit: ${model}`, async () => {
      const { thinking, text, finish } = await think(name, {});
      expect({ text, finish }).toEqual({ text: '', finish: 'length' });
      expect(thinking.split(word.trim()).length).toBeGreaterThan(words - 10);
    });
  }
});
