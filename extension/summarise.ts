import * as vscode from 'vscode';
import type { SummaryRequest } from './chat/session.ts';

/** The document a command is about: the one it was called on, else the active editor's. */
export async function summaryRequest(target: unknown): Promise<SummaryRequest | undefined> {
  const uri = target instanceof vscode.Uri ? target : vscode.window.activeTextEditor?.document.uri;
  if (uri === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open the file that is to be summarised.'));
    return undefined;
  }
  const document = await vscode.workspace.openTextDocument(uri);
  const text = document.getText();
  if (text.trim() === '') {
    void vscode.window.showInformationMessage(vscode.l10n.t('The file is empty.'));
    return undefined;
  }
  const path = vscode.workspace.asRelativePath(uri);
  return { uri: uri.toString(), path, languageId: document.languageId, text, symbols: await topLevelSymbols(uri) };
}

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
