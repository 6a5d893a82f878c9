import { join } from 'node:path';
import * as vscode from 'vscode';
import type { OpenParams } from '../../engine/protocol/indexProtocol.ts';
import { limits } from '../limits.ts';
import { indexEmbeddings, indexEnabled } from '../settings.ts';
import type { RepositoryIndex } from './repositoryIndex.ts';

/** Index options of this window, or why there is no index, as a sentence. */
export function workspaceOptions(storage: vscode.Uri | undefined): OpenParams | string {
  if (!indexEnabled()) return vscode.l10n.t('The repository index is turned off in the settings.');
  if (!vscode.workspace.isTrusted) return vscode.l10n.t('Hearth does not index this folder because it is not trusted.');
  const folders = (vscode.workspace.workspaceFolders ?? []).filter(({ uri }) => uri.scheme === 'file');
  if (folders.length === 0 || storage === undefined)
    return vscode.l10n.t('Hearth indexes local folders only, and none is open.');
  const embeddings = indexEmbeddings();
  const several = (vscode.workspace.workspaceFolders ?? []).length > 1;
  return {
    database: join(storage.fsPath, 'index', 'index.db'),
    // The names that `asRelativePath` gives to files.
    folders: folders.map(({ name, uri }) => ({ name: several ? name : '', directory: uri.fsPath })),
    excludes: excludedGlobs(),
    ...(embeddings !== '' && { embeddings: { model: embeddings } }),
  };
}

/** Unconditional excludes. */
function excludedGlobs(): string[] {
  const excludes = vscode.workspace.getConfiguration('files').get<Record<string, unknown>>('exclude', {});
  return Object.keys(excludes).filter((glob) => excludes[glob] === true);
}

/** Tells the index what changes on disk, a while after the first change, so that a build is told in one message. */
export class WorkspaceWatch {
  readonly #index: RepositoryIndex;
  readonly #paths = new Set<string>();
  readonly #subscriptions: vscode.Disposable[];
  #timer: NodeJS.Timeout | undefined;

  constructor(index: RepositoryIndex) {
    this.#index = index;
    const watcher = vscode.workspace.createFileSystemWatcher('**/*');
    const note = (uri: vscode.Uri) => this.#note(uri);
    this.#subscriptions = [
      watcher,
      watcher.onDidCreate(note),
      watcher.onDidChange(note),
      watcher.onDidDelete(note),
      vscode.workspace.onDidSaveTextDocument(({ uri }) => this.#note(uri)),
      vscode.workspace.onDidChangeWorkspaceFolders(() => void index.reopen()),
      vscode.workspace.onDidGrantWorkspaceTrust(() => index.start()),
    ];
    // Whoever asks first starts it; else it waits until the window has settled.
    this.#timer = setTimeout(() => index.start(), limits.index.startMs);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #note(uri: vscode.Uri): void {
    if (uri.scheme !== 'file' || vscode.workspace.getWorkspaceFolder(uri) === undefined) return;
    const path = vscode.workspace.asRelativePath(uri);
    // A switch of branches; nothing else inside is source.
    if (/(^|\/)\.git\/HEAD$/.test(path)) this.#index.rescan();
    if (/(^|\/)(\.git|node_modules)(\/|$)/.test(path)) return;
    if (this.#paths.size === 0) this.#timer = setTimeout(() => this.#tell(), limits.index.settleMs);
    this.#paths.add(path);
  }

  #tell(): void {
    const paths = [...this.#paths];
    this.#paths.clear();
    this.#index.update(paths);
  }
}
