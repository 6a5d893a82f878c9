import * as vscode from 'vscode';
import { limits } from '../limits.ts';
import { nextEditEnabled } from '../settings.ts';
import { type EditPattern, nextPlace, type Place, patternOf, placesOf } from './pattern.ts';

/** Context key: true while an edit is offered. package.json binds Tab and Escape to it. */
const contextKey = 'hearth.nextEdit';

/** The line that the cursor is in, as it was when it came there. */
interface EditedLine {
  readonly document: vscode.TextDocument;
  readonly line: number;
  readonly before: string;
}

interface Offer {
  readonly editor: vscode.TextEditor;
  readonly pattern: EditPattern;
  readonly place: Place;
  /** The line that the change was learnt from. */
  readonly learntAt: number;
}

/**
 * Offers to make the last change of a line at the next similar place of its file. It is shown there, in the text; Tab goes
 * to it and then makes it, Escape or going on elsewhere dismisses it.
 */
export class NextEdit {
  #edited: EditedLine | undefined;
  #offer: Offer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #accepting = false;
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

  constructor() {
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

  /** Goes to the place, or makes the change when the cursor is in its line, and offers the next. */
  async accept(): Promise<void> {
    if (this.#offer === undefined) return;
    const { editor, pattern, place, learntAt } = this.#offer;
    const range = rangeOf(place);
    if (editor.selection.active.line !== place.line) {
      editor.selection = new vscode.Selection(range.start, range.start);
      editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
      return;
    }
    this.#accepting = true;
    const done = await editor.edit((edit) => edit.replace(range, place.text));
    this.#accepting = false;
    if (done) this.#suggest(editor, pattern, learntAt);
    else this.dismiss();
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
    if (this.#offer?.editor === editor && line === this.#offer.place.line) this.#show(this.#offer);
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
    const pattern = patternOf(before, document.lineAt(line).text);
    if (pattern !== undefined) this.#suggest(editor, pattern, line);
  }

  #suggest(editor: vscode.TextEditor, pattern: EditPattern, learntAt: number): void {
    const places = placesOf(pattern, editor.document.getText().split(/\r?\n/), learntAt);
    const place = nextPlace(places, editor.selection.active.line);
    if (place === undefined) this.#enter(editor);
    else this.#show({ editor, pattern, place, learntAt });
  }

  #show(offer: Offer): void {
    const { editor, place } = offer;
    this.#offer = offer;
    const range = rangeOf(place);
    const { line } = editor.selection.active;
    const says =
      line === place.line
        ? vscode.l10n.t('Tab to accept, Esc to dismiss')
        : vscode.l10n.t('Tab to jump to the same change on line {0}', place.line + 1);
    editor.setDecorations(this.#removed, range.isEmpty ? [] : [range]);
    editor.setDecorations(this.#added, [after(range.end, place.text)]);
    editor.setDecorations(this.#hint, [after(new vscode.Position(line, Number.MAX_SAFE_INTEGER), says)]);
    void vscode.commands.executeCommand('setContext', contextKey, true);
  }

  #hide(): void {
    clearTimeout(this.#timer);
    if (this.#offer === undefined) return;
    for (const type of [this.#removed, this.#added, this.#hint]) this.#offer.editor.setDecorations(type, []);
    this.#offer = undefined;
    void vscode.commands.executeCommand('setContext', contextKey, false);
  }
}

const rangeOf = ({ line, start, end }: Place): vscode.Range =>
  new vscode.Range(new vscode.Position(line, start), new vscode.Position(line, end));

/** Text that is shown, and is not in the document. */
const after = (position: vscode.Position, contentText: string): vscode.DecorationOptions => ({
  range: new vscode.Range(position, position),
  renderOptions: { after: { contentText } },
});
