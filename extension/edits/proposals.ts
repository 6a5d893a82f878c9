import { diffArrays } from 'diff';
import * as vscode from 'vscode';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { nameOf } from '../context/sources.ts';
import { documentSymbols, uriOf } from '../context/workspace.ts';
import { codeBlock } from './codeBlock.ts';
import { type LineRange, place } from './placement.ts';
import { chosenTarget, newFileUri, putIntoTerminal } from './target.ts';

export const proposalScheme = 'hearth-proposal';

interface Proposal {
  target: vscode.Uri;
  /** Of the document that it was made for; undefined: the file is new. */
  version: number | undefined;
  text: string;
}

/**
 * Changes that a model proposes: shown in VS Code's diff editor beside the file as it is. Nothing is written before the
 * user accepts, and what is accepted is an edit that can be undone.
 */
export class Proposals {
  readonly #repository: Pick<Repository, 'outline'>;
  readonly #open = new Map<string, Proposal>();
  readonly #subscriptions: vscode.Disposable;
  #count = 0;

  constructor(repository: Pick<Repository, 'outline'>) {
    this.#repository = repository;
    this.#subscriptions = vscode.Disposable.from(
      vscode.workspace.registerTextDocumentContentProvider(proposalScheme, {
        provideTextDocumentContent: (uri) => this.#open.get(uri.toString())?.text ?? '',
      }),
      vscode.workspace.onDidCloseTextDocument(({ uri }) => void this.#open.delete(uri.toString())),
    );
  }

  /** Shows the code of an answer where it belongs, by what the answer says of it; asks where that is unclear. */
  async show(code: string, answer: string, attachments: readonly Attachment[]): Promise<void> {
    const block = codeBlock(answer, code);
    const target = await chosenTarget(block, attachments, this.#repository);
    switch (target?.kind) {
      case undefined:
        return;
      case 'terminal':
        return putIntoTerminal(block.code);
      case 'untitled':
        await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content: block.code }));
        return;
      case 'new':
        return this.#presentNew(target.path, block.code);
      case 'file':
        return this.#presentChange(target.path, block.code, attachments);
    }
  }

  /** Writes the proposal of the active diff editor into its file. */
  async accept(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    const { target, version, text } = shown.proposal;
    if (version === undefined) {
      await create(target, text);
    } else {
      const document = await unchanged(shown.proposal);
      if (document === undefined) return;
      await apply(document, hunks(document.getText(), text));
    }
    await close(shown.tab);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(target));
  }

  /** Writes the one change of the proposal at the cursor, and leaves the others to be decided. */
  async acceptHunk(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    const { proposal } = shown;
    if (proposal.version === undefined) return this.accept();
    const document = await unchanged(proposal);
    if (document === undefined) return;
    const editor = vscode.window.activeTextEditor;
    const side = editor?.document.uri.scheme === proposalScheme ? 'after' : 'before';
    const all = hunks(document.getText(), proposal.text);
    const hunk = hunkAt(all, editor?.selection.active.line ?? 0, side);
    if (hunk !== undefined) await apply(document, [hunk]);
    if (all.length <= 1) await close(shown.tab);
    else proposal.version = document.version;
  }

  async reject(): Promise<void> {
    const shown = this.#active();
    if (shown !== undefined) await close(shown.tab);
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  async #presentChange(path: string, code: string, attachments: readonly Attachment[]): Promise<void> {
    const uri = await uriOf(path);
    // A file outside of the workspace is named by its whole path.
    const document = await vscode.workspace.openTextDocument(uri ?? vscode.Uri.file(path));
    const selected = attachments.find(({ id, path: at }) => id.startsWith('selection:') && isOf(at, document));
    const text = place(document.getText(), code, {
      selection: selected && stillThere(selected, document),
      symbols: await documentSymbols(document.uri, this.#repository),
      cursorLine: cursorLine(document),
    });
    if (text === document.getText()) {
      void vscode.window.showInformationMessage(vscode.l10n.t('The file already contains this code.'));
      return;
    }
    await this.#present({ target: document.uri, version: document.version, text });
  }

  async #presentNew(path: string, code: string): Promise<void> {
    const target = await newFileUri(path);
    if (target === undefined) {
      void vscode.window.showWarningMessage(
        vscode.l10n.t('{0} is not inside the folder that is open, so it is not created.', path),
      );
      return;
    }
    await this.#present({ target, version: undefined, text: `${code.replace(/\n+$/, '')}\n` });
  }

  async #present(proposal: Proposal): Promise<void> {
    const name = nameOf(proposal.target.path);
    const uri = vscode.Uri.from({ scheme: proposalScheme, path: proposal.target.path, query: String(this.#count++) });
    this.#open.set(uri.toString(), proposal);
    const isNew = proposal.version === undefined;
    const title = isNew ? vscode.l10n.t('{0}: new file', name) : vscode.l10n.t('{0}: proposed change', name);
    // No proposal has this address, so its text is empty.
    const before = isNew ? uri.with({ query: 'empty' }) : proposal.target;
    await vscode.commands.executeCommand('vscode.diff', before, uri, title, { preview: false });
  }

  #active(): { tab: vscode.Tab; proposal: Proposal } | undefined {
    const tab = vscode.window.tabGroups.activeTabGroup.activeTab;
    const input = tab?.input;
    if (tab === undefined || !(input instanceof vscode.TabInputTextDiff)) return undefined;
    const proposal = this.#open.get(input.modified.toString());
    return proposal && { tab, proposal };
  }
}

