import * as vscode from 'vscode';
import type { Repository } from './context/gather.ts';
import { problemLine } from './context/sources.ts';
import { documentSymbols, type FoundSymbol } from './context/workspace.ts';

export const tasks = ['explain', 'fix', 'tests', 'document'] as const;
export type Task = (typeof tasks)[number];

/** The task's question, in the user's language. */
export function taskQuestion(task: Task, problems: readonly string[]): string {
  const { t } = vscode.l10n;
  const listed = problems.length === 0 ? '' : `\n\n${problems.join('\n')}`;
  const questions: Record<Task, string> = {
    explain: t('Explain this code.'),
    fix: t('Fix the problems in this code. Answer with the whole corrected code.'),
    tests: t('Write unit tests for this code.'),
    document: t('Add documentation comments to this code. Answer with the whole commented code.'),
  };
  return questions[task] + listed;
}

/** Selects what the task is about, where nothing is: the innermost symbol around the cursor. Returns its problems. */
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

/** The light bulb: every task on a selection, and a fix wherever there is a problem. */
export class TaskActions implements vscode.CodeActionProvider {
  provideCodeActions(
    _document: vscode.TextDocument,
    range: vscode.Range,
    { diagnostics }: vscode.CodeActionContext,
  ): vscode.CodeAction[] {
    const { t } = vscode.l10n;
    const { Refactor, QuickFix } = vscode.CodeActionKind;
    const action = (title: string, task: Task, kind: vscode.CodeActionKind): vscode.CodeAction => {
      const made = new vscode.CodeAction(title, kind);
      made.command = { title, command: `hearth.${task}`, arguments: [range] };
      return made;
    };
    const fixes = diagnostics.length > 0 ? [action(t('Fix with Hearth'), 'fix', QuickFix)] : [];
    if (range.isEmpty) return fixes;
    const inPlace = new vscode.CodeAction(t('Edit with Hearth…'), Refactor);
    inPlace.command = { title: inPlace.title, command: 'hearth.editInPlace' };
    return [
      ...fixes,
      inPlace,
      action(t('Explain with Hearth'), 'explain', Refactor),
      action(t('Write tests with Hearth'), 'tests', Refactor),
      action(t('Document with Hearth'), 'document', Refactor),
    ];
  }
}
