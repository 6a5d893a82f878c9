import { describe, expect, it } from 'vitest';
import { limits } from '../../../engine/limits.ts';
import type { ChatMessage } from '../../../engine/prompt/conversation.ts';
import type { FinishReason } from '../../../engine/protocol/engineProtocol.ts';
import { type Summariser, type SummaryRequest, summarise } from '../../../engine/tasks/summarise.ts';

const words = (text: string): number => text.split(/\s+/).filter(Boolean).length + (text.match(/\n/g)?.length ?? 0);

function setUp(contextTokens: number, answer: (prompt: string, n: number) => string, finish: FinishReason = 'stop') {
  const prompts: string[] = [];
  const summariser: Summariser = {
    contextTokens,
    countTokens: words,
    countPrompt: (messages: readonly ChatMessage[]) =>
      messages.reduce((sum, { content }) => sum + words(content) + 5, 0),
    ask: async (messages, maxTokens, onText) => {
      const prompt = messages.map(({ content }) => content).join('\n');
      expect(summariser.countPrompt(messages) + maxTokens).toBeLessThanOrEqual(contextTokens);
      prompts.push(prompt);
      const text = answer(prompt, prompts.length);
      onText(text);
      const statistics = {
        promptTokens: 10,
        cachedTokens: 2,
        generatedTokens: 4,
        timeToFirstTokenMs: 7,
        tokensPerSecond: 8,
      };
      return { text, finish, statistics };
    },
  };
  return { prompts, summariser };
}

function request(text: string, fields: Partial<SummaryRequest> = {}) {
  const streamed: string[] = [];
  const progress: string[] = [];
  return {
    path: 'src/a.ts',
    text,
    symbols: [],
    maxTokens: 100,
    onText: (piece: string) => void streamed.push(piece),
    onProgress: ({ message, done, total }: { message: string; done: number; total: number }) =>
      void progress.push(`${message} ${done}/${total}`),
    ...fields,
    streamed,
    progress,
  };
}

const longFile = (functions: number): string =>
  Array.from({ length: functions }, (_, i) => `function f${i}() {\n${'  work();\n'.repeat(40)}}\n`).join('\n');

