/** Symbols of a file, from a language extension or from the index. */
import { afterEach, describe, expect, it } from 'vitest';
import type * as vscode from 'vscode';
import { documentSymbols } from '../../../extension/context/workspace.ts';
import { commands, Uri, workspace } from './vscode.ts';

const uri = Uri.parse('file:///a.py') as unknown as vscode.Uri;
const asked: string[] = [];
const index = {
  outline: (path: string) => {
    asked.push(path);
    const place = { path, container: '', nameLine: 1, kind: 'function' } as const;
    return Promise.resolve([{ ...place, name: 'add', firstLine: 1, lastLine: 2 }]);
  },
};
const names = async () => (await documentSymbols(uri, index)).map(({ name, start, end }) => [name, start, end]);

describe('the symbols of a file', () => {
  afterEach(() => {
    commands.answers.clear();
    workspace.documents.clear();
    asked.length = 0;
  });

  it('come from the index if no language extension knows any, with lines from 0', async () => {
    workspace.documents.set(uri.toString(), { isDirty: false });
    expect([await names(), asked]).toEqual([[['add', 0, 1]], ['a.py']]);
  });

  it('do not come from the index while the file has unsaved changes', async () => {
    workspace.documents.set(uri.toString(), { isDirty: true });
    expect([await names(), asked]).toEqual([[], []]);
  });

  it("are the language extension's if there are any", async () => {
    const range = { start: { line: 4 }, end: { line: 9 } };
    commands.answers.set('vscode.executeDocumentSymbolProvider', () => [{ name: 'known', range, children: [] }]);
    expect([await names(), asked]).toEqual([[['known', 4, 9]], []]);
  });
});
