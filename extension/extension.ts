import { join } from 'node:path';
import * as vscode from 'vscode';
import type { OpenParams } from '../engine/protocol/indexProtocol.ts';
import { isCancelled, sentence } from './client/failure.ts';
import { EngineHost } from './client/host.ts';
import type { TokenFor } from './client/modelLoader.ts';
import { commandTable } from './commands.ts';
import { CompletionContext } from './completion/context.ts';
import { CompletionProvider, WarmUp } from './completion/provider.ts';
import { Acceptance } from './completion/suggestions.ts';
import { ChangeSets } from './edits/changeSets.ts';
import { ChangeStore } from './edits/changeStore.ts';
import { InPlaceEdits } from './edits/inPlace.ts';
import { Proposals } from './edits/proposals.ts';
import { registerLanguageModels } from './languageModel/participant.ts';
import { limits } from './limits.ts';
import { FirstRun, showFirstWindow, tickStep } from './models/choose.ts';
import { ModelManager } from './models/manager.ts';
import { Foresight, NextEdit } from './nextEdit/nextEdit.ts';
import { LazyChat, type Parts } from './parts.ts';
import { RepositoryIndex, WorkspaceWatch, workspaceOptions } from './repository/repositoryIndex.ts';
import { Reviews } from './review/reviews.ts';
import { Remote, Server } from './servers.ts';
import {
  indexEmbeddings,
  modelsDirectory,
  networkEnvironment,
  networkSettings,
  serverSettings,
  sharesEngine,
  writeSetting,
} from './settings.ts';
import { IndexStatus, StatusBar } from './status.ts';
import { TaskActions } from './summarise.ts';
import { FailureWatch } from './terminal.ts';
import { Thinking } from './thinking.ts';

/** As package.json names the view; the editor tab's type is the same. */
const chatViewId = 'hearth.chat';

let running: { engine: EngineHost; index: RepositoryIndex; chat: LazyChat } | undefined;

/** Registers everything and starts nothing: the engine starts at the first keystroke or question. */
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
  const completion = new CompletionProvider(engine, log, nearby, new Acceptance(context.globalState), () =>
    firstRun.warmUp(),
  );
  const status = new StatusBar(engine, thinking, () => completion.state(vscode.window.activeTextEditor?.document));
  const proposals = new Proposals(index);
  const changes = createChanges(context, proposals, log);
  const inPlace = new InPlaceEdits(engine, log);
  const reviews = new Reviews(engine, log);
  const failures = new FailureWatch(log);
  const nextEdit = new NextEdit(new Foresight(engine, log));
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
    changes,
    inPlace,
    reviews,
    failures,
    status,
  };
  const chat = new LazyChat(parts);
  const warmUp = new WarmUp((token) => readAhead(completion, chat, token), log);
  running = { engine, index, chat };
  context.subscriptions.push(
    log,
    engine,
    server,
    thinking,
    models,
    status,
    index,
    proposals,
    inPlace,
    reviews,
    failures,
  );
  context.subscriptions.push(nearby, nextEdit, new IndexStatus(index), new WorkspaceWatch(index));
  context.subscriptions.push(
    warmUp,
    vscode.window.onDidChangeActiveTextEditor(() => {
      warmUp.moved();
      status.refresh();
    }),
    vscode.window.onDidChangeTextEditorSelection(({ kind }) => {
      // Typing moves the cursor too, but has kind Keyboard.
      const { Mouse, Command } = vscode.TextEditorSelectionChangeKind;
      if (kind === Mouse || kind === Command) warmUp.moved();
    }),
    vscode.workspace.onDidChangeTextDocument(({ document }) => {
      if (document === vscode.window.activeTextEditor?.document) warmUp.touch();
    }),
    vscode.languages.registerInlineCompletionItemProvider({ pattern: '**' }, completion),
    vscode.window.registerWebviewViewProvider(chatViewId, {
      resolveWebviewView: async (view) => (await chat.open()).view.pages.attach(view),
    }),
    // A tab that was open before the window was reloaded.
    vscode.window.registerWebviewPanelSerializer(chatViewId, {
      deserializeWebviewPanel: async (panel) => void (await chat.open()).view.pages.attachTab(panel),
    }),
    vscode.languages.registerCodeActionsProvider({ pattern: '**' }, new TaskActions()),
    registerLanguageModels(parts),
    engine.onView(() => status.refresh()),
    onceReady(engine, () => {
      warmUp.touch();
      tickStep('hasModel');
    }),
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

/** VS Code waits a few seconds for this. Stops the engine and writes the chat to disk. */
export async function deactivate(): Promise<void> {
  await Promise.all([running?.engine.stop(), running?.index.stop(), running?.chat.close()]);
  running = undefined;
}

/** Warm-up targets, most likely first: the cursor, the open conversation, other visible files. */
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

/** Runs each time a model becomes ready. */
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
  const { graceMs } = limits.engine;
  const launch = () => ({ entry, env: engineEnvironment(), ...(sharesEngine() && { shared: { graceMs } }) });
  return new EngineClient(launch, log, tokenFor);
}

