import { join } from 'node:path';
import * as vscode from 'vscode';
import type { OpenParams } from '../engine/repository/protocol.ts';
import type { Chat } from './chat/chat.ts';
import type { TokenFor } from './client/client.ts';
import { isCancelled, sentence } from './client/failure.ts';
import { EngineHost } from './client/host.ts';
import { writeCommitMessage } from './commit.ts';
import { CompletionContext } from './completion/context.ts';
import { acceptedCommand, CompletionProvider } from './completion/provider.ts';
import { WarmUp } from './completion/warmUp.ts';
import { Proposals } from './edits/proposals.ts';
import { registerLanguageModels, useInChat } from './languageModel/register.ts';
import { limits } from './limits.ts';
import { showMenu, toggleLanguage } from './menu.ts';
import { FirstRun } from './models/firstRun.ts';
import { ModelManager } from './models/manager.ts';
import { NextEdit } from './nextEdit/nextEdit.ts';
import { Remote } from './remote.ts';
import { RepositoryIndex } from './repository/repositoryIndex.ts';
import { IndexStatus, showIndexMenu } from './repository/status.ts';
import { WorkspaceWatch, workspaceOptions } from './repository/workspace.ts';
import { Server } from './server.ts';
import { indexEmbeddings, modelsDirectory, serverSettings, writeSetting } from './settings.ts';
import { StatusBar } from './status.ts';
import { summaryRequest } from './summarise.ts';
import { prepareTask, type Task, TaskActions, taskQuestion } from './tasks.ts';
import { Thinking } from './thinking.ts';
import { showFirstWindow } from './welcome.ts';

const chatViewId = 'hearth.chat';

interface Parts {
  context: vscode.ExtensionContext;
  log: vscode.LogOutputChannel;
  engine: EngineHost;
  remote: Remote;
  server: Server;
  thinking: Thinking;
  models: ModelManager;
  firstRun: FirstRun;
  completion: CompletionProvider;
  index: RepositoryIndex;
  nextEdit: NextEdit;
  proposals: Proposals;
  status: StatusBar;
}

let running: { engine: EngineHost; index: RepositoryIndex; chat: LazyChat } | undefined;

/** Registers everything and starts nothing: the engine comes with the first key or question. */
export function activate(context: vscode.ExtensionContext): void {
  const log = vscode.window.createOutputChannel('Hearth', { log: true });
  const engine = new EngineHost(() => createClient(context, log, (url) => remote.token(url)));
  const remote = new Remote(context.secrets, engine);
  const server = new Server(context.secrets, engine, log);
  const thinking = new Thinking(context.globalState, engine);
  const index = createIndex(context, log);
  const models = new ModelManager(engine, (model) => searchWith(index, model));
  const firstRun = new FirstRun(engine, models, context.globalState, log);
  const nearby = new CompletionContext(index, log);
  const completion = new CompletionProvider(engine, log, nearby, () => firstRun.warmUp());
  const status = new StatusBar(engine, thinking, () => completion.paused);
  const proposals = new Proposals(index);
  const nextEdit = new NextEdit();
  const parts: Parts = {
    context,
    log,
    engine,
    remote,
    server,
    thinking,
    models,
    firstRun,
    completion,
    index,
    nextEdit,
    proposals,
    status,
  };
  const chat = new LazyChat(parts);
  const warmUp = new WarmUp((token) => readAhead(completion, chat, token), log);
  running = { engine, index, chat };
  context.subscriptions.push(log, engine, server, thinking, status, index, proposals);
  context.subscriptions.push(nearby, nextEdit, new IndexStatus(index), new WorkspaceWatch(index));
  context.subscriptions.push(
    warmUp,
    vscode.window.onDidChangeActiveTextEditor(() => warmUp.touch()),
    vscode.workspace.onDidChangeTextDocument(({ document }) => {
      if (document === vscode.window.activeTextEditor?.document) warmUp.touch();
    }),
    vscode.languages.registerInlineCompletionItemProvider({ pattern: '**' }, completion),
    vscode.window.registerWebviewViewProvider(chatViewId, {
      resolveWebviewView: async (view) => (await chat.open()).view.attach(view),
    }),
    vscode.languages.registerCodeActionsProvider({ pattern: '**' }, new TaskActions()),
    registerLanguageModels(parts),
    engine.onView(() => status.refresh()),
    onceReady(engine, () => warmUp.touch()),
    thinking.onChange(() => status.refresh()),
    vscode.workspace.onDidChangeConfiguration((event) => onSettings(event, parts)),
  );
  registerCommands(parts, chat);
  if (serverSettings() !== undefined) applyServer(parts);
  showFirstWindow(context.extension.id, context.globalState).then(undefined, (error: unknown) =>
    log.warn(`The first window: ${sentence(error)}`),
  );
}

