import * as vscode from 'vscode';
import type { ModelCard } from '../../engine/server/protocol.ts';
import { limits } from '../limits.ts';
import type { Attachment } from './conversation.ts';

/** A document's text and where the user is in it; lines count from 0, ends are inclusive. */
export interface Focus {
  uri: string;
  path: string;
  languageId: string;
  lines: readonly string[];
  selection: { start: number; end: number } | undefined;
  visible: { start: number; end: number };
}

/** Characters that attached text may have for this model; `undefined`: none is loaded yet. */
export function attachmentChars(card: Pick<ModelCard, 'contextTokens' | 'backend'> | undefined): number {
  const { attachmentShare, charsPerToken, assumedContextTokens, cpuAttachmentTokens } = limits.chat;
  const share = Math.floor((card?.contextTokens ?? assumedContextTokens) * attachmentShare);
  const tokens = card?.backend === 'webgpu' ? share : Math.min(share, cpuAttachmentTokens);
  return Math.min(limits.chat.attachmentChars, tokens * charsPerToken);
}

/**
 * The selection, or the whole file; where that is too long, as many lines as fit around what the user looks at.
 */
export function attach(focus: Focus, maxChars: number): Attachment {
  const wanted = focus.selection ?? { start: 0, end: focus.lines.length - 1 };
  const centre = focus.selection ? wanted.start : Math.floor((focus.visible.start + focus.visible.end) / 2);
  const { start, end } = growing(focus.lines, wanted, centre, maxChars);
  const text = focus.lines
    .slice(start, end + 1)
    .join('\n')
    .slice(0, maxChars);
  const whole = start === 0 && end === focus.lines.length - 1;
  const name = focus.path.split('/').at(-1) ?? focus.path;
  return {
    id: `${focus.selection ? 'selection' : 'file'}:${focus.uri}`,
    label: focus.selection ? `${name}:${wanted.start + 1}–${wanted.end + 1}` : name,
    detail: whole ? '' : vscode.l10n.t('lines {0} to {1} of {2}', start + 1, end + 1, focus.lines.length),
    tokens: Math.ceil(text.length / limits.chat.charsPerToken),
    path: focus.path,
    languageId: focus.languageId,
    text,
  };
}

interface Lines {
  start: number;
  end: number;
}

/** Grows from the centre to both sides while there is room. */
function growing(lines: readonly string[], wanted: Lines, centre: number, maxChars: number): Lines {
  const cost = (line: number): number => (lines[line]?.length ?? 0) + 1;
  let start = Math.min(Math.max(centre, wanted.start), wanted.end);
  let end = start;
  let room = maxChars - cost(start);
  for (;;) {
    const canDown = end < wanted.end && cost(end + 1) <= room;
    if (canDown) room -= cost(++end);
    const canUp = start > wanted.start && cost(start - 1) <= room;
    if (canUp) room -= cost(--start);
    if (!canDown && !canUp) return { start, end };
  }
}

function focusOf(editor: vscode.TextEditor | undefined): Focus | undefined {
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

  /** What goes with the next question. */
  attachments(maxChars: number, includeActiveFile: boolean): Attachment[] {
    const focus = focusOf(this.editor);
    if (focus === undefined || this.removed.has(keyOf(focus))) return [];
    if (focus.selection === undefined && !includeActiveFile && !this.added.has(focus.uri)) return [];
    if (focus.lines.every((line) => line.trim() === '')) return [];
    return [attach(focus, maxChars)];
  }

  /** The name of what could be added: there is an editor, and nothing of it goes along. */
  addable(present: readonly Attachment[]): string | undefined {
    const focus = focusOf(this.editor);
    return focus === undefined || present.length > 0 ? undefined : (focus.path.split('/').at(-1) ?? focus.path);
  }

  remove(id: string): void {
    this.removed.add(id);
    this.changed.fire();
  }

  add(): void {
    const focus = focusOf(this.editor);
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

const keyOf = (focus: Focus): string => `${focus.selection ? 'selection' : 'file'}:${focus.uri}`;
