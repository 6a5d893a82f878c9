import * as vscode from 'vscode';
import type { SummaryRequest } from './chat/session.ts';
import { nameOf, textDocument } from './context/sources.ts';
import { filesIn } from './context/workspace.ts';
import { limits } from './limits.ts';

/** The document a command is about: the one it was called on, else the active editor's. */
export async function summaryRequest(target: unknown): Promise<SummaryRequest | undefined> {
  const uri = target instanceof vscode.Uri ? target : vscode.window.activeTextEditor?.document.uri;
  if (uri === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open the file to summarise.'));
    return undefined;
  }
  if (((await vscode.workspace.fs.stat(uri)).type & vscode.FileType.Directory) !== 0) return folderRequest(uri);
  const document = await vscode.workspace.openTextDocument(uri);
  const text = document.getText();
  if (text.trim() === '') {
    void vscode.window.showInformationMessage(vscode.l10n.t('The file is empty.'));
    return undefined;
  }
  const path = vscode.workspace.asRelativePath(uri);
  return {
    uri: uri.toString(),
    path,
    languageId: document.languageId,
    text,
    symbols: await topLevelSymbols(uri),
    files: [],
  };
}

/** The workspace's folders and those within, for who named none; undefined: nothing was chosen. */
export async function chosenFolder(): Promise<vscode.Uri | undefined> {
  const items = (vscode.workspace.workspaceFolders ?? []).map(({ name, uri }) => ({ label: name, uri }));
  const inner = new Map<string, vscode.Uri>();
  for (const file of await filesIn('')) {
    const root = vscode.workspace.getWorkspaceFolder(file)?.uri.path ?? file.path;
    for (let at = vscode.Uri.joinPath(file, '..'); at.path.length > root.length; at = vscode.Uri.joinPath(at, '..')) {
      inner.set(vscode.workspace.asRelativePath(at), at);
    }
  }
  items.push(...[...inner].sort().map(([label, uri]) => ({ label, uri })));
  if (items.length === 0) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open a folder first.'));
    return undefined;
  }
  const title = vscode.l10n.t('Hearth: Summarise Folder');
  return (await vscode.window.showQuickPick(items, { title, placeHolder: vscode.l10n.t('Folder to summarise') }))?.uri;
}

/** The files of a folder that have text in them. */
async function folderRequest(uri: vscode.Uri): Promise<SummaryRequest | undefined> {
  const relative = vscode.workspace.asRelativePath(uri);
  // The workspace's own folder is relative to nothing.
  const inside = relative === uri.fsPath || relative === uri.path ? '' : relative;
  const documents = await Promise.all((await filesIn(inside)).sort(byPath).map(textDocument));
  const files = documents.flatMap((document) => {
    const text = document?.getText() ?? '';
    if (document === undefined || text.trim() === '') return [];
    return [{ path: vscode.workspace.asRelativePath(document.uri), languageId: document.languageId, text }];
  });
  if (files.length === 0) {
    void vscode.window.showInformationMessage(vscode.l10n.t('There are no files to summarise in this folder.'));
    return undefined;
  }
  if (files.length > limits.context.summaryFiles) {
    throw new Error(
      vscode.l10n.t(
        'The folder has {0} files. Hearth summarises at most {1} at once. Choose a subfolder.',
        files.length,
        limits.context.summaryFiles,
      ),
    );
  }
  const path = `${inside === '' ? nameOf(uri.path) : inside}/`;
  return { uri: uri.toString(), path, languageId: '', text: '', symbols: [], files };
}

const byPath = (a: vscode.Uri, b: vscode.Uri): number => (a.path < b.path ? -1 : 1);

/** Zero-based lines, end inclusive; empty where no language extension knows the file. */
async function topLevelSymbols(uri: vscode.Uri): Promise<SummaryRequest['symbols']> {
  const found = await vscode.commands.executeCommand<(vscode.DocumentSymbol | vscode.SymbolInformation)[] | undefined>(
    'vscode.executeDocumentSymbolProvider',
    uri,
  );
  return (found ?? [])
    .map((symbol) => {
      const range = 'range' in symbol ? symbol.range : symbol.location.range;
      return { name: symbol.name, startLine: range.start.line, endLine: range.end.line };
    })
    .sort((a, b) => a.startLine - b.startLine);
}
