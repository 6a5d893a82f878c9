import * as vscode from 'vscode';

/** Ticks a step of the walkthrough: it was done, not only looked at. */
export function done(step: 'hasModel' | 'hasAccepted' | 'hasAsked' | 'hasSummarised'): void {
  void vscode.commands.executeCommand('setContext', `hearth.${step}`, true);
}
