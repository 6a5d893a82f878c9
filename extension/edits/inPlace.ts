import { randomUUID } from 'node:crypto';
import * as vscode from 'vscode';
import type { ChatMessage } from '../../engine/protocol/engineProtocol.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { codeOf, decided, edited, type MixedHunk, type MixedLine, mix, mixedHunks, reindented } from './hunks.ts';

/** An undecided change of some lines. The document has old and new lines together. */
interface Session {
  readonly document: vscode.TextDocument;
  instruction: string;
  readonly before: readonly string[];
  /** First line in the document, from 0. */
  start: number;
  lines: MixedLine[];
  /** Cancels the answer while it is being written. */
  source: vscode.CancellationTokenSource | undefined;
  /** True after the first edit, which starts the undo step. */
  touched: boolean;
  /** Edits of the document are sequential. */
  turn: Promise<unknown>;
}

const editingKey = 'hearth.editingInPlace';

const addedStyle: vscode.DecorationRenderOptions = {
  isWholeLine: true,
  backgroundColor: new vscode.ThemeColor('diffEditor.insertedLineBackground'),
  overviewRulerColor: new vscode.ThemeColor('diffEditorOverview.insertedForeground'),
};
const removedStyle: vscode.DecorationRenderOptions = {
  isWholeLine: true,
  backgroundColor: new vscode.ThemeColor('diffEditor.removedLineBackground'),
  // Colour alone must not carry the meaning.
  textDecoration: 'line-through',
  overviewRulerColor: new vscode.ThemeColor('diffEditorOverview.removedForeground'),
};
const wholeSession = { start: 0, end: Number.POSITIVE_INFINITY };

/** Edits a selection in place: the answer is written into the document as a diff, and the user accepts or rejects it. */
export class InPlaceEdits implements vscode.CodeLensProvider {
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #sessions = new Map<string, Session>();
  readonly #added = vscode.window.createTextEditorDecorationType(addedStyle);
  readonly #removed = vscode.window.createTextEditorDecorationType(removedStyle);
  readonly #lenses = new vscode.EventEmitter<void>();
  readonly onDidChangeCodeLenses = this.#lenses.event;
  readonly #subscriptions: vscode.Disposable;
  /** True during our own edits, which must not count as the user's. */
  #writing = false;

