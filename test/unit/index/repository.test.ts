import { execFileSync } from 'node:child_process';
import { rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Repository } from '../../../engine/index/repository/repository.ts';
import { folderOf, repositoryOf, write } from './folder.ts';

const sources = {
  'src/retryPolicy.ts': `/** How often a download is tried. */
export class RetryPolicy {
  attempts = 3;
  nextDelay(failures: number): number { return 1000 * 2 ** failures; }
}
`,
  'src/download.ts': `import { RetryPolicy } from './retryPolicy.ts';
// RetryPolicy in a comment is no reference.
const policy = new RetryPolicy();
export function download(url: string): void { policy.nextDelay(0); log("RetryPolicy"); }
`,
  'src/colours.py': 'RED = 1\n\ndef mix_colours(a, b):\n    return a + b\n',
  'README.md': 'Colours are mixed.\n',
};

const paths = (repository: Repository, question: string): string[] =>
  repository.search(question, 10).map(({ path }) => path);

describe('a question', () => {
  it('ranks files named after it before files that mention it', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(paths(repository, 'where is the retry policy defined?')).toEqual(['src/retryPolicy.ts', 'src/download.ts']);
  });

  it('finds words inside identifiers, in other forms as well', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(paths(repository, 'mixing')).toEqual(['src/colours.py', 'README.md']);
    expect(paths(repository, 'failure')).toEqual(['src/retryPolicy.ts']);
  });

  it('about the whole finds the README first, whatever else has its words', async () => {
    const repository = await repositoryOf(
      await folderOf({
        ...sources,
        'src/project.ts': 'export const projectDoes = 1;\n',
        'docs/README.md': 'Elsewhere.\n',
      }),
    );
    expect(paths(repository, 'What does this project do?')).toEqual(['README.md', 'src/project.ts']);
    expect(paths(repository, 'project')).toEqual(['src/project.ts']);
  });

  it('gets the lines as they are on disk', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    const [hit] = repository.search('mix_colours', 1);
    const lines = sources['src/colours.py'].trimEnd().split('\n');
    expect(hit).toMatchObject({ path: 'src/colours.py', firstLine: 1, lastLine: lines.length, text: lines.join('\n') });
  });

  it('may contain anything: operators of the search language are plain text', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    for (const question of ['"', 'a AND (', 'NEAR(', '^x*', "'; DROP TABLE files; --", '', '\0', '🙂', '日本語']) {
      expect(() => paths(repository, question)).not.toThrow();
    }
    expect(paths(repository, 'colours AND NOT OR')).toContain('src/colours.py');
  });
});

describe('a name', () => {
  it('has its definition, with the enclosing definitions', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(repository.definitions('nextDelay', 5)).toEqual([
      {
        path: 'src/retryPolicy.ts',
        name: 'nextDelay',
        kind: 'method',
        container: 'RetryPolicy',
        firstLine: 4,
        lastLine: 4,
        nameLine: 4,
      },
    ]);
  });

  it('is referred to in code, not in comments and strings', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    const found = await repository.references('RetryPolicy', 10);
    expect(found.map(({ path, line, column }) => [path, line, column])).toEqual([
      ['src/download.ts', 1, 9],
      ['src/download.ts', 3, 19],
    ]);
  });

  it.each([['RetryPolicy'], ['retryp'], ['policy retry']])('is found when one types %s', async (typed) => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(repository.symbols(typed, 5)[0]?.name).toBe('RetryPolicy');
  });
});

