import { mkdirSync, mkdtempSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { codeBlock } from '../../../extension/edits/drafts.ts';
import { type Candidate, destination, mayCreate, staysBelow, terminalLine } from '../../../extension/edits/target.ts';

const python: Candidate = { path: 'sums.py', languageId: 'python', symbols: ['total'] };
const script: Candidate = { path: 'web/app.ts', languageId: 'typescript', symbols: ['start'] };

function where(before: string, info: string, code: string, candidates = [python], found: [string, string][] = []) {
  const answer = `${before}\n\n\`\`\`${info}\n${code}\n\`\`\`\n`;
  return destination(codeBlock(answer, code), { candidates, found: new Map(found) });
}
const newFile = (path: string) => ({ kind: 'new', path });

describe('the target file of a code block', () => {
  const code = 'export const a = 1;';
  it.each([
    ['the fence names it', 'Here:', 'js title="play/util.js"', code],
    ['the fence names it after the language', 'Here:', 'js:play/util.js', code],
    ['a heading names it', '### play/util.js', 'js', code],
    ['a heading names it among words', '## New file `play/util.js`', 'js', code],
    ['the line above is nothing else', '**play/util.js**:', 'js', code],
    ['the answer says to create it', 'Then create `play/util.js` with this:', 'javascript', code],
    ['a comment on the first line names it', 'Here:', 'js', `// play/util.js\n${code}`],
  ])('is a new file if %s', (_, before, info, text) => {
    expect(where(before, info, text)).toEqual(newFile('play/util.js'));
  });

  it('is the workspace file that the answer names', () => {
    expect(where('In `util.js`:', 'js', code, [python], [['util.js', 'play/util.js']])).toEqual({
      kind: 'file',
      path: 'play/util.js',
    });
  });

  it('removes the path from the code', () => {
    expect(codeBlock('```js\n// a/b.js\nlet x;\n```', '// a/b.js\nlet x;').code).toBe('let x;');
    expect(codeBlock('', '# Adds two numbers.\nx').code).toBe('# Adds two numbers.\nx');
  });

  it('is the attached file with that language', () => {
    expect(where('Here:', 'py', 'x = 1')).toEqual({ kind: 'file', path: 'sums.py' });
    expect(where('Here:', '', 'x = 1')).toEqual({ kind: 'file', path: 'sums.py' });
    expect(where('Here:', 'js', code, [python, script])).toEqual({ kind: 'file', path: 'web/app.ts' });
  });

  it('asks the user if the language differs', () => {
    const choices = [{ kind: 'file', path: 'sums.py' }, { kind: 'untitled' }];
    expect(where('Here:', 'json', '{}')).toEqual({ kind: 'ask', choices });
    expect(where('With Node.js:', 'js', code)).toEqual({ kind: 'ask', choices });
  });

  it('is the one file that defines the symbol; otherwise asks the user', () => {
    const other = { path: 'mean.py', languageId: 'python', symbols: ['mean'] };
    expect(where('Here:', 'py', 'def mean():\n    pass', [python, other])).toEqual({ kind: 'file', path: 'mean.py' });
    expect(where('Here:', 'py', 'def fresh():\n    pass', [python, other])).toMatchObject({ kind: 'ask' });
  });

  it('is the terminal for a shell block, whatever file the answer names', () => {
    expect(where('Then run `sums.py`:', 'bash', 'python sums.py', [python], [['sums.py', 'sums.py']])).toEqual({
      kind: 'terminal',
    });
    expect(where('Create `set-up.sh`:', 'sh', 'echo 1')).toEqual(newFile('set-up.sh'));
  });

  it.each([
    '../a.js',
    'a/../../b.js',
    '/etc/a.js',
    '.git/hooks/a.js',
    'a/.GIT/b.js',
    'C:/a.js',
    '~/a.js',
    'a\\..\\..\\b.js',
  ])('is never %s', (path) => expect(mayCreate(path)).toBe(false));

  it('never follows a link out of the folder', async () => {
    const root = mkdtempSync(join(tmpdir(), 'hearth-links-'));
    const [inside, outside] = [join(root, 'in'), join(root, 'out')];
    for (const folder of [inside, outside, join(inside, 'sub'), join(inside, '.git')]) mkdirSync(folder);
    symlinkSync(outside, join(inside, 'away'));
    symlinkSync(join(inside, 'sub'), join(inside, 'near'));
    symlinkSync(join(inside, '.git'), join(inside, 'hidden'));
    const stays = (path: string) => staysBelow(inside, join(inside, path));
    expect(await Promise.all(['a.js', 'new/deep/a.js', 'near/a.js'].map(stays))).toEqual([true, true, true]);
    expect(await Promise.all(['away/a.js', 'away/x/a.js', 'hidden/a.js'].map(stays))).toEqual([false, false, false]);
  });
});

describe('a command in the terminal', () => {
  it('is one line without its prompt sign', () => {
    expect(terminalLine('$ npm test\n')).toBe('npm test');
    expect(terminalLine('# Tests\nnpm run \\\n  test')).toBe('npm run test');
  });
  it('is refused if pasting would run it', () => {
    expect(terminalLine('cd a\nls')).toBeUndefined();
    expect(terminalLine('ls\u0003x')).toBeUndefined();
    expect(terminalLine('ls\rx')).toBeUndefined();
  });
});
