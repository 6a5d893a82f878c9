import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { IgnoreRules, walk } from '../../../engine/index/repository/ignored.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { folderOf } from './folder.ts';

const git = (folder: string, ...args: string[]): string => execFileSync('git', args, { cwd: folder, encoding: 'utf8' });

/** Git settings of the user who runs the tests must not apply. */
const home = temporaryFolder();
vi.stubEnv('HOME', home);
vi.stubEnv('XDG_CONFIG_HOME', undefined);
vi.stubEnv('GIT_CONFIG_NOSYSTEM', '1');

/** The files that git lists: tracked ones, and those that are not ignored. */
function listed(folder: string): string[] {
  const paths = git(folder, 'ls-files', '-z', '-c', '-o', '--exclude-standard').split('\0');
  return [...new Set(paths.filter((path) => path !== ''))].sort();
}

const found = (folder: string, excludes: string[] = []): string[] =>
  [...walk(folder, new IgnoreRules(folder, excludes))]
    .flat()
    .map(({ path }) => path)
    .sort();

describe('what is left out', () => {
  it('is what git ignores, with nested rules and exceptions', async () => {
    const folder = await folderOf({
      '.gitignore': '*.log\n*.s\n/build/\n!keep.log\ndocs/*.tmp\n**/cache/\n# comment\n\\#odd\n',
      'a.log': '',
      'asm/made.s': '',
      'asm/written.S': '',
      'keep.log': '',
      '#odd': '',
      'build/out.ts': '',
      'src/build/in.ts': '',
      'src/.gitignore': '!special.log\ngenerated.*\n',
      'src/special.log': '',
      'src/other.log': '',
      'src/generated.ts': '',
      'src/deep/cache/x.ts': '',
      'src/deep/generated.py': '',
      'docs/a.tmp': '',
      'docs/sub/b.tmp': '',
      'with space/ü.ts': '',
    });
    git(folder, 'init', '-q');
    expect(found(folder)).toEqual(listed(folder));
  });

  it('is what the editor hides: with braces, from the root or in every folder', async () => {
    const folder = await folderOf({ 'a.js': '', 'a.ts': '', 'sub/a.js': '', 'sub/b.map': '', 'out/c.ts': '' });
    expect(found(folder, ['**/*.{map,min.js}', '*.js', 'out'])).toEqual(['a.ts', 'sub/a.js']);
  });

  it('always includes the folders of package managers and version control', async () => {
    const folder = await folderOf({
      'node_modules/x/a.js': '',
      'sub/node_modules/a.js': '',
      '.git/config': '',
      'a.ts': '',
    });
    expect(found(folder)).toEqual(['a.ts']);
  });

  it('is decided for a single path as well, whose folder may be ignored', async () => {
    const folder = await folderOf({ '.gitignore': 'dist/\n', 'dist/a.ts': '', 'src/a.ts': '' });
    const rules = new IgnoreRules(folder, []);
    expect([rules.ignoresAnywhere('dist/deep/a.ts', false), rules.ignoresAnywhere('src/a.ts', false)]).toEqual([
      true,
      false,
    ]);
  });

  it('follows the rules above a folder of a repository, of the repository and of the user', async () => {
    const folder = await folderOf({
      '.gitignore': '\ufeff.env\n/packages/app/made/\n*.key\n!public.key\n',
      'packages/.gitignore': 'dist/\n*.tmp\n',
      'packages/app/.gitignore': '!kept.tmp\n',
      'packages/app/.env': '',
      'packages/app/a.ts': '',
      'packages/app/a.key': '',
      'packages/app/public.key': '',
      'packages/app/made/x.ts': '',
      'packages/app/dist/x.ts': '',
      'packages/app/x.tmp': '',
      'packages/app/kept.tmp': '',
      'packages/app/mine.local': '',
      'packages/app/editor.swp': '',
    });
    git(folder, 'init', '-q');
    writeFileSync(join(folder, '.git', 'info', 'exclude'), '*.local\n');
    writeFileSync(join(home, '.gitconfig'), '[core]\n\texcludesFile = "~/my ignores" ; of mine\n');
    writeFileSync(join(home, 'my ignores'), '*.swp\n');
    const app = join(folder, 'packages', 'app');
    expect(listed(app)).toEqual(['.gitignore', 'a.ts', 'kept.tmp', 'public.key']);
    for (const place of [folder, join(folder, 'packages'), app]) expect(found(place)).toEqual(listed(place));
    rmSync(join(home, '.gitconfig'));
    mkdirSync(join(home, '.config', 'git'), { recursive: true });
    writeFileSync(join(home, '.config', 'git', 'ignore'), 'a.ts\n');
    expect(listed(app)).not.toContain('a.ts');
    expect(found(app)).toEqual(listed(app));
    rmSync(join(home, '.config'), { recursive: true });
  });

  it.each(['2', '4'])('never includes a file that git tracks, in an index of version %s', async (version) => {
    const folder = await folderOf({
      '.gitignore': '*.log\nout/\n',
      'kept.log': '',
      'other.log': '',
      'out/deep/kept.ts': '',
      'out/deep/other.ts': '',
      'out/gone/x.ts': '',
      'ü ☃/kept.log': '',
      [`${'long/'.repeat(30)}kept.log`]: '',
    });
    git(folder, 'init', '-q');
    git(folder, 'config', 'core.excludesFile', join(folder, 'none'));
    git(folder, 'add', '-f', '.gitignore', 'kept.log', 'out/deep/kept.ts', 'ü ☃', 'long');
    git(folder, 'add', '-N', '-f', 'other.log');
    git(folder, 'update-index', '--index-version', version);
    expect(found(folder)).toEqual(listed(folder));
    for (const inside of ['out', 'out/deep', 'long'])
      expect(found(join(folder, inside))).toContain(
        inside === 'out' ? 'deep/kept.ts' : inside === 'long' ? `${'long/'.repeat(29)}kept.log` : 'kept.ts',
      );
    const rules = new IgnoreRules(folder, []);
    expect(rules.ignoresAnywhere('out/deep/kept.ts', false)).toBe(false);
    expect(rules.ignoresAnywhere('out/deep/other.ts', false)).toBe(true);
  });

  it('also works in a linked working tree and in a SHA-256 repository', async () => {
    const folder = await folderOf({ '.gitignore': '*.log\n', 'kept.log': '', 'a.ts': '' });
    git(folder, 'init', '-q', '--object-format=sha256');
    git(folder, 'add', '-f', 'kept.log', '.gitignore');
    git(folder, '-c', 'user.name=x', '-c', 'user.email=x@y', 'commit', '-qm', 'x');
    writeFileSync(join(folder, '.git', 'info', 'exclude'), '*.local\n');
    const tree = join(home, 'tree');
    git(folder, 'worktree', 'add', '-q', tree);
    for (const name of ['new.log', 'x.local', 'y.ts']) writeFileSync(join(tree, name), '');
    expect(listed(tree)).toEqual(['.gitignore', 'kept.log', 'y.ts']);
    expect(found(tree)).toEqual(listed(tree));
    expect(found(folder)).toEqual(listed(folder));
  });

  it('is never the open folder itself, even if its repository ignores it', async () => {
    const folder = await folderOf({
      '.gitignore': 'build/\n',
      'build/a.ts': '',
      'build/b.log': '',
      'build/.gitignore': '*.log',
    });
    git(folder, 'init', '-q');
    expect(found(join(folder, 'build'))).toEqual(['.gitignore', 'a.ts']);
  });

  it('is what git ignores in 150 trees with random rules', async () => {
    const random = seededRandom(7);
    const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(random() * items.length)] as Item;
    const names = ['a', 'b', 'src', 'out', 'x.ts', 'y.log', 'z.S', '.env', 'ü', 'a b', '[c]', '#d', '!e'];
    const patterns = [
      'a',
      '/a',
      'b/',
      '*.log',
      '!y.log',
      '**/out',
      'src/**',
      '!src/**/x.ts',
      '/*/a',
      'a/*/b',
      '[ab]',
      '?',
      '!/b',
      '*.[sS]',
      '\\#d',
      '\\!e',
      'a\\ b',
      'a b ',
      '\\[c\\]',
      '.env',
      '!.env',
      '*',
      '!*/',
      '/out/*',
      'src/**/a',
      '**',
      'ü',
      '# c',
      '[!a]',
      '[^x-z].ts',
      '[[:alpha:]]',
      '[a',
      '[]-]',
      'x.t*',
      '**.ts',
      'a**b',
      '!src',
      '!out/',
      'out/',
      'a\\',
      '*/*.ts',
      '/**/b',
      '***/a',
      ' a',
      '!*.ts',
      '[a-',
      'b[',
      '??',
      '',
    ];
    for (let tree = 0; tree < 150; tree++) {
      const files: Record<string, string> = {};
      for (let file = 0; file < 25; file++) {
        files[Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(names)).join('/')] = '';
      }
      const folders = ['', ...Object.keys(files).map((path) => path.split('/').slice(0, -1).join('/'))];
      for (let rule = 0; rule < 3; rule++) {
        const at = pick(folders);
        const text = Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(patterns)).join('\n');
        files[at === '' ? '.gitignore' : `${at}/.gitignore`] = text;
      }
      const paths = Object.keys(files).filter(
        (path) => !Object.keys(files).some((other) => other.startsWith(`${path}/`)),
      );
      const folder = await folderOf(Object.fromEntries(paths.map((path) => [path, files[path] ?? ''])));
      git(folder, 'init', '-q');
      const added = paths.filter(() => random() < 0.1);
      if (added.length > 0) git(folder, 'add', '-f', '--', ...added.map((path) => `:(literal)${path}`));
      expect(found(folder), `tree ${tree}: ${JSON.stringify(files)}`).toEqual(listed(folder));
    }
  }, 60_000);
});
