import * as vscode from 'vscode';

const shownKey = 'hearth.firstWindowShown';

/** The first window that `npm start` opens, once a profile: the chat and the walkthrough, and not VS Code's own chat, which asks for an account. */
export async function showFirstWindow(extension: string, memory: vscode.Memento): Promise<void> {
  if (process.env['HEARTH_FIRST_WINDOW'] !== '1' || memory.get(shownKey) === true) return;
  await memory.update(shownKey, true);
  await vscode.commands.executeCommand('workbench.action.closeAuxiliaryBar');
  await vscode.commands.executeCommand('workbench.action.openWalkthrough', `${extension}#start`, false);
  await vscode.commands.executeCommand('hearth.openChat');
}

/** Ticks a step of the walkthrough: it was done, not only looked at. */
export function done(step: 'hasModel' | 'hasAccepted' | 'hasAsked' | 'hasSummarised'): void {
  void vscode.commands.executeCommand('setContext', `hearth.${step}`, true);
}
