/** Answers that change several files: the files they name, their diffs, and the checkpoints on disk. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ChangeSets } from '../../../extension/edits/changeSets.ts';
import { type ChangeSet, ChangeStore, fingerprintOf } from '../../../extension/edits/changeStore.ts';
import { codeBlocks, type Draft, fileOperations } from '../../../extension/edits/drafts.ts';
import { countsOf, hunks, moved, withHunks } from '../../../extension/edits/hunks.ts';
import { patched } from '../../../extension/edits/placement.ts';
import { requireTrust } from '../../../extension/edits/proposals.ts';
import { isChangeable } from '../../../extension/edits/target.ts';
import { limits } from '../../../extension/limits.ts';
import { log } from './support.ts';
import { Uri, user, workspace } from './vscode.ts';

afterEach(() => Object.assign(workspace, { isTrusted: true, workspaceFolders: undefined }));

describe('the files that an answer names', () => {
  it('are those of all its blocks, in order', () => {
    const answer =
      '### a.ts\n\n```ts\n1\n```\n\n- `b.ts`:\n\n  ```ts\n  2\n  ```\n\n```ts title="c.ts"\n3\n```\n\nNothing:\n\n```\n4\n```';
    expect(codeBlocks(answer).map(({ path, code }) => [path, code])).toEqual([
      ['a.ts', '1'],
      ['b.ts', '2'],
      ['c.ts', '3'],
      [undefined, '4'],
    ]);
  });

  it('are those of a diff, one block each', () => {
    const diff = '--- a/x.ts\n+++ b/x.ts\n@@ -1 +1 @@\n-1\n+2\n--- a/y.ts\n+++ b/y.ts\n@@ -1 +1 @@\n-3\n+4\n';
    const git = diff.replaceAll('--- a', 'diff --git a b\n--- a');
    for (const code of [diff, git])
      expect(codeBlocks(`\`\`\`diff\n${code}\`\`\``).map(({ path }) => path)).toEqual(['x.ts', 'y.ts']);
  });

  it.each([
    ['Delete `src/a.ts`.', 'src/a.ts', undefined],
    ['Now remove the old file **src/a.ts**, since nothing needs it.', 'src/a.ts', undefined],
    ['- Deleted: `a.ts`', 'a.ts', undefined],
    ['Rename `a.ts` to `lib/b.ts`:', 'a.ts', 'lib/b.ts'],
    ['Move the file "a.ts" into "b.ts".', 'a.ts', 'b.ts'],
    ['```sh\ngit mv a.ts b.ts\n```', 'a.ts', 'b.ts'],
    ['```bash\n$ rm -f a.ts\n```', 'a.ts', undefined],
    ['```diff\n--- a/a.ts\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n```', 'a.ts', undefined],
    ['```diff\ndiff --git a/a.ts b/b.ts\nrename from a.ts\nrename to b.ts\n```', 'a.ts', 'b.ts'],
  ])('%s', (answer, path, to) => expect(fileOperations(answer)).toEqual([{ path, to }]));

  it.each([
    'Remove `a` from `b.ts`.',
    'Do not delete `a.ts`.',
    "You needn't rename `a.ts` to `b.ts`.",
    'Remove `b.ts` imports from it.',
    '```sh\nrm a.ts\nnpm test\n```',
    '```sh\nrm *.ts\n```',
    '```python\nrm a.ts\n```',
    'The file `a.ts` deletes the row.',
  ])('are none: %s', (answer) => expect(fileOperations(answer)).toEqual([]));
});

describe('a diff', () => {
  const file = 'a\nb\nc\nd\nb\nc\n';

  it('is found by its lines, whatever its numbers say', () => {
    expect(patched(file, '@@ -90,2 +90,2 @@\n a\n-b\n+B\n')).toBe('a\nB\nc\nd\nb\nc\n');
    expect(patched(file, '--- a/x\n+++ b/x\n a\n-b\n+B\n')).toBe('a\nB\nc\nd\nb\nc\n');
  });

  it('means the place next to its number where there are several', () => {
    expect(patched(file, '@@ -5,2 +5,2 @@\n-b\n+B\n c\n')).toBe('a\nb\nc\nd\nB\nc\n');
    expect(patched(file, '@@ -1 +1,3 @@\n-a\n+x\n+y\n+z\n@@ -5,2 +7,2 @@\n-b\n+B\n c\n')).toBe(
      'x\ny\nz\nb\nc\nd\nB\nc\n',
    );
  });

  it('changes nothing where its lines are not in the file, or not once', () => {
    expect(patched(file, '@@ -1 +1 @@\n-zzz\n+y\n')).toBeUndefined();
    expect(patched(file, '<<<<<<< SEARCH\nb\n=======\nB\n>>>>>>> REPLACE')).toBeUndefined();
    expect(patched(file, '')).toBe(file);
  });

  it("may be SEARCH and REPLACE; keeps the file's line ends", () => {
    const block = '<<<<<<< SEARCH\nd\n=======\nD\nE\n>>>>>>> REPLACE';
    expect(patched(file.replaceAll('\n', '\r\n'), block)).toBe('a\r\nb\r\nc\r\nD\r\nE\r\nb\r\nc\r\n');
  });

  it('of a new file is its text', () => {
    expect(patched('', '--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n')).toBe('a\nb');
  });
});

describe('the lines of a change', () => {
  it('are counted', () => {
    expect(countsOf('a\nb\n', 'a\nc\nd\n')).toEqual({ added: 2, removed: 1 });
    expect([countsOf(undefined, 'a\nb\n'), countsOf('a\n', undefined)]).toEqual([
      { added: 2, removed: 0 },
      { added: 0, removed: 1 },
    ]);
  });

  it('move those below them, and one can be made without the others', () => {
    const [before, after] = ['a\nb\nc\nd\n', 'a\nx\ny\nc\nD\n'];
    const all = hunks(before, after);
    expect(moved({ start: 2, end: 3 }, all)).toEqual({ start: 3, end: 4 });
    expect(moved({ start: 0, end: 0 }, all)).toEqual({ start: 0, end: 0 });
    expect(withHunks(before, all.slice(1))).toBe('a\nb\nc\nD\n');
    expect(withHunks(before.replaceAll('\n', '\r\n'), all)).toBe(after.replaceAll('\n', '\r\n'));
  });
});

describe('a file that an answer may change', () => {
  it('is inside the workspace, also by links, and never in .git', async () => {
    const root = mkdtempSync(join(tmpdir(), 'hearth-inside-'));
    const inside = join(root, 'in');
    for (const folder of [join(root, 'out'), inside, join(inside, '.git')]) mkdirSync(folder);
    writeFileSync(join(root, 'out', 'secret.txt'), '');
    symlinkSync(join(root, 'out'), join(inside, 'away'));
    symlinkSync(join(root, 'out', 'secret.txt'), join(inside, 'link.txt'));
    symlinkSync(join(inside, '.git'), join(inside, 'hidden'));
    Object.assign(workspace, { workspaceFolders: [{ uri: Uri.file(inside), name: 'in', index: 0 }] });
    const may = (path: string) => isChangeable(Uri.file(join(inside, path)) as never);
    expect(await Promise.all(['a.ts', 'new/a.ts', 'a/.gitignore'].map(may))).toEqual([true, true, true]);
    const never = ['../out/a.ts', 'away/a.ts', 'link.txt', 'hidden/config', '.git/config', 'sub/.GIT/hooks/x'];
    expect(await Promise.all(never.map(may))).toEqual(never.map(() => false));
  });

  it('is not written in a workspace that is not trusted', () => {
    expect(requireTrust).not.toThrow();
    Object.assign(workspace, { isTrusted: false });
    expect(requireTrust).toThrow('not trusted');
  });
});

describe('the checkpoints on the disk', () => {
  const set = (id: string, at = 1): ChangeSet => ({
    ...{ version: 1, id, title: 'Why?', at },
    files: [
      {
        ...{ id: '0', kind: 'delete', uri: 'file:///a', base: '', added: 0, removed: 1, state: 'accepted' },
        checkpoint: {
          proposal: { base: '', added: 0, removed: 1 },
          bytes: Buffer.from([0, 255]).toString('base64'),
          mode: 0o755,
        },
      },
    ],
  });
  const newFolder = () => join(mkdtempSync(join(tmpdir(), 'hearth-changes-')), 'changes');

  it('outlive the window, and only their owner can read them', async () => {
    const folder = newFolder();
    await new ChangeStore(folder, log).write(set('t1'));
    expect(await new ChangeStore(folder, log).read('t1')).toEqual(set('t1'));
    expect([statSync(folder).mode & 0o077, statSync(join(folder, 't1.json')).mode & 0o077]).toEqual([0, 0]);
  });

  it('are listed, latest first', async () => {
    const store = new ChangeStore(newFolder(), log);
    expect(await store.list()).toEqual([]);
    await store.write(set('t1', 1));
    await store.write(set('t2', 2));
    await store.write(set('t3', 3));
    expect((await store.list()).map(({ id }) => id)).toEqual(['t3', 't2', 't1']);
  });

  it('skip what cannot be read', async () => {
    const folder = newFolder();
    const store = new ChangeStore(folder, log);
    await store.write(set('t1'));
    for (const [name, text] of [
      ['cut', '{"version":1,'],
      ['odd', '{"version":7}'],
    ])
      writeFileSync(join(folder, `${name}.json`), text ?? '');
    expect((await store.list()).map(({ id }) => id)).toEqual(['t1']);
    expect(await store.read('../t1')).toBeUndefined();
  });

  it('are as many as the limit says', async () => {
    const folder = newFolder();
    const store = new ChangeStore(folder, log);
    for (let at = 0; at < limits.edits.sets + 2; at++) {
      await store.write(set(`t${at}`, at));
      utimesSync(join(folder, `t${at}.json`), at, at);
    }
    await store.prune();
    expect(readdirSync(folder)).toHaveLength(limits.edits.sets);
    expect([await store.read('t0'), await store.read('t1')]).toEqual([undefined, undefined]);
  });

  it('distinguish a saved file from an unsaved one with the same text', () => {
    expect(fingerprintOf(Buffer.from('a'))).not.toBe(fingerprintOf({ unsaved: 'a' }));
  });
});

describe('a set of changes', () => {
  function setUp() {
    const root = mkdtempSync(join(tmpdir(), 'hearth-set-'));
    const inside = join(root, 'in');
    mkdirSync(inside);
    Object.assign(workspace, { workspaceFolders: [{ uri: Uri.file(inside), name: 'in', index: 0 }] });
    const at = (path: string) => join(inside, path);
    const uri = (path: string) => Uri.file(at(path)) as never;
    for (const name of ['gone.bin', 'old.txt']) writeFileSync(at(name), Buffer.from([0, 255, 1]), { mode: 0o755 });
    const drafts: Draft[] = [
      { kind: 'create', uri: uri('new/deep/a.ts'), text: 'a\n' },
      { kind: 'delete', uri: uri('gone.bin') },
      { kind: 'rename', uri: uri('old.txt'), to: uri('moved/b.txt') },
    ];
    const proposals = { present: async () => {}, close: async () => {} };
    /** A new instance, as after a reload of the window. */
    const open = () => new ChangeSets(new ChangeStore(join(root, 'changes'), log), proposals, log);
    const there = () => ['new/deep/a.ts', 'gone.bin', 'old.txt', 'moved/b.txt'].map((path) => existsSync(at(path)));
    return { root, inside, at, drafts, open, there };
  }
  const untouched = [false, true, true, false];
  const written = [true, false, false, true];
  const statesOf = async (sets: ChangeSets) => (await sets.viewOf('t'))?.files.map(({ state }) => state);

  it('is written when it is accepted, and restored by another window, with contents and permissions', async () => {
    const { at, drafts, open, there } = setUp();
    const sets = open();
    await sets.propose('t', 'Why?', drafts);
    expect(there()).toEqual(untouched);
    await sets.act('t', 'accept');
    expect(there()).toEqual(written);
    await open().act('t', 'restore');
    expect(there()).toEqual(untouched);
    expect(readFileSync(at('gone.bin'))).toEqual(Buffer.from([0, 255, 1]));
    expect(statSync(at('gone.bin')).mode & 0o777).toBe(0o755);
    expect(await statesOf(open())).toEqual(['proposed', 'proposed', 'proposed']);
  });

  it.each([1, 2, 3])('is restored if the process ends after %i of its files', async (count) => {
    const { drafts, open, there, root } = setUp();
    const sets = open();
    await sets.propose('t', 'Why?', drafts);
    await sets.act('t', 'accept');
    expect(there()).toEqual(written);
    // The state on disk after the first files were written.
    const store = new ChangeStore(join(root, 'changes'), log);
    const set = await store.read('t');
    for (const file of set?.files ?? []) {
      file.state = 'writing';
      delete file.written;
    }
    if (set === undefined) throw new Error('There is no set.');
    await open().act('t', 'restore');
    await store.write(set);
    for (const draft of drafts.slice(0, count)) await redo(draft);
    await open().act('t', 'restore');
    expect(there()).toEqual(untouched);
    expect(user.asked.filter(({ detail }) => detail !== '')).toEqual([]);
  });

  it('writes nothing if one file has changed, exists by now, or is behind a link that leaves', async () => {
    const { root, at, inside, drafts, open, there } = setUp();
    const sets = open();
    await sets.propose('t', 'Why?', drafts);
    writeFileSync(at('gone.bin'), 'mine');
    await expect(sets.act('t', 'accept')).rejects.toThrow(
      'gone.bin has changed since this proposal. Nothing was written.',
    );
    writeFileSync(at('gone.bin'), Buffer.from([0, 255, 1]));
    mkdirSync(join(root, 'out'));
    symlinkSync(join(root, 'out'), join(inside, 'new'));
    await expect(sets.act('t', 'accept')).rejects.toThrow('is not inside the workspace. Nothing was written.');
    expect(there()).toEqual(untouched);
    expect(readdirSync(join(root, 'out'))).toEqual([]);
  });

  it('writes nothing in a workspace that is not trusted, and nothing if the checkpoint cannot be kept', async () => {
    const { root, drafts, open, there } = setUp();
    const sets = open();
    await sets.propose('t', 'Why?', drafts);
    Object.assign(workspace, { isTrusted: false });
    await expect(sets.act('t', 'accept')).rejects.toThrow('not trusted');
    Object.assign(workspace, { isTrusted: true });
    rmSync(join(root, 'changes'), { recursive: true });
    writeFileSync(join(root, 'changes'), '');
    await expect(sets.act('t', 'accept')).rejects.toThrow('Nothing was written.');
    expect(there()).toEqual(untouched);
    expect(await statesOf(sets)).toEqual(['proposed', 'proposed', 'proposed']);
  });

  it('asks before it restores over an edit, keeps it if told so, and says what it did', async () => {
    const { at, drafts, open, there } = setUp();
    const sets = open();
    await sets.propose('t', 'Why?', drafts);
    await sets.act('t', 'accept');
    writeFileSync(at('new/deep/a.ts'), 'mine');
    await sets.act('t', 'restore');
    expect(there()).toEqual(written);
    user.wants.push('Keep Them');
    await sets.act('t', 'restore');
    expect(there()).toEqual([true, true, true, false]);
    expect(readFileSync(at('new/deep/a.ts'), 'utf8')).toBe('mine');
    expect(user.asked.at(-1)?.message).toMatch(/^Restored: .*gone.bin.*old.txt\. Left as they are: .*a.ts\.$/);
    user.wants.splice(0, 1, 'Overwrite');
    await sets.act('t', 'restore');
    expect(there()).toEqual(untouched);
  });
});

async function redo({ kind, uri, to, text = '' }: Draft): Promise<void> {
  if (kind === 'create') await workspace.fs.writeFile(uri, Buffer.from(text));
  else if (kind === 'delete') await workspace.fs.delete(uri);
  else if (to !== undefined) {
    mkdirSync(dirname(to.fsPath), { recursive: true });
    await workspace.fs.rename(uri, to);
  }
}
