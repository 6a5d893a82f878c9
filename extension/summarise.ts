import * as vscode from 'vscode';
import type { SummaryRequest } from './chat/session.ts';
import type { Repository } from './context/gather.ts';
import { nameOf, problemLine, textDocument } from './context/sources.ts';
import { documentSymbols, type FoundSymbol, filesIn } from './context/workspace.ts';
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

/** Asks for a workspace folder or one of its subfolders; undefined: nothing was chosen. */
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

/** The text files of a folder. */
async function folderRequest(uri: vscode.Uri): Promise<SummaryRequest | undefined> {
  const relative = vscode.workspace.asRelativePath(uri);
  // The workspace folder itself has no relative path.
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

/** Zero-based lines, end inclusive; empty if no language extension knows the file. */
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

const tasks = ['explain', 'fix', 'tests', 'document'] as const;
export type Task = (typeof tasks)[number];

/** The task's question, in the user's language. */
export function taskQuestion(task: Task, problems: readonly string[]): string {
  const listed = problems.length === 0 ? '' : `\n\n${problems.join('\n')}`;
  const questions: Record<Task, string> = {
    explain: vscode.l10n.t('Explain this code.'),
    fix: vscode.l10n.t('Fix the problems in this code. Answer with the whole corrected code.'),
    tests: vscode.l10n.t('Write unit tests for this code.'),
    document: vscode.l10n.t('Add documentation comments to this code. Answer with the whole commented code.'),
  };
  return questions[task] + listed;
}

/** If nothing is selected, selects the innermost symbol around the cursor. Returns its problems. */
export async function prepareTask(
  task: Task,
  range: vscode.Range | undefined,
  repository: Pick<Repository, 'outline'>,
): Promise<string[]> {
  const editor = vscode.window.activeTextEditor;
  if (editor === undefined) return [];
  const { document, selection } = editor;
  const at = range ?? selection;
  if (selection.isEmpty) {
    const around = enclosing(await documentSymbols(document.uri, repository), at);
    if (around !== undefined) editor.selection = wholeLines(document, around.start, around.end);
  }
  if (task !== 'fix') return [];
  const path = vscode.workspace.asRelativePath(document.uri);
  const about = editor.selection.isEmpty ? undefined : editor.selection;
  return vscode.languages
    .getDiagnostics(document.uri)
    .filter((problem) => about === undefined || about.intersection(problem.range) !== undefined)
    .map((problem) => problemLine(path, problem));
}

function enclosing(symbols: readonly FoundSymbol[], range: vscode.Range): FoundSymbol | undefined {
  const around = symbols.filter(({ start, end }) => start <= range.start.line && range.end.line <= end);
  return around.sort((a, b) => a.end - a.start - (b.end - b.start))[0];
}

const wholeLines = (document: vscode.TextDocument, start: number, end: number): vscode.Selection =>
  new vscode.Selection(new vscode.Position(start, 0), document.lineAt(end).range.end);

/** The light bulb: all tasks for a selection, and a fix at a problem. */
export class TaskActions implements vscode.CodeActionProvider {
  provideCodeActions(
    _document: vscode.TextDocument,
    range: vscode.Range,
    { diagnostics }: vscode.CodeActionContext,
  ): vscode.CodeAction[] {
    const { Refactor, QuickFix } = vscode.CodeActionKind;
    const action = (title: string, task: Task, kind: vscode.CodeActionKind): vscode.CodeAction => {
      const made = new vscode.CodeAction(title, kind);
      made.command = { title, command: `hearth.${task}`, arguments: [range] };
      return made;
    };
    const fixes = diagnostics.length > 0 ? [action(vscode.l10n.t('Fix with Hearth'), 'fix', QuickFix)] : [];
    if (range.isEmpty) return fixes;
    const inPlace = new vscode.CodeAction(vscode.l10n.t('Edit with Hearth…'), Refactor);
    inPlace.command = { title: inPlace.title, command: 'hearth.editInPlace' };
    return [
      ...fixes,
      inPlace,
      action(vscode.l10n.t('Explain with Hearth'), 'explain', Refactor),
      action(vscode.l10n.t('Write tests with Hearth'), 'tests', Refactor),
      action(vscode.l10n.t('Document with Hearth'), 'document', Refactor),
    ];
  }
}
