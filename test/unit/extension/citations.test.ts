import { describe, expect, it } from 'vitest';
import { checkCitations, findCitations, outlineCitations } from '../../../extension/chat/citations.ts';

const files: Readonly<Record<string, number>> = { 'src/a.ts': 10, 'README.md': 3, Makefile: 40 };
const find = (path: string) => Promise.resolve(path in files ? { path, lines: files[path] ?? 0 } : undefined);
const check = (answer: string) => checkCitations(answer, find);

describe('citations in an answer', () => {
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
    'at 10:30',
    'a ratio of 3:4',
    'std::vector:3',
    '127.0.0.1:80',
    'a.b:1:2',
    'v1.2.3:4',
  ])('are not found in %s', (text) => {
    expect(findCitations(`See\n${text}`)).toEqual([]);
  });

  it.each([
    '- a list:\n\n  ```\n  src/a.ts:3\n  ```',
    '- a list\n\n      src/a.ts:3',
    '> a quote:\n> ```\n> src/a.ts:3\n> ```',
    '> - > ```\n>   > src/a.ts:3\n>   > ```',
    'Indented:\n\n    src/a.ts:3\n\n\ttail src/a.ts:4',
    '`open("src/a.ts:3")` and ``a `src/a.ts:3` b``',
    '````\n```\nsrc/a.ts:1\n````\n\n~~~\nsrc/a.ts:2',
    '1. one\n   ~~~sh\n   cat src/a.ts:3',
    '[src/a.ts:3](https://example.com/a.ts)',
    '<pre>\nsrc/a.ts:3\n</pre>',
    'https://example.com/src/a.ts:3',
  ])('are not found in code and links to elsewhere: %j', (answer) => {
    expect(findCitations(answer)).toEqual([]);
  });

  it.each([
    ['- a list, `src/a.ts:3`', 'src/a.ts:3'],
    ['> a quote of src/a.ts:3', 'src/a.ts:3'],
    ['| file |\n|---|\n| src/a.ts:3 |', 'src/a.ts:3'],
    ['# On src/a.ts:3', 'src/a.ts:3'],
    ['- [ ] src/a.ts:3', 'src/a.ts:3'],
    ['*so **src/a.ts:3***', 'src/a.ts:3'],
    ['[the loop](src/a.ts:3)', 'src/a.ts:3'],
    [String.raw`src/a\_b.py:3`, 'src/a_b.py:3'],
    ['src/__init__.py:3', 'src/__init__.py:3'],
    ['__init__.py:3 and __main__.py:4', '__init__.py:3'],
  ])('are found in any prose: %j', (answer, text) => {
    expect(findCitations(answer)[0]).toMatchObject({ text, certain: true });
  });

  it('are looked up and listed up to a limit that a page can show, however many an answer holds', async () => {
    let asked = 0;
    const find = async (path: string) => {
      asked++;
      return { path, lines: 1e6 };
    };
    const existing = Array.from({ length: 20_000 }, (_, line) => `src/a.ts:${line + 1}`).join(' and ');
    expect((await checkCitations(existing, find)).citations.length).toBeLessThanOrEqual(500);
    expect(asked).toBe(1);
    const gone = Array.from({ length: 20_000 }, (_, file) => `src/${file}.ts:1`).join(' and ');
    const { missing } = await checkCitations(gone, async () => undefined);
    expect(missing.length).toBeLessThanOrEqual(500);
    const outline = Array.from({ length: 20_000 }, (_, line) => `line ${line + 1}`).join(', ');
    expect(outlineCitations(outline, { path: 'a.ts', lines: 1e6 }).length).toBeLessThanOrEqual(500);
  });

  it('are separated from missing ones, and the answer stays unchanged', async () => {
    const answer =
      'In `src/a.ts:10`, (README.md:1-3), `gone.ts:3`, src/a.ts:11, src/a.ts:5-3, [a](gone.ts:4) and src/a.ts:0.';
    const { citations, missing } = await check(answer);
    expect(citations.map(({ text }) => text)).toEqual(['src/a.ts:10', 'README.md:1-3']);
    expect(missing).toEqual(['gone.ts:3', 'src/a.ts:11', 'src/a.ts:5-3', 'gone.ts:4', 'src/a.ts:0']);
  });

  it.each([
    'db.internal:5432',
    '`db.internal:5432`',
    'mail.example.org:25',
    'get.docker.sh:443',
    'redis.default.svc:6379',
    'git.example.com/group/a.git:22',
    '/usr/lib/python3.11/json/decoder.py:355',
    '../sysdeps/unix/sysv/linux/raise.c:50',
    'at ArrayList.forEach(ArrayList.java:1511)',
    'at listOnTimeout (timers.js:557)',
    '#1 main at main.c:5',
  ])('are not reported missing if they may not be workspace files: %s', async (text) => {
    expect(await check(`Look:\n\n${text}`)).toEqual({ citations: [], missing: [] });
  });

  it('are links if the workspace has the file, whatever the name looks like', async () => {
    const { citations } = await checkCitations('db.internal:2 and f(odd.name:3)', (path) =>
      Promise.resolve({ path, lines: 9 }),
    );
    expect(citations.map(({ text }) => text)).toEqual(['db.internal:2', 'odd.name:3']);
  });

  it('are looked up in at most a hundred files', async () => {
    let asked = 0;
    const answer = Array.from({ length: 300 }, (_, index) => `f${index}.ts:1`).join(' ');
    const { missing } = await checkCitations(answer, () => {
      asked += 1;
      return Promise.resolve(undefined);
    });
    expect([asked, missing.length]).toEqual([100, 100]);
  });

  it("are looked up once per file and use the workspace's path", async () => {
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
    for (const piece of ['a+', 'a/', 'a.', 'a.b:', '`', '[a](', 'a.ts:1-', '- ', '> ', '**', 'a_'])
      await check(piece.repeat(1_000_000 / piece.length));
    expect(performance.now() - began).toBeLessThan(11_000);
  });
});

describe('the outline of a summary', () => {
  it('links to lines of its file that exist', () => {
    const summary = '- **Lines 1–4 (`f`)**: a\n- **Lines 5–10**: b\n- **line 3**, lines 9-11 and lines 4';
    expect(outlineCitations(summary, { path: 'src/a.ts', lines: 10 })).toEqual([
      { text: 'Lines 1–4', path: 'src/a.ts', line: 1, endLine: 4 },
      { text: 'Lines 5–10', path: 'src/a.ts', line: 5, endLine: 10 },
      { text: 'line 3', path: 'src/a.ts', line: 3, endLine: 3 },
      { text: 'lines 4', path: 'src/a.ts', line: 4, endLine: 4 },
    ]);
  });
});
