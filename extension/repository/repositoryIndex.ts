import { join } from 'node:path';
import * as vscode from 'vscode';
import type { CancellationToken } from 'vscode-jsonrpc/node';
import type {
  IndexState,
  MapParams,
  OpenParams,
  Passage,
  RepositoryMap,
  SymbolPlace,
} from '../../engine/protocol/indexProtocol.ts';
import { EngineFailure, sentence } from '../client/failure.ts';
import type { ProcessState } from '../client/process.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { indexEmbeddings, indexEnabled } from '../settings.ts';
import type { IndexClient } from './indexClient.ts';

export type IndexView =
  /** Why there is no index, as a sentence. */
  | { kind: 'off'; reason: string }
  /** Not needed yet, or starting. */
  | { kind: 'starting' }
  | { kind: 'open'; state: IndexState }
  | { kind: 'failed'; message: string };

/**
 * The index of the workspace as the rest of the extension sees it. Its process starts at the first question, or some seconds
 * after the window opened, and restarts after a crash. Without an index every result is empty, and `view` says why.
 */
export class RepositoryIndex {
  readonly #create: (options: () => OpenParams) => Promise<IndexClient>;
  readonly #options: () => OpenParams | string;
  readonly #log: Log;
  readonly #changed = new vscode.EventEmitter<IndexView>();
  readonly onView = this.#changed.event;
  #opening: Promise<IndexClient> | undefined;
  #opened: IndexClient | undefined;
  #current: IndexView = { kind: 'starting' };
  #paused = false;

  /**
   * `create` is called when the index is first needed; `options` says what to index, or why nothing is, at each start of the
   * process.
   */
  constructor(
    create: (options: () => OpenParams) => Promise<IndexClient>,
    options: () => OpenParams | string,
    log: Log,
  ) {
    this.#create = create;
    this.#options = options;
    this.#log = log;
  }

  get view(): IndexView {
    const options = this.#options();
    return typeof options === 'string' ? { kind: 'off', reason: options } : this.#current;
  }

  /** Whether the index answers. */
  get available(): boolean {
    const { kind } = this.view;
    return kind !== 'off' && kind !== 'failed';
  }

  get isPaused(): boolean {
    return this.#paused;
  }

  get pid(): number | undefined {
    return this.#opened?.pid;
  }

  /** Chunks that share a question's words, best first; at most three of one file. */
  search(question: string, limit: number, token?: CancellationToken): Promise<Passage[]> {
    return this.#ask(({ search }) => search({ question, limit }, token), []);
  }

  /** Like `search`, plus embedding search if an embedding model is set. Embeds the question first. */
  searchByMeaning(question: string, limit: number, token?: CancellationToken): Promise<Passage[]> {
    return this.#ask(({ search }) => search({ question, limit, meaning: true }, token), []);
  }

  /** For suggestions while typing: exact names first, then names with that prefix, then names with these words. */
  symbols(name: string, limit: number, token?: CancellationToken): Promise<SymbolPlace[]> {
    return this.#ask(({ symbols }) => symbols({ name, limit }, token), []);
  }

  /** Symbols that a file defines, in line order. */
  outline(path: string, token?: CancellationToken): Promise<SymbolPlace[]> {
    return this.#ask(({ outline }) => outline({ path }, token), []);
  }

  map(params: MapParams, token?: CancellationToken): Promise<RepositoryMap> {
    return this.#ask(({ map }) => map(params, token), { text: '', files: 0, ofFiles: 0 });
  }

  /** Starts the process if there is something to index. */
  start(): void {
    if (this.available) this.#report(this.#client().then((client) => client.start()));
  }

  /** Files that changed on disk. If no process runs, the next start finds them; a scan in progress may have passed them already. */
  update(paths: string[]): void {
    if (this.#opened?.isStarted) this.#report(this.#opened.requests.update({ paths }));
  }

  /** Compares everything with the disk, for example after a branch switch. */
  rescan(): void {
    if (this.#opened?.isStarted) this.#report(this.#opened.requests.rescan());
  }

  async setPaused(paused: boolean): Promise<void> {
    this.#paused = paused;
    const client = this.#opened;
    if (client?.isRunning) await (paused ? client.requests.pause() : client.requests.resume());
  }

  /** Deletes the index and builds it again, in a new process if the last one failed. */
  async rebuild(): Promise<void> {
    const { view } = this;
    if (view.kind === 'off') throw new EngineFailure('unavailable', view.reason);
    this.#paused = false;
    const client = await this.#client();
    if (view.kind === 'failed') await client.restart();
    await client.rebuild();
  }

  /** After changed folders, settings or trust. */
  async reopen(): Promise<void> {
    await this.#opened?.stop();
    this.#show({ kind: 'starting' });
    this.start();
  }

  async stop(): Promise<void> {
    await this.#opened?.stop();
  }

  dispose(): void {
    this.#opened?.dispose();
    this.#changed.dispose();
  }

  #client(): Promise<IndexClient> {
    this.#opening ??= this.#create(() => this.#openParams()).then((client) => {
      this.#opened = client;
      client.onIndexState((state) => this.#show({ kind: 'open', state }));
      client.onProcessState((state) => this.#onProcess(client, state));
      return client;
    });
    return this.#opening;
  }

  #openParams(): OpenParams {
    const options = this.#options();
    if (typeof options === 'string') throw new EngineFailure('unsupported', options);
    return options;
  }

  async #ask<Result>(run: (index: IndexClient['requests']) => Promise<Result>, none: Result): Promise<Result> {
    if (!this.available) return none;
    try {
      return await run((await this.#client()).requests);
    } catch (error) {
      // The question continues without the index. `view` shows its state.
      if (!(error instanceof EngineFailure) || !absent.has(error.code)) throw error;
      return none;
    }
  }

  #report(request: Promise<unknown>): void {
    request.catch((error: unknown) => this.#log.warn(`Index: ${sentence(error)}`));
  }

  #onProcess(client: IndexClient, state: ProcessState): void {
    if (state.kind === 'failed') this.#show({ kind: 'failed', message: state.message });
    else if (state.kind === 'starting' || state.kind === 'waiting') this.#show({ kind: 'starting' });
    else if (state.kind === 'running' && this.#paused) this.#report(client.requests.pause());
  }

  #show(view: IndexView): void {
    this.#current = view;
    this.#changed.fire(this.view);
  }
}

const absent: ReadonlySet<string> = new Set(['engine-ended', 'engine-given-up', 'unsupported']);

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
    // As in the paths of `asRelativePath`.
    folders: folders.map(({ name, uri }) => ({ name: several ? name : '', directory: uri.fsPath })),
    excludes: excludedGlobs(),
    ...(embeddings !== '' && { embeddings: { model: embeddings } }),
  };
}

/** Excludes without a condition. */
function excludedGlobs(): string[] {
  const excludes = vscode.workspace.getConfiguration('files').get<Record<string, unknown>>('exclude', {});
  return Object.keys(excludes).filter((glob) => excludes[glob] === true);
}

/** Reports changes on disk to the index, a moment after the first one, so that a build is one message. */
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
    // The first question starts it earlier.
    this.#timer = setTimeout(() => index.start(), limits.index.startMs);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #note(uri: vscode.Uri): void {
    if (uri.scheme !== 'file' || vscode.workspace.getWorkspaceFolder(uri) === undefined) return;
    const path = vscode.workspace.asRelativePath(uri);
    // A branch switch; nothing else inside `.git` is source.
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