function applyServer({ server, log }: Parts): void {
  server.apply().catch((error: unknown) => log.warn(`The server was not started: ${sentence(error)}`));
}

/** VS Code waits a few seconds for this: the engine ends with the window, and the last words reach the disk. */
export async function deactivate(): Promise<void> {
  await Promise.all([running?.engine.stop(), running?.index.stop(), running?.chat.close()]);
  running = undefined;
}

/** What is asked about next, most likely first: the place of the cursor, the open conversation, the other files in view. */
async function readAhead(
  completion: CompletionProvider,
  chat: LazyChat,
  token: vscode.CancellationToken,
): Promise<void> {
  const { activeTextEditor, visibleTextEditors } = vscode.window;
  await completion.warm(activeTextEditor, token);
  await chat.warm(token);
  for (const editor of visibleTextEditors) if (editor !== activeTextEditor) await completion.warm(editor, token);
}

/** Each time that a model becomes ready. */
function onceReady(engine: EngineHost, run: () => void): vscode.Disposable {
  let wasReady = false;
  return engine.onView(({ state }) => {
    const isReady = state.kind === 'ready';
    if (isReady && !wasReady) run();
    wasReady = isReady;
  });
}

async function createClient(context: vscode.ExtensionContext, log: vscode.LogOutputChannel, tokenFor: TokenFor) {
  const { EngineClient } = await import('./client/client.ts');
  const entry = context.asAbsolutePath(join('dist', 'engine.mjs'));
  return new EngineClient(() => ({ entry, env: engineEnvironment() }), log, tokenFor);
}

function createIndex(context: vscode.ExtensionContext, log: vscode.LogOutputChannel): RepositoryIndex {
  const entry = context.asAbsolutePath(join('dist', 'indexer.mjs'));
  const create = async (options: () => OpenParams) => {
    const { IndexClient } = await import('./repository/indexClient.ts');
    return new IndexClient(() => ({ entry, env: engineEnvironment() }), log, options);
  };
  return new RepositoryIndex(create, () => workspaceOptions(context.storageUri), log);
}

/** The index takes this embedding model; chosen once more, it tries again. */
async function searchWith(index: RepositoryIndex, model: string): Promise<void> {
  if (indexEmbeddings() === model) await index.reopen();
  else await writeSetting('index.embeddings', model);
}

/**
 * Unless the user names a folder, models are where the engine keeps them for the command line too (engine/store), and
 * not in VS Code's storage for extensions: a model of many gigabytes is on this computer once, for every editor.
 */
function engineEnvironment(): Record<string, string> {
  const folder = modelsDirectory();
  return folder === '' ? {} : { HEARTH_HOME: folder };
}

/** The chat, made when the view is first shown or a command needs it. */
class LazyChat {
  private readonly parts: Parts;
  private opening: Promise<Chat> | undefined;

  constructor(parts: Parts) {
    this.parts = parts;
  }

  /** What the engine is to read of the conversation, where there is one on screen. */
  async warm(token: vscode.CancellationToken): Promise<void> {
    await (await this.opening)?.session.warm(token);
  }

  open(): Promise<Chat> {
    this.opening ??= import('./chat/chat.ts').then(({ Chat }) => Chat.open(this.parts));
    return this.opening;
  }

  async close(): Promise<void> {
    const chat = await this.opening;
    this.opening = undefined;
    await chat?.close();
  }
}