describe('the map', () => {
  it('shows the most imported files first, within its budget', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(repository.map({ maxChars: 55 })).toEqual({
      text: 'src/retryPolicy.ts\n  class RetryPolicy: nextDelay\n',
      files: 1,
      ofFiles: 4,
    });
    expect(repository.map({ maxChars: 4000 }).files).toBe(4);
  });

  it.each([
    [
      'Rust',
      {
        'src/lib.rs': 'mod core_flow;\npub mod other;\n',
        'src/core_flow.rs': 'pub fn a() {}\n',
        'src/other/mod.rs': 'use crate::{core_flow::a, other::leaf};\npub mod leaf;\n',
        'src/other/leaf.rs': 'use super::super::core_flow::a;\n',
      },
      'src/core_flow.rs',
    ],
    [
      'Go',
      {
        'main.go': 'package main\nimport "example.com/m/core/flow"\nfunc main() { flow.A() }\n',
        'other.go':
          'package main\nimport (\n\t"fmt"\n\t"example.com/m/core/flow"\n)\nfunc o() { fmt.Print(flow.A()) }\n',
        'core/flow/flow.go': 'package flow\nfunc A() int { return 1 }\n',
        'core/flow/flow_test.go': 'package flow\nfunc TestA() {}\n',
      },
      'core/flow/flow.go',
    ],
  ])('resolves the modules of %s', async (_, files, first) => {
    const repository = await repositoryOf(await folderOf({ ...files, '.gitignore': 'x\n', 'a.json': '{\n}\n' }));
    expect(repository.map({ maxChars: first.length + 30 }).text.split('\n')[0]).toBe(first);
    expect(repository.map({ maxChars: 4000 }).text).not.toMatch(/gitignore|json/);
  });

  it('puts the files of a question first', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(repository.map({ maxChars: 70, focus: ['src/colours.py'] }).text).toContain('function mix_colours');
  });
});

/** What the index holds, without ids: equal for equal folders. */
const contents = (repository: Repository) => ({
  ...repository.indexer.state,
  // Ranks may differ: SQLite's mean length of a text still counts deleted ones until their segment is merged.
  hits: paths(repository, 'retry policy colours download green').sort(),
  names: ['RetryPolicy', 'mix_colours', 'download', 'green'].flatMap((name) => repository.definitions(name, 5)),
});

describe('a change on disk', () => {
  const changes: [string, (folder: string) => Promise<string[]>][] = [
    [
      'a save',
      async (folder) => {
        await write(folder, { 'src/colours.py': 'def green():\n    return 2\n' });
        return ['src/colours.py'];
      },
    ],
    [
      'a move',
      async (folder) => {
        await rename(join(folder, 'src/colours.py'), join(folder, 'paint.py'));
        return ['src/colours.py', 'paint.py'];
      },
    ],
    [
      'a folder that moves',
      async (folder) => {
        await rename(join(folder, 'src'), join(folder, 'lib'));
        return ['src', 'lib'];
      },
    ],
    [
      'a deletion',
      async (folder) => {
        await rm(join(folder, 'src/retryPolicy.ts'));
        return ['src/retryPolicy.ts'];
      },
    ],
    [
      'new rules of what is ignored',
      async (folder) => {
        await write(folder, { '.gitignore': '*.py\n' });
        return ['.gitignore'];
      },
    ],
  ];
  it.each(changes)('%s leaves the same index as a rebuild', async (_, change) => {
    const folder = await folderOf(sources);
    const repository = await repositoryOf(folder);
    repository.indexer.update(await change(folder));
    await repository.indexer.settled();
    expect(contents(repository)).toEqual(contents(await repositoryOf(folder)));
  });

  it('that a switch of branches makes is found by a scan, and undone by switching back', async () => {
    const folder = await folderOf(sources);
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@b', ...args], { cwd: folder });
    git('init', '-q', '-b', 'main');
    git('add', '-A');
    git('commit', '-qm', 'one');
    const repository = await repositoryOf(folder);
    const before = contents(repository);
    git('checkout', '-qb', 'other');
    git('rm', '-q', 'src/colours.py');
    await write(folder, { 'src/green.py': 'def green():\n    return 2\n' });
    git('add', '-A');
    git('commit', '-qm', 'two');
    repository.indexer.rescan();
    await repository.indexer.settled();
    expect(repository.definitions('green', 1)).toHaveLength(1);
    expect(contents(repository)).toEqual(contents(await repositoryOf(folder)));
    git('checkout', '-q', 'main');
    repository.indexer.rescan();
    await repository.indexer.settled();
    expect(contents(repository)).toEqual(before);
  });
});

