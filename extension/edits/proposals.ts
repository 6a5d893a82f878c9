import * as vscode from 'vscode';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { nameOf } from '../context/sources.ts';
import { uriOf } from '../context/workspace.ts';
import { type CodeBlock, codeBlock, newText, placed } from './drafts.ts';
import { editOf, type Hunk, hunkAt, hunks, linesOf, withHunks } from './hunks.ts';
import { chosenTarget, newFileUri, putIntoTerminal } from './target.ts';

export const proposalScheme = 'hearth-proposal';

/** Writes a proposal in place of `Proposals`. */
interface Owner {
  accept(): Promise<void>;
  /** `text`: the file with one hunk of the proposal applied. */
  acceptPart(text: string): Promise<void>;
  reject(): Promise<void>;
}

interface Proposal {
  target: vscode.Uri;
  /** Version of the document that it was made for; undefined: the file is new. */
  version: number | undefined;
  text: string;
  /** Title of the diff; absent: made from the file's name. */
  title?: string | undefined;
  /** Without an owner, accepting edits the document and leaves it unsaved. */
  owner?: Owner;
}

/**
 * Proposed changes, shown in VS Code's diff editor beside the current file. Nothing is written before the user accepts, and
 * accepting is an edit that can be undone.
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

  /** Shows the code of an answer as a change of its target file; asks for the file if it is unclear. */
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
        return this.#presentNew(target.path, block);
      case 'file':
        return this.#presentChange(target.path, block, attachments);
    }
  }

  /** Writes the proposal of the active diff editor into its file. */
  async accept(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    const { target, version, text, owner } = shown.proposal;
    if (owner !== undefined) return owner.accept();
    requireTrust();
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

  /** Writes the proposal's hunk at the cursor and leaves the others undecided. */
  async acceptHunk(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    const { proposal } = shown;
    if (proposal.version === undefined) return this.accept();
    requireTrust();
    const document = await unchanged(proposal);
    if (document === undefined) return;
    const editor = vscode.window.activeTextEditor;
    const side = editor?.document.uri.scheme === proposalScheme ? 'after' : 'before';
    const all = hunks(document.getText(), proposal.text);
    const hunk = hunkAt(all, editor?.selection.active.line ?? 0, side);
    if (proposal.owner !== undefined)
      await proposal.owner.acceptPart(withHunks(document.getText(), hunk ? [hunk] : []));
    else if (hunk !== undefined) await apply(document, [hunk]);
    if (all.length <= 1 && proposal.owner === undefined) await close(shown.tab);
    else proposal.version = document.version;
  }

  async reject(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    if (shown.proposal.owner === undefined) await close(shown.tab);
    else await shown.proposal.owner.reject();
  }

  /** Closes the diff of a proposal that was decided elsewhere. */
  async close(target: vscode.Uri): Promise<void> {
    for (const tab of vscode.window.tabGroups.all.flatMap(({ tabs }) => tabs)) {
      const { input } = tab;
      const proposal = input instanceof vscode.TabInputTextDiff ? this.#open.get(input.modified.toString()) : undefined;
      if (proposal?.owner !== undefined && proposal.target.toString() === target.toString()) await close(tab);
    }
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  /** Opens the diff of the current and the proposed file. */
  async present(proposal: Proposal): Promise<void> {
    const name = nameOf(proposal.target.path);
    const uri = vscode.Uri.from({ scheme: proposalScheme, path: proposal.target.path, query: String(this.#count++) });
    this.#open.set(uri.toString(), proposal);
    const isNew = proposal.version === undefined;
    const title = isNew ? vscode.l10n.t('{0}: new file', name) : vscode.l10n.t('{0}: proposed change', name);
    // No proposal has this URI, so its text is empty.
    const before = isNew ? uri.with({ query: 'empty' }) : proposal.target;
    await vscode.commands.executeCommand('vscode.diff', before, uri, proposal.title ?? title, { preview: false });
  }

  async #presentChange(path: string, block: CodeBlock, attachments: readonly Attachment[]): Promise<void> {
    const uri = await uriOf(path);
    // A file outside the workspace has its whole path.
    const document = await vscode.workspace.openTextDocument(uri ?? vscode.Uri.file(path));
    const text = await placed(document, document.getText(), block, attachments, this.#repository);
    if (text === undefined) {
      void vscode.window.showWarningMessage(
        vscode.l10n.t('The lines that this change replaces are not in {0}. Nothing was changed.', path),
      );
      return;
    }
    if (text === document.getText()) {
      void vscode.window.showInformationMessage(vscode.l10n.t('The file already contains this code.'));
      return;
    }
    await this.present({ target: document.uri, version: document.version, text });
  }

  async #presentNew(path: string, block: CodeBlock): Promise<void> {
    const target = await newFileUri(path);
    const text = newText(block);
    if (target === undefined || text === undefined) {
      void vscode.window.showWarningMessage(
        vscode.l10n.t('{0} is outside the open folder, so it was not created.', path),
      );
      return;
    }
    await this.present({ target, version: undefined, text });
  }

  #active(): { tab: vscode.Tab; proposal: Proposal } | undefined {
    const tab = vscode.window.tabGroups.activeTabGroup.activeTab;
    const input = tab?.input;
    if (tab === undefined || !(input instanceof vscode.TabInputTextDiff)) return undefined;
    const proposal = this.#open.get(input.modified.toString());
    return proposal && { tab, proposal };
  }
}

/** @throws Error in a workspace that the user does not trust. */
export function requireTrust(): void {
  if (!vscode.workspace.isTrusted)
    throw new Error(vscode.l10n.t('This folder is not trusted, so nothing was written. Trust it first.'));
}

const close = (tab: vscode.Tab): Thenable<boolean> => vscode.window.tabGroups.close(tab);

/** The document, if it has not changed since the proposal was made. */
async function unchanged({ target, version }: Proposal): Promise<vscode.TextDocument | undefined> {
  const document = await vscode.workspace.openTextDocument(target);
  if (document.version === version) return document;
  void vscode.window.showWarningMessage(
    vscode.l10n.t('The file has changed since this proposal. Nothing was written. Apply the code again.'),
  );
  return undefined;
}

/** Adds the edits of the lines that differ. */
export function addEdits(edit: vscode.WorkspaceEdit, document: vscode.TextDocument, wanted: readonly Hunk[]): void {
  const lines = linesOf(document.getText());
  const eol = document.eol === vscode.EndOfLine.CRLF ? '\r\n' : '\n';
  for (const hunk of wanted) {
    const { start, end, text } = editOf(hunk, lines, eol);
    edit.replace(document.uri, new vscode.Range(start.line, start.character, end.line, end.character), text);
  }
}

/** One edit that is undone at once. */
async function apply(document: vscode.TextDocument, wanted: readonly Hunk[]): Promise<void> {
  const edit = new vscode.WorkspaceEdit();
  addEdits(edit, document, wanted);
  if (!(await vscode.workspace.applyEdit(edit))) throw new Error(vscode.l10n.t('VS Code could not change the file.'));
}

/** Never overwrites: the file may have been created since. */
async function create(target: vscode.Uri, text: string): Promise<void> {
  const inside = await newFileUri(vscode.workspace.asRelativePath(target));
  const edit = new vscode.WorkspaceEdit();
  edit.createFile(target, { overwrite: false, ignoreIfExists: false, contents: new TextEncoder().encode(text) });
  if (inside === undefined || !(await vscode.workspace.applyEdit(edit)))
    throw new Error(vscode.l10n.t('{0} could not be created; it may already exist.', target.fsPath));
}