function registerCommands(parts: Parts, chat: LazyChat): void {
  const { context, log, engine, remote, server, thinking, models, firstRun, completion, index, status } = parts;
  const show = async () => {
    await vscode.commands.executeCommand(`${chatViewId}.focus`);
    const opened = await chat.open();
    opened.view.focusInput();
    return opened;
  };
  const task = (name: Task) => async (range: unknown) => {
    const problems = await prepareTask(name, range instanceof vscode.Range ? range : undefined, index);
    await (await show()).view.ask(taskQuestion(name, problems));
  };
  const commands: Record<string, (...args: unknown[]) => unknown> = {
    'hearth.openChat': show,
    'hearth.newChat': async () => (await show()).session.startNew(),
    'hearth.chats': async () => (await chat.open()).sessions.show(),
    'hearth.renameChat': async () => (await chat.open()).sessions.renameCurrent(),
    'hearth.exportChat': async () => (await chat.open()).sessions.exportCurrent(),
    'hearth.stop': async () => (await chat.open()).session.stop(),
    'hearth.summariseFile': async (target) => {
      const request = await summaryRequest(target);
      if (request !== undefined) await (await show()).session.summarise(request);
    },
    'hearth.summariseFolder': async (target) => {
      const folder = target ?? vscode.workspace.workspaceFolders?.[0]?.uri;
      const request = folder === undefined ? undefined : await summaryRequest(folder);
      if (request !== undefined) await (await show()).session.summarise(request);
    },
    'hearth.explain': task('explain'),
    'hearth.fix': task('fix'),
    'hearth.tests': task('tests'),
    'hearth.document': task('document'),
    'hearth.commitMessage': (view) => writeCommitMessage(engine, view),
    'hearth.acceptProposal': () => parts.proposals.accept(),
    'hearth.rejectProposal': () => parts.proposals.reject(),
    'hearth.addToChat': async () => (await show()).tracker.add(),
    'hearth.thinking': () => thinking.pick(),
    'hearth.answerNow': async () => answerNow(engine),
    'hearth.useInChat': () => useInChat(log),
    'hearth.chooseModel': () => models.open(),
    'hearth.connectRemote': () => remote.connect(),
    'hearth.disconnectRemote': () => remote.disconnect(),
    'hearth.chooseRemoteModel': () => remote.chooseModel(),
    'hearth.setRemoteToken': () => remote.setToken(),
    'hearth.clearRemoteToken': () => remote.clearToken(),
    'hearth.copyServerAddress': () => server.copyAddress(),
    'hearth.copyServerToken': () => server.copyToken(),
    'hearth.renewServerToken': () => server.renewToken(),
    'hearth.menu': () => showMenu(engine, thinking, completion, index),
    'hearth.toggleCompletions': () => {
      completion.paused = !completion.paused;
      status.refresh();
    },
    [acceptedCommand]: () => completion.computeAhead(vscode.window.activeTextEditor),
    'hearth.acceptNextEdit': () => parts.nextEdit.accept(),
    'hearth.dismissNextEdit': () => parts.nextEdit.dismiss(),
    'hearth.toggleLanguage': toggleLanguage,
    'hearth.indexMenu': () => showIndexMenu(index),
    'hearth.pauseIndex': () => index.setPaused(!index.isPaused),
    'hearth.rebuildIndex': () => index.rebuild(),
    'hearth.restartEngine': async () => {
      firstRun.again();
      await (await engine.client()).restart();
    },
    'hearth.clearCache': () => clearCache(engine),
    'hearth.showLog': () => log.show(),
    'hearth.openSettings': () =>
      vscode.commands.executeCommand('workbench.action.openSettings', `@ext:${context.extension.id}`),
  };
  for (const [name, run] of Object.entries(commands)) {
    context.subscriptions.push(
      vscode.commands.registerCommand(name, async (...args: unknown[]) => {
        try {
          return await run(...args);
        } catch (error) {
          if (isCancelled(error)) return undefined;
          log.error(`${name}: ${sentence(error)}`);
          void vscode.window.showErrorMessage(sentence(error));
          return undefined;
        }
      }),
    );
  }
}

function answerNow(engine: EngineHost): void {
  if (engine.current?.answerNow()) return;
  void vscode.window.showInformationMessage(vscode.l10n.t('No answer is being written.'));
}

async function clearCache(engine: EngineHost): Promise<void> {
  const { files, bytes } = await (await engine.client()).clearCache();
  void vscode.window.showInformationMessage(
    vscode.l10n.t(
      'The cache is empty. {0} prompts with {1} MB were removed from the disk.',
      files,
      Math.ceil(bytes / 1e6),
    ),
  );
}

const indexSettings = ['hearth.index.enabled', 'hearth.index.embeddings', 'files.exclude'];
const loadSettings = [
  'model',
  'backend',
  'contextTokens',
  'threads',
  'cachePrecision',
  'cache.diskMegabytes',
  'remote.url',
  'remote.model',
].map((key) => `hearth.${key}`);
let reloading: NodeJS.Timeout | undefined;

/** The address and the model of a server are two settings and one wish. */
function reloadSoon(parts: Parts, report: (error: unknown) => void): void {
  clearTimeout(reloading);
  reloading = setTimeout(() => void parts.engine.current?.reload().catch(report), limits.remote.settleMs);
}

function onSettings(event: vscode.ConfigurationChangeEvent, parts: Parts): void {
  if (event.affectsConfiguration('hearth.server')) applyServer(parts);
  const report = (error: unknown) => parts.log.warn(`After a changed setting: ${sentence(error)}`);
  if (event.affectsConfiguration('hearth.modelsDirectory')) {
    parts.firstRun.again();
    // The process has the folder from its environment.
    if (parts.engine.current) parts.engine.current.restart().catch(report);
    if (indexEmbeddings() !== '') parts.index.reopen().catch(report);
  } else if (loadSettings.some((key) => event.affectsConfiguration(key))) {
    parts.firstRun.again();
    parts.completion.forget();
    reloadSoon(parts, report);
  } else if (indexSettings.some((key) => event.affectsConfiguration(key))) {
    parts.index.reopen().catch(report);
  }
}
