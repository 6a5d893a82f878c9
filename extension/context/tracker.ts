import * as vscode from 'vscode';
import { limits } from '../limits.ts';

/** A document's text with selection and visible range. Lines count from 0, ends are inclusive. */
export interface Focus {
  uri: string;
  path: string;
  languageId: string;
  lines: readonly string[];
  selection: { start: number; end: number } | undefined;
  visible: { start: number; end: number };
}

/** Id of its chip. File and selection have separate chips. */
export const focusId = (focus: Focus): string => `${focus.selection ? 'selection' : 'file'}:${focus.uri}`;

export function focusOf(editor: vscode.TextEditor | undefined): Focus | undefined {
  if (editor === undefined) return undefined;
  const { document, selection } = editor;
  const range = editor.visibleRanges[0];
  // A selection that ends at the start of a line excludes that line.
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

/** Schemes of editors that don't show the user's files. Opening the log does not change the focus. */
const foreignSchemes = new Set(['output', 'debug', 'vscode-scm', 'comment']);

/** A long text that was pasted into the question box. */
export interface Pasted {
  readonly id: string;
  readonly text: string;
}

/** Follows the active editor, and remembers removed chips and pasted texts. */
export class ContextTracker {
  readonly #removed = new Set<string>();
  readonly #added = new Set<string>();
  readonly #changed = new vscode.EventEmitter<void>();
  #texts: readonly Pasted[] = [];
  #pastes = 0;
  readonly onChange = this.#changed.event;
  readonly #subscriptions: vscode.Disposable;
  /** Focusing the webview may clear VS Code's active editor, so the last one is kept. */
  #editor: vscode.TextEditor | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    this.#follow(vscode.window.activeTextEditor);
    this.#subscriptions = vscode.Disposable.from(
      vscode.window.onDidChangeActiveTextEditor((editor) => this.#follow(editor)),
      vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => this.#follow(textEditor)),
      vscode.window.onDidChangeVisibleTextEditors(() => this.#follow(vscode.window.activeTextEditor)),
    );
  }

  /** The focus, whether or not it is attached. */
  get focus(): Focus | undefined {
    return focusOf(this.#editor);
  }

  /** The focus that is attached to the next question automatically. */
  wanted(includeActiveFile: boolean): Focus | undefined {
    const { focus } = this;
    if (focus === undefined || this.isRemoved(focusId(focus))) return undefined;
    if (focus.selection === undefined && !includeActiveFile && !this.#added.has(focus.uri)) return undefined;
    return focus.lines.every((line) => line.trim() === '') ? undefined : focus;
  }

  isRemoved(id: string): boolean {
    return this.#removed.has(id);
  }

  /** Pasted texts for the next question. */
  get pasted(): readonly Pasted[] {
    return this.#texts;
  }

  paste(text: string): void {
    this.#texts = [...this.#texts, { id: `pasted:${this.#pastes++}`, text }];
    this.#changed.fire();
  }

  /** Returns and clears them: pasted texts belong to one question. */
  takePasted(): readonly Pasted[] {
    const taken = this.#texts;
    this.#texts = [];
    if (taken.length > 0) this.#changed.fire();
    return taken;
  }

  remove(id: string): void {
    this.#texts = this.#texts.filter((pasted) => pasted.id !== id);
    this.#removed.add(id);
    this.#changed.fire();
  }

  add(): void {
    const { focus } = this;
    if (focus === undefined) return;
    this.#removed.delete(`file:${focus.uri}`);
    this.#removed.delete(`selection:${focus.uri}`);
    this.#added.add(focus.uri);
    this.#changed.fire();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#subscriptions.dispose();
    this.#changed.dispose();
  }

  #follow(editor: vscode.TextEditor | undefined): void {
    if (editor !== undefined && foreignSchemes.has(editor.document.uri.scheme)) return;
    const stillOpen = this.#editor !== undefined && vscode.window.visibleTextEditors.includes(this.#editor);
    this.#editor = editor ?? (stillOpen ? this.#editor : undefined);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed.fire(), limits.chat.contextSettleMs);
  }
}
