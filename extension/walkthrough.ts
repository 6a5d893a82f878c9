import * as vscode from 'vscode';

/** Ticks a step of the walkthrough in package.json: it was done, not only looked at. */
export function tickStep(step: 'hasModel' | 'hasAccepted' | 'hasAsked' | 'hasSummarised'): void {
  void vscode.commands.executeCommand('setContext', `hearth.${step}`, true);
}

const firstWindowShown = 'hearth.firstWindowShown';

/** The first window that `npm start` opens, once a profile: the chat and the walkthrough, and not VS Code's own chat, which asks for an account. */
export async function showFirstWindow(extension: string, memory: vscode.Memento): Promise<void> {
  if (process.env['HEARTH_FIRST_WINDOW'] !== '1' || memory.get(firstWindowShown) === true) return;
  await memory.update(firstWindowShown, true);
  await vscode.commands.executeCommand('workbench.action.closeAuxiliaryBar');
  await vscode.commands.executeCommand('workbench.action.openWalkthrough', `${extension}#start`, false);
  await vscode.commands.executeCommand('hearth.openChat');
}
