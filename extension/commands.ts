/** The commands. */
import * as vscode from 'vscode';
import type { EngineHost } from './client/host.ts';
import { writeCommitMessage } from './commit.ts';
import { acceptedCommand } from './completion/provider.ts';
import { useInChat } from './languageModel/register.ts';
import { showMenu, toggleLanguage } from './menu.ts';
import type { LazyChat, Parts } from './parts.ts';
import { showIndexMenu } from './repository/status.ts';
import { chosenFolder, summaryRequest } from './summarise.ts';
import { prepareTask, type Task, taskQuestion } from './tasks.ts';
import { done } from './walkthrough.ts';

export type CommandTable = Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** Every command that package.json declares, by its id. */
export function commandTable(parts: Parts, chat: LazyChat): CommandTable {
  const { log, engine, remote, server, thinking, models, firstRun, completion, index, status } = parts;
  const show = async () => {
    await vscode.commands.executeCommand('hearth.chat.focus');
    const opened = await chat.open();
    opened.view.focusInput();
    return opened;
  };
  const task = (name: Task) => async (range: unknown) => {
    const problems = await prepareTask(name, range instanceof vscode.Range ? range : undefined, index);
    await (await show()).view.ask(taskQuestion(name, problems));
  };
  return {
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
      const folder = target ?? (await chosenFolder());
      const request = folder === undefined ? undefined : await summaryRequest(folder);
      if (request !== undefined) await (await show()).session.summarise(request);
    },
    'hearth.explain': task('explain'),
    'hearth.fix': task('fix'),
    'hearth.tests': task('tests'),
    'hearth.document': task('document'),
    'hearth.commitMessage': (view) => writeCommitMessage(engine, view),
    'hearth.acceptProposal': () => parts.proposals.accept(),
    'hearth.acceptProposalHunk': () => parts.proposals.acceptHunk(),
    'hearth.rejectProposal': () => parts.proposals.reject(),
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
      done('hasAccepted');
      return completion.computeAhead(vscode.window.activeTextEditor);
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

/** Over a remote connection the machine's settings are only in that machine's list. */
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