const close = (tab: vscode.Tab): Thenable<boolean> => vscode.window.tabGroups.close(tab);

/** The document, if it is still as it was when the proposal was made. */
async function unchanged({ target, version }: Proposal): Promise<vscode.TextDocument | undefined> {
  const document = await vscode.workspace.openTextDocument(target);
  if (document.version === version) return document;
  void vscode.window.showWarningMessage(
    vscode.l10n.t('The file has changed since this proposal. Nothing was written. Apply the code again.'),
  );
  return undefined;
}

/** One edit that is undone at once, and touches only the lines that differ. */
async function apply(document: vscode.TextDocument, wanted: readonly Hunk[]): Promise<void> {
  const lines = linesOf(document.getText());
  const eol = document.eol === vscode.EndOfLine.CRLF ? '\r\n' : '\n';
  const edit = new vscode.WorkspaceEdit();
  for (const hunk of wanted) {
    const { start, end, text } = editOf(hunk, lines, eol);
    edit.replace(document.uri, new vscode.Range(start.line, start.character, end.line, end.character), text);
  }
  if (!(await vscode.workspace.applyEdit(edit))) throw new Error(vscode.l10n.t('VS Code could not change the file.'));
}

/** Never overwrites: the file may have come into being since. */
async function create(target: vscode.Uri, text: string): Promise<void> {
  const inside = await newFileUri(vscode.workspace.asRelativePath(target));
  const edit = new vscode.WorkspaceEdit();
  edit.createFile(target, { overwrite: false, ignoreIfExists: false, contents: new TextEncoder().encode(text) });
  if (inside === undefined || !(await vscode.workspace.applyEdit(edit)))
    throw new Error(vscode.l10n.t('{0} cannot be created; it may exist by now.', target.fsPath));
}

const isOf = (path: string, document: vscode.TextDocument): boolean =>
  vscode.workspace.asRelativePath(document.uri) === path;

/** The selection's lines, unless they have changed since. */
function stillThere({ firstLine, text }: Attachment, document: vscode.TextDocument): LineRange | undefined {
  const lines = text.split('\n');
  const range = { start: firstLine - 1, end: firstLine + lines.length - 2 };
  const now = document
    .getText()
    .split(/\r?\n/)
    .slice(range.start, range.end + 1);
  return now.join('\n') === text ? range : undefined;
}

function cursorLine(document: vscode.TextDocument): number {
  const editor = vscode.window.visibleTextEditors.find((shown) => shown.document === document);
  return editor === undefined ? document.lineCount : editor.selection.active.line + 1;
}

// The smallest edits that turn one text into another, so that breakpoints, folds and cursors around them stay. Pure.

/** Lines from 0; in the place of `removed` lines from `start` come `added`. */
interface Hunk {
  readonly start: number;
  readonly removed: number;
  readonly added: readonly string[];
  /** Where `added` is in the new text. */
  readonly newStart: number;
}

/** An edit as editors take it: from one character to another, end exclusive. */
export interface Edit {
  readonly start: Point;
  readonly end: Point;
  readonly text: string;
}

interface Point {
  readonly line: number;
  readonly character: number;
}

export const linesOf = (text: string): string[] => text.split(/\r?\n/);

/** In the order of the text; line ends do not count. */
export function hunks(before: string, after: string): Hunk[] {
  const found: Hunk[] = [];
  let [start, newStart, removed] = [0, 0, 0];
  let added: string[] = [];
  const close = () => {
    if (removed > 0 || added.length > 0) found.push({ start, removed, added, newStart });
    [start, newStart, removed, added] = [start + removed, newStart + added.length, 0, []];
  };
  for (const change of diffArrays(linesOf(before), linesOf(after))) {
    if (change.removed) removed += change.value.length;
    else if (change.added) added = [...added, ...change.value];
    else {
      close();
      start += change.value.length;
      newStart += change.value.length;
    }
  }
  close();
  return found;
}

/** @param lines of the text before; `eol` is its line end. */
export function editOf({ start, removed, added }: Hunk, lines: readonly string[], eol: string): Edit {
  const end = start + removed;
  if (end < lines.length) {
    const text = added.map((line) => line + eol).join('');
    return { start: { line: start, character: 0 }, end: { line: end, character: 0 }, text };
  }
  const last = { line: lines.length - 1, character: (lines.at(-1) ?? '').length };
  if (start === 0) return { start: { line: 0, character: 0 }, end: last, text: added.join(eol) };
  const before = { line: start - 1, character: (lines[start - 1] ?? '').length };
  return { start: before, end: last, text: added.map((line) => eol + line).join('') };
}

/** The hunk at a line, else the next one, else the last. `side`: which text the line is of. */
export function hunkAt(all: readonly Hunk[], line: number, side: 'before' | 'after'): Hunk | undefined {
  const endOf = (hunk: Hunk) =>
    side === 'before' ? hunk.start + Math.max(1, hunk.removed) : hunk.newStart + Math.max(1, hunk.added.length);
  return all.find((hunk) => line < endOf(hunk)) ?? all.at(-1);
}