describe('what is not read', () => {
  it('is counted by its reason, and its name is known', async () => {
    const folder = await folderOf({
      ...sources,
      'image.ts': new Uint8Array([1, 0, 2]),
      'table.ts': `const x = "${'a'.repeat(1024 * 1024)}";`,
      'bundle.min.js': 'var a=1;'.repeat(5000),
    });
    const repository = await repositoryOf(folder);
    expect(repository.indexer.state).toMatchObject({ files: 7, skipped: { binary: 1, 'too-large': 1, generated: 1 } });
  });

  it('includes targets of links, which may leave the folder or form a cycle', async () => {
    const folder = await folderOf(sources);
    const outside = await folderOf({ 'secret.ts': 'const secretWord = 1;' });
    await symlink(outside, join(folder, 'link'));
    await symlink(folder, join(folder, 'src/loop'));
    await symlink(join(outside, 'secret.ts'), join(folder, 'alias.ts'));
    const repository = await repositoryOf(folder);
    expect(repository.indexer.state.files).toBe(4);
    repository.indexer.update(['alias.ts', 'link/secret.ts', '../escape.ts']);
    await repository.indexer.settled();
    expect(paths(repository, 'secretWord')).toEqual([]);
  });
});

describe('several folders', () => {
  it('are one index, whose paths begin with the name of the folder', async () => {
    const [one, two] = [await folderOf(sources), await folderOf({ 'a.ts': 'export const retryPolicy = 1;' })];
    const folders = [
      { name: 'one', directory: one },
      { name: 'two', directory: two },
    ];
    const repository = await repositoryOf(one, { folders });
    expect(paths(repository, 'retry policy')).toContain('two/a.ts');
    await rm(join(two, 'a.ts'));
    repository.indexer.update(['two/a.ts']);
    await repository.indexer.settled();
    expect(paths(repository, 'retry policy')).toEqual(['one/src/retryPolicy.ts', 'one/src/download.ts']);
  });
});

describe('pausing', () => {
  it('keeps what was done, and resuming does the rest', async () => {
    const folder = await folderOf(sources);
    const repository = await repositoryOf(await folderOf({}), { folders: [{ name: '', directory: folder }] });
    const done = contents(repository);
    await write(folder, { 'late.ts': 'export const green = 1;' });
    repository.indexer.pause();
    repository.indexer.update(['late.ts']);
    await repository.indexer.settled();
    expect(contents(repository)).toMatchObject({ ...done, phase: 'paused', pending: 1 });
    repository.indexer.resume();
    await repository.indexer.settled();
    expect(repository.definitions('green', 1)).toHaveLength(1);
  });
});

describe('the counts of an index', () => {
  it('are those of its tables after files came, changed and went', async () => {
    const folder = await folderOf({ ...sources, 'data.bin': Uint8Array.of(0, 1) });
    const database = join(await folderOf({}), 'index.db');
    const repository = await repositoryOf(folder, { database });
    await write(folder, {
      'src/new.ts': 'export class A {}\nexport class B {}\n',
      'data.bin': 'text now\n',
      'b.bin': Uint8Array.of(0),
    });
    await write(folder, { 'src/retryPolicy.ts': 'export const attempts = 5;\n' });
    await rm(join(folder, 'src/colours.py'));
    repository.indexer.update(['src/new.ts', 'data.bin', 'b.bin', 'src/retryPolicy.ts', 'src/colours.py']);
    await repository.indexer.settled();
    const { files, chunks, symbols, skipped } = repository.indexer.state;
    expect({ files, skipped }).toEqual({ files: 6, skipped: { binary: 1 } });
    const { indexer } = await repositoryOf(folder, { database });
    expect(indexer.state).toMatchObject({ files, chunks, symbols, skipped });
    expect(symbols).toBeGreaterThan(3);
  });
});
