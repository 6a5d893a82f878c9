import * as vscode from 'vscode';
import type { NextEditParams, NextEditResult } from '../../engine/protocol/engineProtocol.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { nextEditEnabled, nextEditModel } from '../settings.ts';
import { changeOf, linesLike, nextPlace, type Place, patternOf, placesOf } from './pattern.ts';

/** Context key: true while an edit is offered. package.json binds Tab and Escape to it. */
const contextKey = 'hearth.nextEdit';

/** The cursor's line as it was when the cursor entered it. */
interface EditedLine {
  readonly document: vscode.TextDocument;
  readonly line: number;
  readonly before: string;
}

interface Offer {
  readonly editor: vscode.TextEditor;
  readonly place: Place;
  readonly isForeseen: boolean;
  /** Offers the next edit after this one was made. */
  readonly goOn: () => void;
}

/**
 * Offers the last change of a line at the next similar place of its file; if there is none, the model's predicted edit. The
 * offer is shown in the text. Tab jumps to it, Tab again accepts it; Escape or an edit elsewhere dismisses it.
 */
export class NextEdit {
  #edited: EditedLine | undefined;
  #offer: Offer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #accepting = false;
  readonly #foresight: Pick<Foresight, 'note' | 'ask' | 'cancel'>;
  readonly #removed = vscode.window.createTextEditorDecorationType({
    textDecoration: 'line-through',
    backgroundColor: new vscode.ThemeColor('diffEditor.removedTextBackground'),
  });
  readonly #added = vscode.window.createTextEditorDecorationType({
    after: {
      margin: '0 2px',
      color: new vscode.ThemeColor('editor.foreground'),
      backgroundColor: new vscode.ThemeColor('diffEditor.insertedTextBackground'),
    },
  });
  readonly #hint = vscode.window.createTextEditorDecorationType({
    after: { color: new vscode.ThemeColor('editorCodeLens.foreground'), margin: '0 0 0 2em', fontStyle: 'italic' },
  });
  readonly #subscriptions: vscode.Disposable[];

  constructor(foresight: Pick<Foresight, 'note' | 'ask' | 'cancel'>) {
    this.#foresight = foresight;
    this.#enter(vscode.window.activeTextEditor);
    this.#subscriptions = [
      vscode.window.onDidChangeActiveTextEditor((editor) => this.#enter(editor)),
      vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => this.#moved(textEditor)),
      vscode.workspace.onDidChangeTextDocument((event) => this.#changed(event)),
      this.#removed,
      this.#added,
      this.#hint,
    ];
  }

  /** Jumps to the place, or makes the change if the cursor is on its line, and offers the next. */
  async accept(): Promise<void> {
    if (this.#offer === undefined) return;
    const { editor, place, goOn } = this.#offer;
    const range = rangeOf(place);
    if (editor.selection.active.line !== place.line) {
      editor.selection = new vscode.Selection(range.start, range.start);
      editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
      return;
    }
    const before = editor.document.lineAt(place.line).text;
    this.#accepting = true;
    const done = await editor.edit((edit) => edit.replace(range, place.text));
    this.#accepting = false;
    if (!done) return this.dismiss();
    const isGone = place.endLine !== undefined && place.text === '';
    this.#foresight.note(editor.document, place.line, before, isGone ? '' : undefined);
    goOn();
  }

  dismiss(): void {
    clearTimeout(this.#timer);
    this.#enter(this.#offer?.editor ?? vscode.window.activeTextEditor);
  }

  dispose(): void {
    this.#hide();
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  /** Starts recording a new edit. */
  #enter(editor: vscode.TextEditor | undefined): void {
    this.#hide();
    this.#edited = undefined;
    if (editor === undefined || !editor.document.uri.scheme.match(/^(file|untitled|vscode-remote)$/)) return;
    const { line } = editor.selection.active;
    if (line < editor.document.lineCount)
      this.#edited = { document: editor.document, line, before: editor.document.lineAt(line).text };
  }

  #moved(editor: vscode.TextEditor): void {
    const { line } = editor.selection.active;
    if (this.#accepting || editor !== vscode.window.activeTextEditor) return;
    if (this.#offer?.editor === editor && line === this.#offer.place.line) void this.#show(this.#offer);
    else if (this.#edited?.document !== editor.document || this.#edited.line !== line) this.#enter(editor);
  }

  #changed({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    if (this.#accepting || contentChanges.length === 0 || document !== this.#edited?.document) return;
    const { line, before } = this.#edited;
    const editor = vscode.window.activeTextEditor;
    const within = contentChanges.every(
      ({ range, text }) => range.start.line === line && range.end.line === line && !text.includes('\n'),
    );
    if (within && editor?.document === document) {
      this.#hide();
      this.#timer = setTimeout(() => this.#learn(editor, line, before), limits.nextEdit.settleMs);
    } else this.#enter(editor);
  }

  #learn(editor: vscode.TextEditor, line: number, before: string): void {
    const { document } = editor;
    if (!nextEditEnabled() || document.lineCount > limits.nextEdit.lines) return;
    const after = document.lineAt(line).text;
    if (after === before) return;
    this.#foresight.note(document, line, before);
    const pattern = patternOf(before, after);
    const suggest = (): void => {
      const at = editor.selection.active.line;
      const places = pattern ? placesOf(pattern, document.getText().split(/\r?\n/), line) : [];
      const place = nextPlace(places, at);
      if (place !== undefined) void this.#show({ editor, place, isForeseen: false, goOn: suggest });
      else {
        if (pattern !== undefined) this.#enter(editor);
        this.#foresee(editor, at);
      }
    };
    suggest();
  }

  /** Offers the model's predicted edit after the change of `line`. */
  #foresee(editor: vscode.TextEditor, line: number): void {
    this.#foresight.ask(editor.document, line, (place) => {
      if (editor !== vscode.window.activeTextEditor || editor.selection.active.line !== line) return;
      const goOn = (): void => {
        this.#enter(editor);
        this.#foresee(editor, place.line);
      };
      void this.#show({ editor, place, isForeseen: true, goOn });
    });
  }

  /** Binds the keys before the text names them: the user's next key may be one of them. */
  async #show(offer: Offer): Promise<void> {
    const { editor, place, isForeseen } = offer;
    this.#offer = offer;
    await vscode.commands.executeCommand('setContext', contextKey, true);
    if (this.#offer !== offer) return;
    const range = rangeOf(place);
    const { line } = editor.selection.active;
    const jump = isForeseen
      ? vscode.l10n.t('Tab to jump to the next edit on line {0}', place.line + 1)
      : vscode.l10n.t('Tab to jump to the same change on line {0}', place.line + 1);
    const says = line === place.line ? vscode.l10n.t('Tab to accept, Esc to dismiss') : jump;
    editor.setDecorations(this.#removed, range.isEmpty ? [] : [range]);
    editor.setDecorations(this.#added, [after(range.end, place.text.replaceAll('\n', ' ↵ '))]);
    editor.setDecorations(this.#hint, [after(new vscode.Position(line, Number.MAX_SAFE_INTEGER), says)]);
  }

  #hide(): void {
    clearTimeout(this.#timer);
    this.#foresight.cancel();
    if (this.#offer === undefined) return;
    for (const type of [this.#removed, this.#added, this.#hint]) this.#offer.editor.setDecorations(type, []);
    this.#offer = undefined;
    void vscode.commands.executeCommand('setContext', contextKey, false);
  }
}

const rangeOf = ({ line, start, end, endLine = line }: Place): vscode.Range =>
  new vscode.Range(new vscode.Position(line, start), new vscode.Position(endLine, end));

/** Text that is shown but not in the document. */
const after = (position: vscode.Position, contentText: string): vscode.DecorationOptions => ({
  range: new vscode.Range(position, position),
  renderOptions: { after: { contentText } },
});

type LineEdit = NextEditParams['edits'][number];

/** Asks the model for the next edit if the pattern of the last one fits nowhere. The next key cancels it. */
export class Foresight {
  readonly #engine: Pick<EngineHost, 'current'>;
  readonly #log: Pick<Log, 'debug'>;
  /** The last line edits, in any file. */
  readonly #edits: LineEdit[] = [];
  #running: vscode.CancellationTokenSource | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(engine: Pick<EngineHost, 'current'>, log: Pick<Log, 'debug'>) {
    this.#engine = engine;
    this.#log = log;
  }

  /** Records a changed line. A further change of the same line replaces the earlier one. */
  note(document: vscode.TextDocument, line: number, before: string, now = document.lineAt(line).text): void {
    const path = vscode.workspace.asRelativePath(document.uri);
    const above = line === 0 ? '' : document.lineAt(line - 1).text;
    const last = this.#edits.at(-1);
    if (last?.path === path && last.before === before && last.above === above) this.#edits.pop();
    this.#edits.push({ path, line, above, before, after: now });
    if (this.#edits.length > limits.nextEdit.edits) this.#edits.shift();
  }

  /** Asks after a pause in typing. `found` is not called if the request was cancelled meanwhile. */
  ask(document: vscode.TextDocument, line: number, found: (place: Place) => void): void {
    this.cancel();
    this.#timer = setTimeout(() => void this.#ask(document, line, found), limits.nextEdit.idleMs);
  }

  cancel(): void {
    clearTimeout(this.#timer);
    this.#running?.cancel();
    this.#running = undefined;
  }

  async #ask(document: vscode.TextDocument, line: number, found: (place: Place) => void): Promise<void> {
    const client = this.#engine.current;
    const card = client?.completionModel;
    const mode = nextEditModel();
    const isWanted = mode === 'on' || (mode === 'auto' && card?.foreseesEdits === true);
    const params = isWanted && card?.host === undefined ? paramsAt(document, line, this.#edits) : undefined;
    if (!client || !card || !params) return;
    const source = new vscode.CancellationTokenSource();
    this.#running = source;
    const { version } = document;
    try {
      const edit = await client.nextEdit(params, source.token);
      if (edit === undefined || source.token.isCancellationRequested || document.version !== version) return;
      const place = placeOf(document, edit);
      if (place !== undefined && place.line !== line) found(place);
    } catch (error) {
      if (!isCancelled(error)) this.#log.debug(`Next edit: ${sentence(error)}`);
    } finally {
      source.dispose();
      if (this.#running === source) this.#running = undefined;
    }
  }
}

/** Undefined if there is nothing to ask about. */
export function paramsAt(
  document: Pick<vscode.TextDocument, 'uri' | 'getText'>,
  line: number,
  edits: readonly LineEdit[],
): NextEditParams | undefined {
  const last = edits.at(-1);
  if (last === undefined) return undefined;
  const { places: mostPlaces, windowLines } = limits.nextEdit;
  const lines = document.getText().split(/\r?\n/);
  const firstLine = Math.max(0, line - windowLines);
  const shown = lines.slice(firstLine, line + windowLines + 1);
  const places = linesLike(last.before, lines, line, mostPlaces).map((at) => {
    return { line: at, above: lines[at - 1] ?? '', text: lines[at] ?? '' };
  });
  const above = shown.slice(0, line - firstLine).map((own) => `${own}\n`);
  return {
    path: vscode.workspace.asRelativePath(document.uri),
    edits: [...edits],
    window: {
      firstLine,
      text: shown.join('\n'),
      before: shown.with(line - firstLine, last.before).join('\n'),
      // The end of the last change.
      cursor: above.join('').length + changeOf(last.before, lines[line] ?? '').endAfter,
    },
    places,
  };
}

/** The part of the lines to replace; undefined if the document has no such lines. */
function placeOf(
  document: Pick<vscode.TextDocument, 'lineAt' | 'lineCount'>,
  { line, lines, text }: Pick<NonNullable<NextEditResult['edit']>, 'line' | 'lines' | 'text'>,
): Place | undefined {
  const next = line + lines;
  if (next > document.lineCount) return undefined;
  // Removed lines include their line breaks.
  if (text === '' && next < document.lineCount) return { line, start: 0, endLine: next, end: 0, text };
  const own = Array.from({ length: lines }, (_, i) => document.lineAt(line + i).text).join('\n');
  const { start, endBefore, endAfter } = changeOf(own, text);
  const [first, last] = [start, endBefore].map((offset) => own.slice(0, offset).split('\n'));
  const [skipped, further] = [(first?.length ?? 1) - 1, (last?.length ?? 1) - 1];
  return {
    line: line + skipped,
    start: first?.at(-1)?.length ?? 0,
    ...(further > skipped && { endLine: line + further }),
    end: last?.at(-1)?.length ?? 0,
    text: text.slice(start, endAfter),
  };
}
