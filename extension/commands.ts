import * as vscode from 'vscode';
import type { EngineHost } from './client/host.ts';
import { acceptedCommand, type CompletionProvider } from './completion/provider.ts';
import { describePullRequest, writeCommitMessage } from './describe.ts';
import { useInChat } from './languageModel/participant.ts';
import { tickStep } from './models/choose.ts';
import type { LazyChat, Parts } from './parts.ts';
import { suggestName } from './rename.ts';
import type { RepositoryIndex } from './repository/repositoryIndex.ts';
import { completionSettings, languageEnabled, writeSetting } from './settings.ts';
import { indexSentence, showIndexMenu } from './status.ts';
import { chosenFolder, prepareTask, summaryRequest, type Task, taskQuestion } from './summarise.ts';
import { failureQuestion } from './terminal.ts';
import { canThink, modeLabel, type Thinking } from './thinking.ts';

type CommandTable = Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** Every command by its id: those in package.json, and the one that VS Code runs after an accepted suggestion. */
export function commandTable(parts: Parts, chat: LazyChat): CommandTable {
  const { log, engine, remote, server, thinking, models, firstRun, completion, index, status } = parts;
  const show = async () => {
    const opened = await chat.open();
    await opened.view.pages.reveal();
    return opened;
  };
  const task = (name: Task) => async (range: unknown) => {
    const problems = await prepareTask(name, range instanceof vscode.Range ? range : undefined, index);
    await (await show()).view.ask(taskQuestion(name, problems));
  };
  return {
    'hearth.openChat': show,
    'hearth.openChatInEditor': async () => (await chat.open()).view.pages.openTab(),
    'hearth.newChat': async () => (await show()).session.startNew(),
    'hearth.chats': async () => (await chat.open()).list.show(),
    'hearth.renameChat': async () => (await chat.open()).list.renameCurrent(),
    'hearth.exportChat': async () => (await chat.open()).list.exportCurrent(),
    'hearth.stop': async () => (await chat.open()).session.stop(),
    'hearth.summariseFile': async (target) => {
      const request = await summaryRequest(target);
      if (request !== undefined) await (await show()).session.summarise(request);
    },
    'hearth.summariseFolder': async (target) => {
      const folder = target ?? (await chosenFolder());
      const request = folder === undefined ? undefined : await summaryRequest(folder);
      if (request !== undefined) await (await show()).session.summarise(request);
    },
    'hearth.explain': task('explain'),
    'hearth.fix': task('fix'),
    'hearth.tests': task('tests'),
    'hearth.document': task('document'),
    'hearth.commitMessage': (view) => writeCommitMessage(engine, view),
    'hearth.reviewChanges': (view) => parts.reviews.reviewChanges(view),
    'hearth.reviewBranch': (view) => parts.reviews.reviewBranch(view),
    'hearth.resolveComment': (thread) => parts.reviews.resolve(thread, true),
    'hearth.reopenComment': (thread) => parts.reviews.resolve(thread, false),
    'hearth.dismissComment': (thread) => parts.reviews.dismiss(thread),
    'hearth.clearReview': () => parts.reviews.clear(),
    'hearth.describePullRequest': (view) => describePullRequest(engine, view),
    'hearth.suggestName': () => suggestName(engine),
    'hearth.explainFailure': async () => {
      const question = failureQuestion(parts.failures);
      if (question !== undefined) await (await show()).view.ask(question);
    },
    'hearth.acceptProposal': () => parts.proposals.accept(),
    'hearth.acceptProposalHunk': () => parts.proposals.acceptHunk(),
    'hearth.rejectProposal': () => parts.proposals.reject(),
    'hearth.restoreChanges': () => parts.changes.chooseRestore(),
    'hearth.editInPlace': () => parts.inPlace.start(),
    'hearth.acceptEdit': (hunk) => parts.inPlace.decide('accept', hunk),
    'hearth.rejectEdit': (hunk) => parts.inPlace.decide('reject', hunk),
    'hearth.changeEdit': () => parts.inPlace.changeInstruction(),
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
    'hearth.setHubToken': () => remote.setHubToken(),
    'hearth.copyServerAddress': () => server.copyAddress(),
    'hearth.copyServerToken': () => server.copyToken(),
    'hearth.renewServerToken': () => server.renewToken(),
    'hearth.menu': () => showMenu(engine, thinking, completion, index),
    'hearth.toggleCompletions': () => {
      completion.paused = !completion.paused;
      status.refresh();
    },
    [acceptedCommand]: () => {
      tickStep('hasAccepted');
      return completion.accepted();
    },
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
    'hearth.openSettings': () => openSettings(`@ext:${parts.context.extension.id}`),
  };
}

