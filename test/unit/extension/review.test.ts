import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { descriptionFormat, descriptionOf } from '../../../extension/describe.ts';
import {
  anchorOf,
  type DiffLine,
  locate,
  moved,
  parseDiff,
  partsOf,
  shownLine,
} from '../../../extension/review/diff.ts';
import { Reviews, remarksFormat, remarksOf } from '../../../extension/review/reviews.ts';
import { accepts, machineOf } from '../grammar/schemaSuite.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { log } from './support.ts';
import { comments, events, extensions, Position, Range, Uri, user, workspace } from './vscode.ts';

type Files = Readonly<Record<string, string>>;

/** What git itself says about the change of these files. */
function gitDiff(before: Files, after: Files, ...options: string[]): string {
  const folder = temporaryFolder();
  const git = (...args: string[]) => execFileSync('git', args, { cwd: folder, encoding: 'utf8' });
  const write = (files: Files) =>
    Object.entries(files).forEach(([path, text]) => {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    });
  git('init', '--quiet');
  write(before);
  git('add', '.');
  for (const path of Object.keys(before)) rmSync(join(folder, path));
  write(after);
  git('add', '--intent-to-add', '.');
  return git(...options, 'diff');
}

const numbered = (count: number, text = 'line') => Array.from({ length: count }, (_, i) => `${text} ${i + 1}`);

const before = [...numbered(20), '-- a comment of SQL', ...numbered(20, 'more')];
const after = ['first', ...numbered(20), ...numbered(20, 'more').toSpliced(15, 1, '++ not a header', 'twice')];
const files = { before: `${before.join('\n')}\n`, after: `${after.join('\n')}\n` };

describe('a diff of git', () => {
  it.each([
    ['', []],
    ['without prefixes', ['-c', 'diff.noprefix=true']],
    ['with mnemonic prefixes', ['-c', 'diff.mnemonicPrefix=true']],
  ])('names the path and the lines of both files %s', (_, options) => {
    const [found, ...others] = parseDiff(gitDiff({ 'a/b.sql': files.before }, { 'a/b.sql': files.after }, ...options));
    expect(others).toEqual([]);
    expect(found?.path).toBe('a/b.sql');
    const lines = found?.hunks.flat() ?? [];
    for (const { kind, text, line, label } of lines) {
      if (kind === 'removed') expect(before[-label - 1]).toBe(text);
      else expect(after[line - 1]).toBe(text);
      if (kind === 'added') expect(label).toBe(line);
    }
    const changed = lines.filter(({ label }) => label !== 0).map(({ text }) => text);
    expect(changed).toEqual(['first', '-- a comment of SQL', 'more 16', '++ not a header', 'twice']);
  });

  it('excludes deleted and binary files, and reads quoted names', () => {
    const diff = gitDiff({ 'gone.txt': 'a\n', 'b.bin': '\0' }, { 'b.bin': '\0\0', 'ä "x".txt': 'new\n' });
    expect(parseDiff(diff).map(({ path, hunks }) => [path, hunks.flat().map(({ label }) => label)])).toEqual([
      ['ä "x".txt', [1]],
    ]);
  });
});

const line = (number: number, kind: DiffLine['kind'], text: string): DiffLine => {
  const label = { same: 0, added: number, removed: -number }[kind];
  return { kind, text, line: number, label };
};

describe('the parts of a long diff', () => {
  it('contain each changed line once, in order, and fit the context', () => {
    const texts = Array.from({ length: 400 }, (_, i) => `${'x'.repeat((i * 37) % 90)} ${i}`);
    const hunks = [texts.slice(0, 300), texts.slice(300, 310), texts.slice(310)].map((hunk, start) =>
      hunk.map((text, i) => line(start * 1000 + i + 1, i % 3 === 0 ? 'added' : 'same', text)),
    );
    const parts = partsOf(
      [
        { path: 'a.ts', hunks },
        { path: 'b.ts', hunks: hunks.slice(1, 2) },
      ],
      600,
      (text) => text.length,
    );
    const labels = (of: readonly DiffLine[]) => of.flatMap(({ label }) => (label === 0 ? [] : [label]));
    const read = (path: string) => parts.filter((part) => part.path === path).flatMap(({ lines }) => labels(lines));
    expect(read('a.ts')).toEqual(labels(hunks.flat()));
    expect(read('b.ts')).toEqual(labels(hunks[1] ?? []));
    for (const { lines } of parts) expect(lines.map(shownLine).join('\n').length).toBeLessThanOrEqual(600);
  });
});

