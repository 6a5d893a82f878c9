/** The agent's own tools. injection.test.ts tests what they must never do. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { agentTools, type Workplace } from '../../../extension/agent/tools.ts';
import { ChangeSets } from '../../../extension/edits/changeSets.ts';
import { ChangeStore } from '../../../extension/edits/changeStore.ts';
import { plain } from '../../../extension/terminal.ts';
import { log } from './support.ts';
import { CancellationTokenSource, Uri, workspace } from './vscode.ts';

afterEach(() => {
  Object.assign(workspace, { workspaceFolders: undefined, files: [] });
  workspace.documents.clear();
});

function workspaceOf(files: Readonly<Record<string, string>>) {
  const root = mkdtempSync(join(tmpdir(), 'hearth-tools-'));
  const inside = join(root, 'in');
  mkdirSync(inside);
  Object.assign(workspace, { workspaceFolders: [{ uri: Uri.file(inside), name: 'in', index: 0 }] });
  for (const [path, text] of Object.entries(files)) {
    const uri = Uri.file(join(inside, path));
    writeFileSync(uri.fsPath, text);
    workspace.documents.set(uri.toString(), { uri, getText: () => text, languageId: '' });
    workspace.files.push(uri);
  }
  const changes = new ChangeSets(new ChangeStore(join(root, 'changes'), log), {} as never, log);
  const { token } = new CancellationTokenSource();
  const at: Workplace = {
    ...{ turn: 't', title: 'Why?', changes, resultChars: 10_000, token: token as never },
    repository: { searchByMeaning: () => Promise.resolve([]) },
  };
  const call = async (name: string, input: object) => {
    const tool = agentTools.find(({ offer }) => offer.name === name);
    if (tool === undefined) throw new Error(`There is no ${name}.`);
    return tool.prepare(input, at).run();
  };
  return { call, changes };
}

describe("the agent's tools", () => {
  it('read the files as proposed so far, and change those', async () => {
    const { call, changes } = workspaceOf({ 'a.ts': 'one\r\ntwo\r\nthree\r\n' });
    expect(await call('read_file', { path: 'a.ts', firstLine: 2, lastLine: 2 })).toBe('a.ts, lines 2 to 2 of 4:\ntwo');
    await call('edit_file', { path: 'a.ts', oldText: 'one\ntwo', newText: 'ONE\nTWO' });
    expect(await call('read_file', { path: 'a.ts', lastLine: 2 })).toContain('ONE\nTWO');
    await call('edit_file', { path: 'a.ts', oldText: 'three', newText: 'THREE' });
    const view = await changes.viewOf('t');
    expect(view?.files).toMatchObject([{ kind: 'change', state: 'proposed', added: 3, removed: 3 }]);
    await call('create_file', { path: 'b/new.ts', text: 'x\n' });
    await call('edit_file', { path: 'b/new.ts', oldText: 'x', newText: 'y' });
    expect(await call('read_file', { path: 'b/new.ts' })).toContain('y');
    expect((await changes.viewOf('t'))?.files.map(({ kind }) => kind)).toEqual(['change', 'create']);
  });

  it('say why a change does not fit', async () => {
    const { call } = workspaceOf({ 'a.ts': 'x\nx\n' });
    const edit = (oldText: string) => call('edit_file', { path: 'a.ts', oldText, newText: 'y' });
    await expect(edit('x')).rejects.toThrow('2 times');
    await expect(edit('z')).rejects.toThrow('0 times');
    await expect(call('create_file', { path: 'a.ts', text: '' })).rejects.toThrow('already exists');
    await expect(call('delete_file', { path: 'b.ts' })).rejects.toThrow("There is no file 'b.ts'");
    await call('delete_file', { path: 'a.ts' });
    await expect(edit('x')).rejects.toThrow('You proposed to delete a.ts');
  });

  it('find lines, whatever their case, and list files', async () => {
    const { call } = workspaceOf({ 'a.ts': 'one\nTwo\n', 'b.bin': 'two\0' });
    expect(await call('find_text', { text: 'tWo' })).toMatch(/a\.ts:2: Two$/);
    expect(await call('find_text', { text: 'absent' })).toBe('Nothing was found.');
    expect((await call('list_files', { folder: '' })).split('\n')).toHaveLength(2);
    expect(await call('search', { query: 'one' })).toBe('Nothing was found.');
  });

  it('have schemas that a grammar can enforce', () => {
    for (const { offer } of agentTools) {
      expect(offer.parameters).toMatchObject({ type: 'object', additionalProperties: false });
      expect(offer.description).not.toBe('');
    }
  });
});

describe("a command's output", () => {
  it('is its text, without colours, titles and lines that were overwritten', () => {
    expect(plain('\u001b]0;title\u0007\u001b[1;31mred\u001b[0m\r\n10 %\r50 %\r100 %\r\n\u001b]633;D;0\u001b\\')).toBe(
      'red\n100 %',
    );
  });
});
