import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { IgnoreRules } from '../../../engine/index/repository/ignored.ts';
import { walk } from '../../../engine/index/repository/walk.ts';
import { folderOf } from './folder.ts';

const git = (folder: string, ...args: string[]): string => execFileSync('git', args, { cwd: folder, encoding: 'utf8' });

const found = (folder: string, excludes: string[] = []): string[] =>
  [...walk(folder, new IgnoreRules(folder, excludes))]
    .flat()
    .map(({ path }) => path)
    .sort();

describe('what is left out', () => {
  it('is what git leaves out, nested rules and exceptions included', async () => {
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
    const listed = git(folder, 'ls-files', '-z', '--others', '--exclude-standard').split('\0');
    expect(found(folder)).toEqual(listed.filter((path) => path !== '').sort());
  });

  it('is what the editor hides: braces, from the root or in every folder', async () => {
    const folder = await folderOf({ 'a.js': '', 'a.ts': '', 'sub/a.js': '', 'sub/b.map': '', 'out/c.ts': '' });
    expect(found(folder, ['**/*.{map,min.js}', '*.js', 'out'])).toEqual(['a.ts', 'sub/a.js']);
  });

  it('is always what package managers fetch and version control keeps', async () => {
    const folder = await folderOf({
      'node_modules/x/a.js': '',
      'sub/node_modules/a.js': '',
      '.git/config': '',
      'a.ts': '',
    });
    expect(found(folder)).toEqual(['a.ts']);
  });

  it('is told of a single path as well, whose folder may be ignored', async () => {
    const folder = await folderOf({ '.gitignore': 'dist/\n', 'dist/a.ts': '', 'src/a.ts': '' });
    const rules = new IgnoreRules(folder, []);
    expect([rules.ignoresAnywhere('dist/deep/a.ts', false), rules.ignoresAnywhere('src/a.ts', false)]).toEqual([
      true,
      false,
    ]);
  });
});
