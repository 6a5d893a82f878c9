/** Runs in desktop VS Code's extension host: checks a window that has just opened. */
import assert from 'node:assert/strict';
import * as vscode from 'vscode';

const commands = ['openChat', 'newChat', 'stop', 'summariseFile', 'thinking', 'chooseModel', 'restartEngine'];

/** VS Code ends with status 1 when this rejects. */
export async function run(): Promise<void> {
  const extension = vscode.extensions.getExtension('hearth.hearth');
  assert.ok(extension, 'the extension is not installed');
  const startMs = performance.now();
  await extension.activate();
  const activationMs = performance.now() - startMs;
  assert.ok(activationMs < 1_000, `activation took ${activationMs} ms`);
  const registered = await vscode.commands.getCommands(true);
  for (const command of commands) assert.ok(registered.includes(`hearth.${command}`), `hearth.${command} is missing`);
  await vscode.commands.executeCommand('hearth.openChat');
}