/** Over a remote connection, machine settings are only in the remote settings list. */
function openSettings(query: string): Thenable<unknown> {
  const list = vscode.env.remoteName === undefined ? 'openSettings' : 'openRemoteSettings';
  return vscode.commands.executeCommand(`workbench.action.${list}`, { query });
}

function answerNow(engine: EngineHost): void {
  if (engine.current?.answerNow()) return;
  void vscode.window.showInformationMessage(vscode.l10n.t('No answer is being written.'));
}

async function clearCache(engine: EngineHost): Promise<void> {
  const { files, bytes } = await (await engine.client()).clearCache();
  void vscode.window.showInformationMessage(
    vscode.l10n.t('Cache cleared. Removed {0} prompts ({1} MB) from the disk.', files, Math.ceil(bytes / 1e6)),
  );
}

/** Menu of the status bar. */
async function showMenu(
  engine: EngineHost,
  thinking: Thinking,
  completion: CompletionProvider,
  index: RepositoryIndex,
): Promise<void> {
  const { state } = engine.view;
  const card = state.kind === 'ready' ? state.card : undefined;
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  const items: (vscode.QuickPickItem & { command?: string })[] = [
    { label: `$(comment-discussion) ${vscode.l10n.t('Open chat')}`, command: 'hearth.openChat' },
    {
      label: `$(database) ${vscode.l10n.t('Choose a model…')}`,
      ...(card === undefined ? {} : { description: card.name }),
      command: 'hearth.chooseModel',
    },
    ...(card !== undefined && canThink(card.thinkingModes)
      ? [
          {
            label: `$(lightbulb) ${vscode.l10n.t('Thinking…')}`,
            description: modeLabel(thinking.mode(card)),
            command: 'hearth.thinking',
          },
        ]
      : []),
    {
      label: completion.paused
        ? `$(debug-start) ${vscode.l10n.t('Resume completions')}`
        : `$(debug-pause) ${vscode.l10n.t('Pause completions')}`,
      command: 'hearth.toggleCompletions',
    },
    ...(languageId === undefined ? [] : [languageItem(languageId)]),
    {
      label: `$(search) ${vscode.l10n.t('Repository index…')}`,
      description: indexSentence(index.view),
      command: 'hearth.indexMenu',
    },
    { label: '', kind: vscode.QuickPickItemKind.Separator },
    { label: `$(debug-restart) ${vscode.l10n.t('Restart the engine')}`, command: 'hearth.restartEngine' },
    { label: `$(output) ${vscode.l10n.t('Show log')}`, command: 'hearth.showLog' },
    { label: `$(settings-gear) ${vscode.l10n.t('Settings')}`, command: 'hearth.openSettings' },
  ];
  const chosen = await vscode.window.showQuickPick(items, { title: 'Hearth' });
  if (chosen?.command !== undefined) await vscode.commands.executeCommand(chosen.command);
}

function languageItem(languageId: string): vscode.QuickPickItem & { command: string } {
  const on = languageEnabled(completionSettings().languages, languageId);
  return {
    label: on
      ? `$(circle-slash) ${vscode.l10n.t('Turn off completions in {0}', languageId)}`
      : `$(check) ${vscode.l10n.t('Turn on completions in {0}', languageId)}`,
    command: 'hearth.toggleLanguage',
  };
}

async function toggleLanguage(): Promise<void> {
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  if (languageId === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open a file of the language first.'));
    return;
  }
  const { languages } = completionSettings();
  await writeSetting('completion.languages', { ...languages, [languageId]: !languageEnabled(languages, languageId) });
}