describe('a summary', () => {
  it('is one pass if the file fits', async () => {
    const { prompts, summariser } = setUp(1000, () => 'It adds.');
    const own = request('const a = 1;', { languageId: 'typescript' });
    expect(await summarise(summariser, own)).toMatchObject({ text: 'It adds.', parts: 1, finish: 'stop' });
    expect(prompts).toHaveLength(1);
    expect(prompts[0]).toContain('src/a.ts');
    expect(prompts[0]).toContain('```typescript\nconst a = 1;\n```');
    expect(own.streamed.join('')).toBe('It adds.');
  });

  it("is followed by the positions of the file's parts if it was one pass", async () => {
    const { summariser } = setUp(1000, () => 'It adds and subtracts.');
    const symbols = [
      { name: 'subtract', startLine: 4, endLine: 6 },
      { name: 'add', startLine: 0, endLine: 2 },
      { name: 'zero', startLine: 7, endLine: 7 },
    ];
    const own = request('const a = 1;', { symbols });
    const { text } = await summarise(summariser, own);
    expect(text).toBe(
      'It adds and subtracts.\n\n- **Lines 1–3**: `add`\n- **Lines 5–7**: `subtract`\n- **Line 8**: `zero`',
    );
    expect(own.streamed.join('')).toBe(text);
    expect((await summarise(summariser, request('x', { symbols: symbols.slice(1, 2) }))).text).not.toContain('Line');
  });

  it('lists a limited number of parts', async () => {
    const { summariser } = setUp(1000, () => 'It is long.');
    const symbols = Array.from({ length: 100 }, (_, i) => ({ name: `f${i}`, startLine: i, endLine: i }));
    const { text } = await summarise(summariser, request('x', { symbols }));
    expect(text.match(/^- \*\*Line /gm)).toHaveLength(40);
    expect(text).toContain('- and 60 more');
  });

  it('reads a long file part by part, each with its lines, then sums up', async () => {
    const text = longFile(20);
    const { prompts, summariser } = setUp(1000, (_, n) => `note ${n}`);
    const own = request(text);
    const summary = await summarise(summariser, own);
    expect(summary.parts).toBeGreaterThan(1);
    expect(prompts).toHaveLength(summary.parts + 1);
    const outline = [...summary.text.matchAll(/\*\*Lines (\d+)–(\d+)\*\*/g)].map(([, start, end]) =>
      [start, end].map(Number),
    );
    expect(outline).toHaveLength(summary.parts);
    expect(outline[0]?.[0]).toBe(1);
    expect(outline.at(-1)?.[1]).toBe(text.split('\n').length);
    for (const [i, [start]] of outline.entries()) if (i > 0) expect(start).toBe((outline[i - 1]?.[1] ?? 0) + 1);
    expect(summary.text.startsWith(`note ${prompts.length}\n`)).toBe(true);
  });

  it('streams exactly what it returns', async () => {
    const { summariser } = setUp(1000, (_, n) => `note ${n}`);
    const own = request(longFile(20));
    expect((await summarise(summariser, own)).text).toBe(own.streamed.join(''));
  });

  it('cuts where symbols begin and names them', async () => {
    const text = longFile(12);
    const starts = text.split('\n').flatMap((line, i) => (line.startsWith('function') ? [i] : []));
    const symbols = starts.map((startLine, i) => ({ name: `f${i}`, startLine, endLine: startLine + 41 }));
    const { summariser } = setUp(1000, () => 'note');
    const { text: summary } = await summarise(summariser, request(text, { symbols }));
    expect(summary).toContain('(`f0`');
    expect(summary).toContain('`f11`)');
    for (const [, start] of summary.matchAll(/\*\*Lines (\d+)–/g)) expect(starts).toContain(Number(start) - 1);
  });

  it('reports progress', async () => {
    const { summariser } = setUp(1000, () => 'note');
    const own = request(longFile(20));
    const { parts } = await summarise(summariser, own);
    expect(own.progress).toHaveLength(parts + 1);
    expect(own.progress[0]).toMatch(new RegExp(`^src/a.ts, lines 1–\\d+ 0/${parts + 1}$`));
    expect(own.progress.at(-1)).toBe(`src/a.ts, all of it ${parts}/${parts + 1}`);
  });

  it('sums up notes in groups if they are too many for one prompt', async () => {
    const { prompts, summariser } = setUp(600, () => 'word '.repeat(80));
    const { parts } = await summarise(summariser, request(longFile(40)));
    expect(prompts.length).toBeGreaterThan(parts + 2);
  });

  it('shortens notes that take more tokens to read than to write', async () => {
    const { summariser } = setUp(600, () => 'word '.repeat(400));
    const { text } = await summarise(summariser, request(longFile(40)));
    for (const line of text.split('\n').filter((item) => item.startsWith('- **'))) {
      expect(words(line)).toBeLessThanOrEqual(100 + 3);
    }
  });

  it('adds up its statistics', async () => {
    const { prompts, summariser } = setUp(1000, () => 'note');
    const { statistics } = await summarise(summariser, request(longFile(20)));
    const n = prompts.length;
    expect(statistics).toEqual({
      promptTokens: 10 * n,
      cachedTokens: 2 * n,
      generatedTokens: 4 * n,
      timeToFirstTokenMs: 7,
      tokensPerSecond: 8,
    });
  });

  it('ends with the typed error when it is cancelled', async () => {
    const { prompts, summariser } = setUp(1000, () => '', 'cancelled');
    await expect(summarise(summariser, request(longFile(20)))).rejects.toMatchObject({ code: 'cancelled' });
    expect(prompts).toHaveLength(1);
  });

  it('refuses a context too short to work in, and a file too long to be read', async () => {
    const small = setUp(180, () => 'note');
    await expect(summarise(small.summariser, request(longFile(20)))).rejects.toMatchObject({
      code: 'context-overflow',
    });
    const { summariser } = setUp(600, () => 'note');
    const huge = longFile((limits.generation.summaryParts * 600) / 80);
    await expect(summarise(summariser, request(huge))).rejects.toThrow(/would take \d+ parts/);
  });
});