function createIndex(context: vscode.ExtensionContext, log: vscode.LogOutputChannel): RepositoryIndex {
  const entry = context.asAbsolutePath(join('dist', 'indexer.mjs'));
  const create = async (options: () => OpenParams) => {
    const { IndexClient } = await import('./repository/indexClient.ts');
    return new IndexClient(() => ({ entry, env: engineEnvironment() }), log, options);
  };
  return new RepositoryIndex(create, () => workspaceOptions(context.storageUri), log);
}

function createChanges(
  context: vscode.ExtensionContext,
  proposals: Proposals,
  log: vscode.LogOutputChannel,
): ChangeSets {
  const folder = vscode.Uri.joinPath(context.storageUri ?? context.globalStorageUri, 'changes').fsPath;
  return new ChangeSets(new ChangeStore(folder, log), proposals, log);
}

/** Makes the index use this embedding model. Choosing the same model again retries. */
async function searchWith(index: RepositoryIndex, model: string): Promise<void> {
  if (indexEmbeddings() === model) await index.reopen();
  else await writeSetting('index.embeddings', model);
}

/**
 * Unless the user names a folder, models go where the command line keeps them too (engine/catalogue/files.ts), not into VS
 * Code's storage for extensions: a model of many gigabytes is on this computer only once.
 */
function engineEnvironment(): Record<string, string> {
  const folder = modelsDirectory();
  return { ...networkEnvironment(), ...(folder !== '' && { HEARTH_HOME: folder }) };
}

function registerCommands(parts: Parts, chat: LazyChat): void {
  for (const [name, run] of Object.entries(commandTable(parts, chat))) {
    parts.context.subscriptions.push(
      vscode.commands.registerCommand(name, async (...args: unknown[]) => {
        try {
          return await run(...args);
        } catch (error) {
          if (isCancelled(error)) return undefined;
          parts.log.error(`${name}: ${sentence(error)}`);
          void vscode.window.showErrorMessage(sentence(error));
          return undefined;
        }
      }),
    );
  }
}

const indexSettings = ['hearth.index.enabled', 'hearth.index.embeddings', 'files.exclude'];
const loadSettings = [
  'chat.model',
  'completion.model',
  'backend',
  'contextTokens',
  'threads',
  'cachePrecision',
  'cache.diskMegabytes',
  'remote.url',
  'remote.model',
].map((key) => `hearth.${key}`);
let reloading: NodeJS.Timeout | undefined;

/** Waits, because a server's address and model are two settings that are changed together. */
function reloadSoon(parts: Parts, report: (error: unknown) => void): void {
  clearTimeout(reloading);
  reloading = setTimeout(() => void parts.engine.current?.reload().catch(report), limits.remote.settleMs);
}

function onSettings(event: vscode.ConfigurationChangeEvent, parts: Parts): void {
  if (event.affectsConfiguration('hearth.server')) applyServer(parts);
  if (event.affectsConfiguration('hearth.completion')) parts.status.refresh();
  const report = (error: unknown) => parts.log.warn(`Applying a changed setting failed: ${sentence(error)}`);
  if (event.affectsConfiguration('hearth.modelsDirectory')) {
    parts.firstRun.again();
    // The process reads the folder from its environment.
    if (parts.engine.current) parts.engine.current.restart().catch(report);
    if (indexEmbeddings() !== '') parts.index.reopen().catch(report);
  } else if ([...networkSettings, 'hearth.shareEngine'].some((key) => event.affectsConfiguration(key))) {
    // The process reads these from its environment too.
    if (parts.engine.current) parts.engine.current.restart().catch(report);
  } else if (loadSettings.some((key) => event.affectsConfiguration(key))) {
    parts.firstRun.again();
    parts.completion.forget();
    reloadSoon(parts, report);
  } else if (indexSettings.some((key) => event.affectsConfiguration(key))) {
    parts.index.reopen().catch(report);
  }
}