const part = {
  path: 'sums.py',
  lines: [
    line(1, 'same', 'def add(a, b):'),
    { ...line(2, 'removed', '    return a + b') },
    line(2, 'added', '    return a - b'),
    line(3, 'same', ''),
  ],
};
const answerOf = (...found: [number, string][]) =>
  JSON.stringify({ comments: found.map(([label, comment]) => ({ line: label, comment })) });

describe('the answer to a review', () => {
  it('can name only changed lines, which the engine enforces', () => {
    const format = remarksFormat(part);
    if (format.kind !== 'json-schema') throw new Error('The form is a schema.');
    const machine = machineOf(format.schema);
    const isAccepted = (label: number) => accepts(machine, answerOf([label, 'This subtracts.']));
    expect([2, -2, 1, 3, 0, 22].map(isAccepted)).toEqual([true, true, false, false, false, false]);
    expect(accepts(machine, answerOf())).toBe(true);
  });

  it('is rejected if a server ignores the schema and names other lines', () => {
    const answer = answerOf([2, 'This subtracts.'], [0, 'Nothing.'], [1, 'A context line.'], [9, 'No line.'], [2, ' ']);
    const found = remarksOf(answer, part);
    expect(found?.remarks.map(({ line: { label }, text }) => [label, text])).toEqual([[2, 'This subtracts.']]);
    expect(found?.refused).toBe(3);
  });

  it.each(['', 'Looks good!', '{"comments": [{"line": 2, "comm', '[]'])('is ignored if it is %j', (answer) => {
    expect(remarksOf(answer, part)).toBeUndefined();
  });
});

describe('the place of a comment', () => {
  it('follows its line through any edits', () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 48271) % 2147483647;
      return seed % below;
    };
    let checked = 0;
    for (let round = 0; round < 300; round++) {
      let lines = numbered(30);
      let at: number | undefined = 15;
      for (let step = 0; step < 5 && at !== undefined; step++) {
        // Whole lines, so that the marked text shows where the line went.
        const start = random(lines.length);
        const end = Math.min(lines.length, start + random(4));
        const text = numbered(random(4), `new ${round} ${step}`);
        const change = {
          range: new Range(new Position(start, 0), new Position(end, 0)),
          text: text.map((own) => `${own}\n`).join(''),
        };
        lines = lines.toSpliced(start, end - start, ...text);
        at = moved(at, change as never);
        const truth = lines.indexOf('line 16');
        expect(at ?? -1).toBe(truth);
        checked += 1;
      }
    }
    expect(checked).toBeGreaterThan(600);
  });

  it('stays at an edited line, and moves up when lines above are joined', () => {
    const change = (from: [number, number], to: [number, number], text: string) =>
      ({ range: new Range(new Position(...from), new Position(...to)), text }) as never;
    expect(moved(5, change([5, 2], [5, 4], 'ab'))).toBe(5);
    expect(moved(5, change([5, 3], [5, 3], '\n'))).toBe(5);
    expect(moved(5, change([4, 7], [5, 2], ''))).toBe(4);
    expect(moved(5, change([6, 0], [7, 0], ''))).toBe(5);
  });

  it('is found by the text and its neighbours in a file that differs from the diff', () => {
    const lines = [line(4, 'same', 'a'), line(5, 'added', '}'), line(6, 'same', 'b')];
    const anchor = lines[1] && anchorOf(lines[1], lines);
    if (anchor === undefined) throw new Error('There is such a line.');
    expect(locate(anchor, ['x', 'x', '}', 'a', '}', 'b', '}'])).toBe(4);
    expect(locate(anchor, ['x', '}', 'x'])).toBeUndefined();
    expect(locate(anchor, ['a', 'b'])).toBeUndefined();
  });

  it('is the next line where the commented one was removed, or the last one at the end', () => {
    const lines = [line(1, 'same', 'first'), line(2, 'removed', 'gone'), line(2, 'same', 'second')];
    expect(anchorOf(lines[1] as DiffLine, lines)).toMatchObject({ text: 'second', line: 1 });
    expect(anchorOf(lines[1] as DiffLine, lines.slice(0, 2))).toMatchObject({ text: 'first', line: 0 });
  });
});

const sums = { before: 'def add(a, b):\n    return a + b\n', after: 'def add(a, b):\n    return a - b\n' };
const document = (text: string) => {
  const lines = text.split('\n');
  return { uri: Uri.file('/work/sums.py'), getText: () => text, lineCount: lines.length };
};

