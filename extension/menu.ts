import * as vscode from 'vscode';
import type { EngineHost } from './client/host.ts';
import type { CompletionProvider } from './completion/provider.ts';
import type { RepositoryIndex } from './repository/repositoryIndex.ts';
import { indexSentence } from './repository/status.ts';
import { completionSettings, languageEnabled, writeSetting } from './settings.ts';
import { canThink, modeLabel, type Thinking } from './thinking.ts';

/** Menu of the status bar. */
export async function showMenu(
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

export async function toggleLanguage(): Promise<void> {
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  if (languageId === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open a file of the language first.'));
    return;
  }
  const { languages } = completionSettings();
  await writeSetting('completion.languages', { ...languages, [languageId]: !languageEnabled(languages, languageId) });
}
