import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { FinishReason } from '../../../engine/protocol/engineProtocol.ts';
import { Summaries, type SummariesRequest, SummaryCache } from '../../../engine/runtime/summaries.ts';
import type { Summariser } from '../../../engine/tasks/summarise.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let folder = '';
beforeEach(() => {
  folder = temporaryFolder();
});

const words = (text: string): number => text.split(/\s+/).filter(Boolean).length;

/** Answers with the number of the prompt; a word is a token. */
function setUp(contextTokens = 2000, finish: FinishReason = 'stop', model = 'm') {
  const prompts: string[] = [];
  const statistics = {
    promptTokens: 9,
    cachedTokens: 0,
    generatedTokens: 2,
    timeToFirstTokenMs: 1,
    tokensPerSecond: 5,
  };
  const summariser: Summariser = {
    contextTokens,
    countTokens: words,
    countPrompt: (messages) => messages.reduce((sum, { content }) => sum + words(content), 0),
    ask: (messages, _maxTokens, onText) => {
      prompts.push(messages.map(({ content }) => content).join('\n'));
      const text = `answer ${prompts.length}`;
      onText(text);
      return Promise.resolve({ text, finish, statistics });
    },
  };
  return { prompts, summaries: new Summaries(summariser, new SummaryCache(folder), model) };
}

function request(over: Partial<SummariesRequest> = {}) {
  const streamed: string[] = [];
  const progress: string[] = [];
  return {
    ...{ path: 'src/a.ts', text: 'let a = 1;', symbols: [], maxTokens: 50, files: [], fresh: false },
    onText: (text: string) => void streamed.push(text),
    onProgress: (step: { message: string; done: number; total: number }) =>
      void progress.push(`${step.message} ${step.done}/${step.total}`),
    streamed,
    progress,
    ...over,
  };
}
const files = [
  { path: 'src/a.ts', text: 'let a = 1;' },
  { path: 'src/b.ts', text: 'let b = 2;' },
];

describe('a summary of a file whose parts the caller does not know', () => {
  it('is followed by the parts that its syntax shows', async () => {
    const { summaries } = setUp();
    const text = 'export function add(a: number) {\n  return a;\n}\n\nexport class Sum {\n  of() {}\n}\n';
    const own = request({ text });
    const expected = 'answer 1\n\n- **Lines 1–3**: `add`\n- **Lines 5–7**: `Sum`';
    expect((await summaries.make(own)).text).toBe(expected);
    expect(own.streamed.join('')).toBe(expected);
  });
});

describe('a summary that was made before', () => {
  it('is given again for the same content, by a later process too, without asking the model', async () => {
    await setUp().summaries.make(request());
    const { prompts, summaries } = setUp();
    const again = request();
    const summary = await summaries.make(again);
    expect(summary).toMatchObject({ text: 'answer 1', parts: 1, finish: 'stop' });
    expect(summary.statistics.generatedTokens).toBe(0);
    expect([prompts, again.streamed]).toEqual([[], ['answer 1']]);
  });

  it('is not that of other content, another length or another model', async () => {
    const { prompts, summaries } = setUp();
    await summaries.make(request());
    await summaries.make(request({ text: 'let a = 2;' }));
    await summaries.make(request({ maxTokens: 60 }));
    expect(prompts).toHaveLength(3);
    const other = setUp(2000, 'stop', 'other');
    await other.summaries.make(request());
    expect(other.prompts).toHaveLength(1);
  });

  it('is computed again on request and replaces the old one', async () => {
    const { prompts, summaries } = setUp();
    await summaries.make(request());
    await summaries.make(request({ fresh: true }));
    expect((await summaries.make(request())).text).toBe('answer 2');
    expect(prompts).toHaveLength(2);
  });

  it('is kept if it reached the requested length', async () => {
    await setUp(2000, 'length').summaries.make(request());
    const { prompts, summaries } = setUp();
    expect((await summaries.make(request())).finish).toBe('length');
    expect(prompts).toEqual([]);
  });

  it('is not kept when the context cut it short, and not used when it is damaged', async () => {
    await setUp(2000, 'context').summaries.make(request());
    expect(readdirSync(folder)).toEqual([]);
    await setUp().summaries.make(request());
    const [name = ''] = readdirSync(folder);
    for (const damaged of ['', '{', '{"text":5}', 'null']) {
      writeFileSync(join(folder, name), damaged);
      const { prompts, summaries } = setUp();
      expect((await summaries.make(request())).text).toBe('answer 1');
      expect(prompts).toHaveLength(1);
    }
  });
});

describe('the summary of a folder', () => {
  it('combines one summary per file, and names the first line of each file', async () => {
    const { prompts, summaries } = setUp();
    const own = request({ path: 'src/', text: '', files });
    const summary = await summaries.make(own);
    expect(prompts).toHaveLength(3);
    expect(prompts[2]).toContain(
      'notes on the files of the folder src/:\n\n`src/a.ts:1`: answer 1\n\n`src/b.ts:1`: answer 2',
    );
    expect(summary).toMatchObject({
      text: 'answer 3\n\n- `src/a.ts:1`: answer 1\n- `src/b.ts:1`: answer 2',
      parts: 2,
    });
    expect(own.streamed.join('')).toBe(summary.text);
    expect(own.progress).toEqual(['src/a.ts 0/3', 'src/b.ts 1/3']);
  });

  it('asks again only about the file that changed', async () => {
    await setUp().summaries.make(request({ path: 'src/', files }));
    const { prompts, summaries } = setUp();
    const changed = [{ path: 'src/a.ts', text: 'let a = 3;' }, ...files.slice(1)];
    await summaries.make(request({ path: 'src/', files: changed }));
    expect(prompts).toHaveLength(2);
    expect(prompts[0]).toContain('let a = 3;');
  });

  it('resumes where it was cancelled', async () => {
    const broken = setUp();
    const cancelled = request({ path: 'src/', files });
    const failing = {
      ...cancelled,
      onProgress: ({ done }: { done: number }) => {
        if (done === 1) throw new Error('cancelled');
      },
    };
    await expect(broken.summaries.make(failing)).rejects.toThrow('cancelled');
    const { prompts, summaries } = setUp();
    await summaries.make(request({ path: 'src/', files }));
    expect(prompts).toHaveLength(2);
  });

  it('is made in groups if the notes are too many for one prompt', async () => {
    const many = Array.from({ length: 200 }, (_, index) => ({ path: `src/${index}.ts`, text: `let v${index};` }));
    const { prompts, summaries } = setUp(600);
    const { text } = await summaries.make(request({ path: 'src/', files: many }));
    expect(prompts.length).toBeGreaterThan(202);
    expect(
      prompts.filter((prompt) => prompt.includes('notes on some files of the folder src/')).length,
    ).toBeGreaterThan(1);
    expect(text.match(/^- `src\/\d+\.ts:1`/gm)).toHaveLength(200);
  });
});
