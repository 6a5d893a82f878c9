import * as vscode from 'vscode';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { nameOf } from '../context/sources.ts';
import { documentSymbols, uriOf } from '../context/workspace.ts';
import { type LineRange, place } from './placement.ts';

export const proposalScheme = 'hearth-proposal';

interface Proposal {
  target: vscode.Uri;
  /** Version of the document that it was made for. */
  version: number;
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

  /** Shows the code of an answer where it belongs in the file that the question was about. */
  async show(code: string, attachments: readonly Attachment[]): Promise<void> {
    const document = await targetOf(attachments);
    if (document === undefined) {
      void vscode.window.showInformationMessage(vscode.l10n.t('Open the file that the code belongs to.'));
      return;
    }
    const selected = attachments.find(({ id, path }) => id.startsWith('selection:') && isOf(path, document));
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

  /** Writes the proposal of the active diff editor into its file. */
  async accept(): Promise<void> {
    const shown = this.#active();
    if (shown === undefined) return;
    const { target, version, text } = shown.proposal;
    const document = await vscode.workspace.openTextDocument(target);
    if (document.version !== version) {
      void vscode.window.showWarningMessage(
        vscode.l10n.t('The file has changed since this proposal. Nothing was written. Apply the code again.'),
      );
      return;
    }
    const all = new vscode.Range(new vscode.Position(0, 0), document.lineAt(document.lineCount - 1).range.end);
    const edit = new vscode.WorkspaceEdit();
    edit.replace(target, all, text);
    if (!(await vscode.workspace.applyEdit(edit))) throw new Error(vscode.l10n.t('VS Code could not change the file.'));
    await close(shown.tab);
    await vscode.window.showTextDocument(document);
  }

  async reject(): Promise<void> {
    const shown = this.#active();
    if (shown !== undefined) await close(shown.tab);
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  async #present(proposal: Proposal): Promise<void> {
    const name = nameOf(proposal.target.path);
    const uri = vscode.Uri.from({ scheme: proposalScheme, path: proposal.target.path, query: String(this.#count++) });
    this.#open.set(uri.toString(), proposal);
    const title = vscode.l10n.t('{0}: proposed change', name);
    await vscode.commands.executeCommand('vscode.diff', proposal.target, uri, title, { preview: false });
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

/** The file that went with the question, else the one in the editor. */
async function targetOf(attachments: readonly Attachment[]): Promise<vscode.TextDocument | undefined> {
  const shown = vscode.window.visibleTextEditors.find(({ document }) => document.uri.scheme === 'file');
  const editor = vscode.window.activeTextEditor ?? shown;
  const attached = attachments.find(({ id, firstLine }) => firstLine > 0 && !id.startsWith('found:'));
  const uri = attached === undefined ? editor?.document.uri : await uriOf(attached.path);
  return uri === undefined || uri.scheme === proposalScheme ? undefined : vscode.workspace.openTextDocument(uri);
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