  constructor(engine: EngineHost, log: Log) {
    this.#engine = engine;
    this.#log = log;
    this.#subscriptions = vscode.Disposable.from(
      this.#added,
      this.#removed,
      this.#lenses,
      vscode.languages.registerCodeLensProvider('*', this),
      vscode.workspace.onDidChangeTextDocument((event) => this.#onEdit(event)),
      vscode.workspace.onDidCloseTextDocument((document) => this.#end(document)),
      vscode.window.onDidChangeVisibleTextEditors(() => this.#show()),
      vscode.window.onDidChangeActiveTextEditor(() => this.#show()),
    );
  }

  dispose(): void {
    for (const { source } of this.#sessions.values()) source?.cancel();
    this.#subscriptions.dispose();
  }

  /** Asks for an instruction for the selected lines, or the cursor's line, and carries it out. */
  async start(): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined) {
      void vscode.window.showInformationMessage(vscode.l10n.t('Open a file and select what to edit.'));
      return;
    }
    const { document } = editor;
    if (this.#sessions.has(document.uri.toString())) return this.changeInstruction();
    const range = linesOf(editor);
    const instruction = await askInstruction(range.start.line + 1, range.end.line + 1, '');
    if (instruction === undefined) return;
    const before = document.getText(range).split(/\r?\n/);
    const session: Session = {
      ...{ document, instruction, before, start: range.start.line, source: undefined, touched: false },
      turn: Promise.resolve(),
      lines: before.map((text) => ({ kind: 'same', text })),
    };
    this.#sessions.set(document.uri.toString(), session);
    await this.#write(session);
  }

  async changeInstruction(): Promise<void> {
    const session = this.#active();
    if (session === undefined) return;
    session.source?.cancel();
    const { start, before, instruction } = session;
    const changed = await askInstruction(start + 1, start + before.length, instruction);
    if (changed === undefined) return;
    session.instruction = changed;
    await this.#replace(session, () => before.map((text) => ({ kind: 'same', text })));
    await this.#write(session);
  }

  /** Decides on all changes, or on the one with that number. */
  decide(decision: 'accept' | 'reject', hunk?: unknown): Promise<void> {
    const session = this.#active();
    if (session === undefined) return Promise.resolve();
    session.source?.cancel();
    const chosen = typeof hunk === 'number' ? mixedHunks(session.lines)[hunk] : wholeSession;
    return chosen === undefined ? Promise.resolve() : this.#decide(session, chosen, decision);
  }

  provideCodeLenses(document: vscode.TextDocument): vscode.CodeLens[] {
    const session = this.#sessions.get(document.uri.toString());
    if (session === undefined) return [];
    const { start, lines, source } = session;
    const lens = (line: number, title: string, command: string, ...args: unknown[]): vscode.CodeLens =>
      new vscode.CodeLens(new vscode.Range(start + line, 0, start + line, 0), { title, command, arguments: args });
    if (source !== undefined) {
      return [
        lens(0, `$(loading~spin) ${vscode.l10n.t('Hearth is writing')}`, ''),
        lens(0, vscode.l10n.t('Stop and Undo'), 'hearth.rejectEdit'),
      ];
    }
    const found = mixedHunks(lines);
    const each = found.length < 2 ? [] : found;
    return [
      lens(0, `$(check) ${vscode.l10n.t('Accept')}`, 'hearth.acceptEdit'),
      lens(0, `$(discard) ${vscode.l10n.t('Reject')}`, 'hearth.rejectEdit'),
      lens(0, vscode.l10n.t('Change the Instruction…'), 'hearth.changeEdit'),
      ...each.flatMap(({ start: line }, index) => [
        lens(line, vscode.l10n.t('Accept This Change'), 'hearth.acceptEdit', index),
        lens(line, vscode.l10n.t('Reject This Change'), 'hearth.rejectEdit', index),
      ]),
    ];
  }

  #active(): Session | undefined {
    const document = vscode.window.activeTextEditor?.document;
    return document && this.#sessions.get(document.uri.toString());
  }

  async #write(session: Session): Promise<void> {
    const source = new vscode.CancellationTokenSource();
    session.source = source;
    this.#show();
    try {
      const code = await this.#ask(session, source.token);
      if (source.token.isCancellationRequested) return;
      session.source = undefined;
      if (code === undefined) throw new Error(vscode.l10n.t('The answer had no code. Nothing was changed.'));
      await this.#replace(session, () => mix(session.before, reindented(code, session.before), true));
      if (mixedHunks(session.lines).length === 0) {
        this.#end(session.document);
        void vscode.window.showInformationMessage(vscode.l10n.t('The model suggests no change here.'));
      }
    } catch (error) {
      if (source.token.isCancellationRequested) return;
      session.source = undefined;
      await this.#decide(session, wholeSession, 'reject');
      if (isCancelled(error)) return;
      this.#log.warn(`Edit in place: ${sentence(error)}`);
      void vscode.window.showErrorMessage(sentence(error));
    } finally {
      source.dispose();
    }
  }

  /** The new code, shown as it is written. Undefined: the answer has none. */
  async #ask(session: Session, token: vscode.CancellationToken): Promise<string[] | undefined> {
    const client = await this.#engine.client();
    let answer = '';
    let shown = Promise.resolve();
    let isShowing = false;
    const show = async (): Promise<void> => {
      const code = codeOf(answer, false);
      await this.#replace(session, () =>
        code && !token.isCancellationRequested
          ? mix(session.before, reindented(code, session.before), false)
          : undefined,
      );
      isShowing = false;
    };
    const stream = randomUUID();
    const params = {
      ...{ stream, messages: messagesOf(session), thinking: 'off' as const, endRepetition: true },
      sampling: { temperature: 0 },
    };
    const onDelta = ({ kind, text }: { kind: string; text: string }): void => {
      if (kind !== 'text') return;
      answer += text;
      if (isShowing) return;
      isShowing = true;
      shown = show();
    };
    const { text, finish } = await client.chat(params, { onDelta }, token);
    await shown;
    if (finish === 'length' || finish === 'context')
      throw new Error(vscode.l10n.t('The model ran out of room before the result was complete. Select fewer lines.'));
    return codeOf(text, true);
  }

  async #decide(session: Session, hunk: MixedHunk, decision: 'accept' | 'reject'): Promise<void> {
    await this.#replace(session, (lines) => decided(lines, hunk, decision), true);
    session.source = undefined;
    if (session.lines.every(({ kind }) => kind === 'same')) this.#end(session.document);
    else this.#show();
  }

  /** `isStep`: starts a new undo step. */
  async #replace(
    session: Session,
    next: (lines: readonly MixedLine[]) => MixedLine[] | undefined,
    isStep = false,
  ): Promise<void> {
    const turn = session.turn.then(async () => {
      const lines = next(session.lines);
      if (lines === undefined) return;
      const { document, start } = session;
      const end = start + session.lines.length - 1;
      const range = document.validateRange(new vscode.Range(start, 0, end, Number.MAX_SAFE_INTEGER));
      const text = lines.map((line) => line.text).join(document.eol === vscode.EndOfLine.CRLF ? '\r\n' : '\n');
      session.lines = lines;
      if (document.getText(range) === text && !isStep) return;
      this.#writing = true;
      try {
        await edit(document, range, text, { undoStopBefore: !session.touched, undoStopAfter: isStep });
        session.touched = true;
      } finally {
        this.#writing = false;
      }
    });
    session.turn = turn.catch(() => {});
    await turn;
    this.#show();
  }

  #end(document: vscode.TextDocument): void {
    const session = this.#sessions.get(document.uri.toString());
    if (session === undefined) return;
    session.source?.cancel();
    this.#sessions.delete(document.uri.toString());
    this.#show();
  }

  #onEdit({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    const session = this.#sessions.get(document.uri.toString());
    if (session === undefined || this.#writing) return;
    for (const { range, text } of contentChanges) {
      const added = text.split(/\r?\n/).length;
      const removed = range.end.line - range.start.line + 1;
      const line = range.start.line - session.start;
      if (line >= session.lines.length) continue;
      if (range.end.line < session.start) {
        session.start += added - removed;
        continue;
      }
      // An undo, or an edit across the border, ends the session.
      if (line < 0 || line + removed > session.lines.length) {
        this.#end(document);
        return;
      }
      session.source?.cancel();
      session.source = undefined;
      const now = Array.from({ length: added }, (_, i) => document.lineAt(range.start.line + i).text);
      session.lines = edited(session.lines, line, removed, now);
    }
    const isHeld = session.lines.every(({ text }, i) => lineOf(document, session.start + i) === text);
    const isUndone = session.lines.map(({ text }) => text).join('\n') === session.before.join('\n');
    if (isHeld && !isUndone) this.#show();
    else this.#end(document);
  }

  #show(): void {
    // Set before anything is visible: the user's next key may accept it.
    void vscode.commands.executeCommand('setContext', editingKey, this.#active() !== undefined);
    for (const editor of vscode.window.visibleTextEditors) {
      const session = this.#sessions.get(editor.document.uri.toString());
      const rangesOf = (kind: MixedLine['kind']): vscode.Range[] =>
        (session?.lines ?? []).flatMap((line, i) =>
          line.kind === kind && session ? [editor.document.lineAt(session.start + i).range] : [],
        );
      editor.setDecorations(this.#added, rangesOf('added'));
      editor.setDecorations(this.#removed, rangesOf('removed'));
    }
    this.#lenses.fire();
  }
}

/** The selected lines, or the cursor's. */
function linesOf({ document, selection }: vscode.TextEditor): vscode.Range {
  const { start, end } = selection;
  // A selection that ends at the start of a line excludes that line.
  const last = end.line > start.line && end.character === 0 ? end.line - 1 : end.line;
  return new vscode.Range(start.line, 0, last, document.lineAt(last).text.length);
}

const lineOf = (document: vscode.TextDocument, line: number): string | undefined =>
  line < document.lineCount ? document.lineAt(line).text : undefined;

async function askInstruction(first: number, last: number, value: string): Promise<string | undefined> {
  const instruction = await vscode.window.showInputBox({
    title:
      first === last
        ? vscode.l10n.t('Edit line {0} with Hearth', first)
        : vscode.l10n.t('Edit lines {0} to {1} with Hearth', first, last),
    placeHolder: vscode.l10n.t('What should change? For example: add error handling'),
    value,
    ignoreFocusOut: true,
  });
  return instruction?.trim() === '' ? undefined : instruction?.trim();
}

/** Edits through the document's editor, so that one change is one undo step; without an editor, through the workspace. */
async function edit(
  document: vscode.TextDocument,
  range: vscode.Range,
  text: string,
  stops: { readonly undoStopBefore: boolean; readonly undoStopAfter: boolean },
): Promise<void> {
  const editor = vscode.window.visibleTextEditors.find((shown) => shown.document === document);
  const change = new vscode.WorkspaceEdit();
  change.replace(document.uri, range, text);
  const isDone = editor
    ? await editor.edit((builder) => builder.replace(range, text), stops)
    : await vscode.workspace.applyEdit(change);
  if (!isDone) throw new Error(vscode.l10n.t('The file could not be edited. It is as it was before the last change.'));
}

const system = [
  'You edit code. You get a file with the lines to change, and an instruction.',
  'Answer with the new lines alone, in one fenced code block, without any explanation.',
  'Keep the indentation, and keep what the instruction does not name.',
].join(' ');

/** The lines to change come last, because small models follow the end of a prompt best. */
function messagesOf({ document, before, start, instruction }: Session): ChatMessage[] {
  const { around } = limits.inPlace;
  const lines = document.getText().split(/\r?\n/);
  const path = vscode.workspace.asRelativePath(document.uri);
  const fenced = (text: readonly string[]): string => `\`\`\`${document.languageId}\n${text.join('\n')}\n\`\`\``;
  const above = lines.slice(Math.max(0, start - around), start);
  const below = lines.slice(start + before.length, start + before.length + around);
  const parts = [
    ...(above.some((line) => line.trim() !== '')
      ? [`What stands before the lines in ${path}:\n\n${fenced(above)}`]
      : []),
    ...(below.some((line) => line.trim() !== '') ? [`What stands after them:\n\n${fenced(below)}`] : []),
    `The lines to change:\n\n${fenced(before)}`,
    instruction,
  ];
  return [
    { role: 'system', content: system },
    { role: 'user', content: parts.join('\n\n') },
  ];
}
