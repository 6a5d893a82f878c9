import { beforeEach, describe, expect, it } from 'vitest';
import { namesFormat, namesOf, suggestName } from '../../../extension/rename.ts';
import { accepts, machineOf } from '../grammar/schemaSuite.ts';
import './support.ts';
import { commands, Position, Range, Uri, user, window, workspace } from './vscode.ts';

describe('suggested names', () => {
  it('are names that programs can have, which the engine enforces', () => {
    if (namesFormat.kind !== 'json-schema') throw new Error('The form is a schema.');
    const machine = machineOf(namesFormat.schema);
    const isAccepted = (...names: string[]) => accepts(machine, JSON.stringify({ names }));
    expect(
      [['sum'], ['_a1', '$b'], [], ['1a'], ['a b'], ['a;'], Array(6).fill('a')].map((names) => isAccepted(...names)),
    ).toEqual([true, true, false, false, false, false, false]);
  });

  it('exclude the current name, and invalid answers of servers that ignore the schema', () => {
    expect(namesOf('{"names": ["sum", "total", "sum", "f", "a b"]}', 'f')).toEqual(['sum', 'total']);
    expect(namesOf('1. sum', 'f')).toEqual([]);
  });
});

describe('a rename', () => {
  const text = 'const f = 1;\nuse(f);\n';
  const uri = Uri.file('/work/a.ts');
  const range = new Range(new Position(0, 6), new Position(0, 7));
  const document = {
    uri,
    version: 1,
    languageId: 'typescript',
    getText: () => text,
    lineAt: () => ({ text: 'const f = 1;' }),
  };
  const client = {
    ready: () => Promise.resolve({}),
    chat: () => Promise.resolve({ text: '{"names": ["count"]}', finish: 'stop' }),
  };
  const engine = { client: () => Promise.resolve(client) } as never;

  beforeEach(() => {
    document.version = 1;
    workspace.edits.length = 0;
    window.activeTextEditor = { document, selection: range };
    commands.answers.set('vscode.prepareRename', () => ({ range, placeholder: 'f' }));
    commands.answers.set('vscode.executeDocumentRenameProvider', (_uri, _at, name) => ({ renamed: name }));
  });

  it('is done by the language extension with the chosen name', async () => {
    user.picks = { label: 'count' };
    await suggestName(engine);
    expect(user.offered).toEqual(['count', 'Another name…']);
    expect(workspace.edits).toEqual([{ renamed: 'count' }]);
  });

  it("is passed to VS Code's own box for another name, and dropped if none is chosen", async () => {
    await suggestName(engine);
    expect(user.commands).not.toContain('editor.action.rename');
    user.picks = { label: 'Another' };
    await suggestName(engine);
    expect(user.commands.at(-1)).toMatch(/^editor\.action\.rename /);
    expect(workspace.edits).toEqual([]);
  });

  it('is refused if the file changed meanwhile, or where nothing can be renamed', async () => {
    user.picks = { label: 'count' };
    client.ready = () => {
      document.version = 2;
      return Promise.resolve({});
    };
    await expect(suggestName(engine)).rejects.toThrow('The file has changed. Nothing was renamed.');
    commands.answers.set('vscode.prepareRename', () => undefined);
    await suggestName(engine);
    expect(user.asked.at(-1)?.message).toBe('Nothing can be renamed here. Put the cursor on a name.');
    expect(workspace.edits).toEqual([]);
  });
});
