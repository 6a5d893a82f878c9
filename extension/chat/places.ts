import * as vscode from 'vscode';
import { meantFile, uriOf } from '../context/workspace.ts';
import type { Citation } from '../messages.ts';
import type { Place } from './citations.ts';
import type { Attachment } from './conversation.ts';

/** Models shorten paths. Prefers attached files, then the only workspace file with that suffix. */
export async function findPlace(path: string, attachments: readonly Attachment[]): Promise<Place | undefined> {
  const attached = attachments.find((known) => known.firstLine > 0 && `/${known.path}`.endsWith(`/${path}`));
  const uri = attached === undefined ? await meantFile(path) : await uriOf(attached.path);
  if (uri === undefined) return undefined;
  const document = await vscode.workspace.openTextDocument(uri);
  return { path: vscode.workspace.asRelativePath(uri), lines: document.lineCount };
}

/** Opens the lines in an editor beside the chat. */
export async function openPlace({ path, line, endLine }: Omit<Citation, 'text'>): Promise<void> {
  const uri = await uriOf(path);
  if (uri === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('{0} no longer exists.', path));
    return;
  }
  const document = await vscode.workspace.openTextDocument(uri);
  await revealLines(document, Math.min(line, document.lineCount) - 1, endLine - 1);
}

/** Cited lines are highlighted instead of selected, because a selection is attached to the next question. */
let mark: vscode.TextEditorDecorationType | undefined;
let marked: vscode.Disposable | undefined;

/** Shows the lines and puts the cursor before them. The highlight ends when the cursor moves or the text changes. Lines count from 0, end inclusive. */
async function revealLines(document: vscode.TextDocument, first: number, last: number): Promise<void> {
  const place = new vscode.Position(first, 0);
  const editor = await vscode.window.showTextDocument(document, { selection: new vscode.Range(place, place) });
  const range = new vscode.Range(place, document.lineAt(Math.min(last, document.lineCount - 1)).range.end);
  editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
  unmark();
  mark ??= markStyle();
  const style = mark;
  editor.setDecorations(style, [range]);
  marked = vscode.Disposable.from(
    vscode.window.onDidChangeTextEditorSelection(({ textEditor, selections }) => {
      const [selection] = selections;
      if (textEditor === editor && !(selection?.isEmpty && selection.active.isEqual(place))) unmark();
    }),
    vscode.workspace.onDidChangeTextDocument((event) => {
      if (event.document === document && event.contentChanges.length > 0) unmark();
    }),
    new vscode.Disposable(() => editor.setDecorations(style, [])),
  );
}

const markStyle = (): vscode.TextEditorDecorationType =>
  vscode.window.createTextEditorDecorationType({
    isWholeLine: true,
    backgroundColor: new vscode.ThemeColor('editor.rangeHighlightBackground'),
    // High contrast themes have no background for it.
    borderStyle: 'solid',
    borderWidth: '0 0 0 2px',
    borderColor: new vscode.ThemeColor('focusBorder'),
  });

function unmark(): void {
  marked?.dispose();
  marked = undefined;
}
