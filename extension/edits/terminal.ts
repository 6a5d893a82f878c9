import * as vscode from 'vscode';

/**
 * The one line that the code is, without prompts and comments; undefined where it is more than one, since a terminal runs
 * a line at its end. Control characters are keys to a terminal.
 */
export function terminalLine(code: string): string | undefined {
  const lines = code
    .replaceAll(/\s*\\\r?\n\s*/g, ' ')
    .split(/\r?\n/)
    .map((line) => line.trim().replace(/^(?:\$|>|PS [^>]*>)\s+/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'));
  const [only] = lines;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return lines.length === 1 && only !== undefined && !/[\u0000-\u001f\u007f-\u009f]/.test(only) ? only : undefined;
}

/** Puts a command where the user can read and run it. Nothing runs by itself. */
export async function putIntoTerminal(code: string): Promise<void> {
  const line = terminalLine(code);
  const terminal = vscode.window.activeTerminal ?? vscode.window.createTerminal();
  terminal.show();
  if (line !== undefined) {
    terminal.sendText(line, false);
    return;
  }
  await vscode.env.clipboard.writeText(code);
  void vscode.window.showInformationMessage(
    vscode.l10n.t(
      'These are several lines, which a terminal would run at once. They were copied; paste what you need.',
    ),
  );
}
