import { describe, expect, it } from 'vitest';
import { checkCitations, findCitations, outlineCitations } from '../../../extension/chat/citations.ts';

const files: Readonly<Record<string, number>> = { 'src/a.ts': 10, 'README.md': 3, Makefile: 40 };
const find = (path: string) => Promise.resolve(path in files ? { path, lines: files[path] ?? 0 } : undefined);
const check = (answer: string) => checkCitations(answer, find);

describe('the places that an answer names', () => {
  it.each([
    ['`src/a.ts:3`', 'src/a.ts', 3, 3],
    ['(src/a.ts:3-5)', 'src/a.ts', 3, 5],
    ['src/a.ts:3–5,', 'src/a.ts', 3, 5],
    ['src/a.ts#L3-L5', 'src/a.ts', 3, 5],
    ['**./src/a.ts:3**', './src/a.ts', 3, 3],
    ['Makefile:7', 'Makefile', 7, 7],
    ['@scope/pkg/index.d.ts:1', '@scope/pkg/index.d.ts', 1, 1],
  ])('are found in %s', (text, path, line, endLine) => {
    expect(findCitations(`See ${text} for it.`)).toMatchObject([{ path, line, endLine }]);
  });

  it.each([
    'http://example.com:8080/x',
    'localhost:3000',
    'example.com:80',
    'at 10:30',
    'a ratio of 3:4',
    'std::vector:3',
    '127.0.0.1:80',
    'a.b:1:2',
    'v1.2.3:4',
    '```ts\nsrc/a.ts:3\n```',
  ])('are not found in %s', (text) => {
    expect(findCitations(`See\n${text}`)).toEqual([]);
  });

  it('stay as they are where they exist', async () => {
    const answer = 'In `src/a.ts:10` and (README.md:1-3).';
    const { citations, ...rest } = await check(answer);
    expect(rest).toEqual({ answer, removed: 0 });
    expect(citations.map(({ text }) => text)).toEqual(['src/a.ts:10', 'README.md:1-3']);
  });

  it.each([
    ['It is in `gone.ts:3`.', 'It is in.'],
    ['It adds (gone.ts:3) numbers.', 'It adds numbers.'],
    ['It is in `src/a.ts:11`, below.', 'It is in `src/a.ts`, below.'],
    ['It is in src/a.ts:5-3.', 'It is in src/a.ts.'],
    ['It is in src/a.ts:0.', 'It is in src/a.ts.'],
    ['It is in [the loop](gone.ts:3).', 'It is in the loop.'],
  ])('are taken out and counted where they do not: %s', async (answer, expected) => {
    expect(await check(answer)).toEqual({ answer: expected, citations: [], removed: 1 });
  });

  it('become readable where they were targets of links', async () => {
    expect((await check('See [the loop](src/a.ts:3) and [src/a.ts](src/a.ts#L4).')).answer).toBe(
      'See the loop (`src/a.ts:3`) and `src/a.ts#L4`.',
    );
  });

  it('leave code as it is, also in a block that never ends', async () => {
    const answer = 'Run:\n\n````\n```\ngone.ts:1\n````\n\n~~~\ngone.ts:2';
    expect(await check(answer)).toEqual({ answer, citations: [], removed: 0 });
  });

  it('are asked for once a file, and by the name that the workspace has for it', async () => {
    const asked: string[] = [];
    const { citations } = await checkCitations('a.ts:1 a.ts:2 a.ts:99', (path) => {
      asked.push(path);
      return find(`src/${path}`);
    });
    expect(asked).toEqual(['a.ts']);
    expect(citations.map(({ path, line }) => [path, line])).toEqual([
      ['src/a.ts', 1],
      ['src/a.ts', 2],
    ]);
  });

  it('are found in a hostile answer of a megabyte within a second', async () => {
    const began = performance.now();
    for (const piece of ['a+', 'a/', 'a.', 'a.b:', '`', '[a](', 'a.ts:1-', '- '])
      await check(piece.repeat(1_000_000 / piece.length));
    expect(performance.now() - began).toBeLessThan(8_000);
  });
});

describe('the outline of a summary', () => {
  it('leads to the lines of its file that exist', () => {
    const summary = '- **Lines 1–4 (`f`)**: a\n- **Lines 5–10**: b\n- **line 3**, lines 9-11 and lines 4';
    expect(outlineCitations(summary, { path: 'src/a.ts', lines: 10 })).toEqual([
      { text: 'Lines 1–4', path: 'src/a.ts', line: 1, endLine: 4 },
      { text: 'Lines 5–10', path: 'src/a.ts', line: 5, endLine: 10 },
      { text: 'line 3', path: 'src/a.ts', line: 3, endLine: 3 },
      { text: 'lines 4', path: 'src/a.ts', line: 4, endLine: 4 },
    ]);
  });
});