describe('a review', () => {
  const answers: string[] = [];
  const client = {
    ready: () => Promise.resolve({ contextTokens: 8192, backend: 'webgpu' }),
    chat: () => Promise.resolve({ text: answers.shift() ?? '', finish: 'stop' }),
  };
  const reviews = new Reviews({ client: () => Promise.resolve(client) } as never, log);
  const threads = () => comments.threads.map(({ range, comments: [own] }) => [range?.start.line, own?.body]);
  const openDocument = (text: string) => workspace.documents.set(Uri.file('/work/sums.py').toString(), document(text));

  beforeEach(() => {
    answers.length = 0;
    openDocument(sums.after);
    const diff = gitDiff({ 'sums.py': sums.before }, { 'sums.py': sums.after });
    const repository = { rootUri: Uri.file('/work'), diff: (cached?: boolean) => Promise.resolve(cached ? diff : '') };
    const api = { repositories: [repository], getRepository: () => null };
    extensions.installed.set('vscode.git', { getAPI: () => api });
  });

  it('puts comments at changed lines as plain text, and says what it refused', async () => {
    answers.push(answerOf([2, '![x](https://a/b) subtracts.'], [7, 'No such line.'], [-2, 'Was right.']));
    await reviews.reviewChanges(undefined);
    const value = '\\!\\[x\\]\\(https://a/b\\) subtracts.';
    expect(threads()).toMatchObject([
      [1, { value }],
      [1, { value: 'Was right.' }],
    ]);
    expect(comments.threads.map(({ label }) => label)).toEqual([undefined, 'Removed: return a + b']);
    expect(user.asked.at(-1)?.message).toBe(
      'Comments: 2. Files: 1. Left out because their lines are not in the changes: 1.',
    );
    expect(user.commands).toContain('setContext hearth.reviewed true');
  });

  it('moves a comment with its line, and says when the line is gone', async () => {
    answers.push(answerOf([2, 'Subtracts.']));
    await reviews.reviewChanges(undefined);
    const edit = (text: string, range: Range, replaced: string) => {
      openDocument(text);
      events.document.fire({ document: document(text), contentChanges: [{ range, text: replaced }] } as never);
    };
    edit(`# Sums.\n${sums.after}`, new Range(new Position(0, 0), new Position(0, 0)), '# Sums.\n');
    expect(threads()).toMatchObject([[2, {}]]);
    edit('# Sums.\ndef add(a, b):\n', new Range(new Position(2, 0), new Position(3, 0)), '');
    expect(comments.threads[0]?.label).toBe('Outdated: the line is gone');
  });

  it('lets comments be resolved, opened again, dismissed and cleared', async () => {
    answers.push(answerOf([2, 'Subtracts.'], [-2, 'Was right.']));
    await reviews.reviewChanges(undefined);
    const [first] = comments.threads;
    reviews.resolve(first, true);
    expect(first).toMatchObject({ state: 1, contextValue: 'resolved', collapsibleState: 0 });
    reviews.resolve(first, false);
    expect(first).toMatchObject({ state: 0, contextValue: 'open', collapsibleState: 1 });
    reviews.dismiss(first);
    expect(threads()).toMatchObject([[1, { value: 'Was right.' }]]);
    reviews.clear();
    expect(threads()).toEqual([]);
    expect(user.commands.at(-1)).toBe('setContext hearth.reviewed false');
  });

  it('counts the parts that it could not review, and invents no comments', async () => {
    answers.push('Looks good to me!');
    await reviews.reviewChanges(undefined);
    expect(threads()).toEqual([]);
    expect(user.asked.at(-1)?.message).toBe(
      'The model has no comments. Files: 1. Parts that the model could not review: 1.',
    );
  });

  it('makes no comment once it is cancelled', async () => {
    user.cancels = true;
    answers.push(answerOf([2, 'Subtracts.']));
    await reviews.reviewChanges(undefined);
    expect(threads()).toEqual([]);
  });
});

describe('the description of a pull request', () => {
  it('is a title, a summary and a list, which the engine enforces', () => {
    if (descriptionFormat.kind !== 'json-schema') throw new Error('The form is a schema.');
    const machine = machineOf(descriptionFormat.schema);
    const answer = { title: 'Add sums', summary: 'Sums of two.', changes: ['Add `add`'] };
    expect(accepts(machine, JSON.stringify(answer))).toBe(true);
    expect(accepts(machine, JSON.stringify({ ...answer, changes: [] }))).toBe(false);
    expect(accepts(machine, JSON.stringify({ ...answer, title: 'x'.repeat(73) }))).toBe(false);
    expect(descriptionOf(JSON.stringify(answer))).toBe('# Add sums\n\nSums of two.\n\n- Add `add`\n');
    expect(descriptionOf('A fine pull request.')).toBeUndefined();
  });
});
