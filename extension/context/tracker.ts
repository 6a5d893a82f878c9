import * as vscode from 'vscode';
import { limits } from '../limits.ts';

/** A document's text and where the user is in it; lines count from 0, ends are inclusive. */
export interface Focus {
  uri: string;
  path: string;
  languageId: string;
  lines: readonly string[];
  selection: { start: number; end: number } | undefined;
  visible: { start: number; end: number };
}

/** What a chip of it is known by: removing the file's does not remove that of a selection. */
export const focusId = (focus: Focus): string => `${focus.selection ? 'selection' : 'file'}:${focus.uri}`;

export function focusOf(editor: vscode.TextEditor | undefined): Focus | undefined {
  if (editor === undefined) return undefined;
  const { document, selection } = editor;
  const range = editor.visibleRanges[0];
  // A selection that ends at the start of a line does not mean that line.
  const lastLine = selection.end.character === 0 && !selection.isEmpty ? selection.end.line - 1 : selection.end.line;
  return {
    uri: document.uri.toString(),
    path: vscode.workspace.asRelativePath(document.uri),
    languageId: document.languageId,
    lines: document.getText().split(/\r?\n/),
    selection: selection.isEmpty ? undefined : { start: selection.start.line, end: lastLine },
    visible: { start: range?.start.line ?? 0, end: range?.end.line ?? 0 },
  };
}

/** Editors that show no text of the user's: to look at the log is not to turn away from the file. */
const foreignSchemes = new Set(['output', 'debug', 'vscode-scm', 'comment']);

/** Follows the active editor, and remembers for which files the user took the chip away. */
export class ContextTracker {
  private readonly removed = new Set<string>();
  private readonly added = new Set<string>();
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onChange = this.changed.event;
  private readonly subscriptions: vscode.Disposable;
  /** The webview takes the focus, and with it the active editor may become undefined: the last one still counts. */
  private editor: vscode.TextEditor | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor() {
    this.follow(vscode.window.activeTextEditor);
    this.subscriptions = vscode.Disposable.from(
      vscode.window.onDidChangeActiveTextEditor((editor) => this.follow(editor)),
      vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => this.follow(textEditor)),
      vscode.window.onDidChangeVisibleTextEditors(() => this.follow(vscode.window.activeTextEditor)),
    );
  }

  /** Where the user is, whether or not it goes along. */
  get focus(): Focus | undefined {
    return focusOf(this.editor);
  }

  /** What goes with the next question without being asked for. */
  wanted(includeActiveFile: boolean): Focus | undefined {
    const { focus } = this;
    if (focus === undefined || this.isRemoved(focusId(focus))) return undefined;
    if (focus.selection === undefined && !includeActiveFile && !this.added.has(focus.uri)) return undefined;
    return focus.lines.every((line) => line.trim() === '') ? undefined : focus;
  }

  isRemoved(id: string): boolean {
    return this.removed.has(id);
  }

  remove(id: string): void {
    this.removed.add(id);
    this.changed.fire();
  }

  add(): void {
    const { focus } = this;
    if (focus === undefined) return;
    this.removed.delete(`file:${focus.uri}`);
    this.removed.delete(`selection:${focus.uri}`);
    this.added.add(focus.uri);
    this.changed.fire();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.subscriptions.dispose();
    this.changed.dispose();
  }

  private follow(editor: vscode.TextEditor | undefined): void {
    if (editor !== undefined && foreignSchemes.has(editor.document.uri.scheme)) return;
    const stillOpen = this.editor !== undefined && vscode.window.visibleTextEditors.includes(this.editor);
    this.editor = editor ?? (stillOpen ? this.editor : undefined);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.changed.fire(), limits.chat.contextSettleMs);
  }
}
