import * as vscode from 'vscode';
import { outputOf } from './agent/terminal.ts';
import { limits } from './limits.ts';
import type { Log } from './parts.ts';

/** A command that ended with another exit code than 0. */
export interface Failure {
  readonly command: string;
  readonly exitCode: number;
  /** The end of what it wrote. */
  readonly output: string;
}

/** Ctrl+C: 128 and SIGINT. */
const interrupted = 130;

/** Keeps the last command that failed in a terminal. Nothing is kept of a folder that is not trusted. */
export class FailureWatch {
  readonly #log: Log;
  readonly #outputs = new WeakMap<vscode.TerminalShellExecution, ReturnType<typeof outputOf>>();
  readonly #subscriptions: vscode.Disposable;
  #last: Failure | undefined;

  constructor(log: Log) {
    this.#log = log;
    this.#subscriptions = vscode.Disposable.from(
      // What was written before it is read is lost.
      vscode.window.onDidStartTerminalShellExecution(({ execution }) => {
        if (vscode.workspace.isTrusted) this.#outputs.set(execution, outputOf(execution.read()));
      }),
      vscode.window.onDidEndTerminalShellExecution((event) => {
        this.#onEnd(event).catch((error: unknown) => log.warn(`Output of a command: ${String(error)}`));
      }),
    );
  }

  get last(): Failure | undefined {
    return this.#last;
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  async #onEnd({ execution, exitCode }: vscode.TerminalShellExecutionEndEvent): Promise<void> {
    const output = this.#outputs.get(execution);
    if (output === undefined || exitCode === undefined || exitCode === 0 || exitCode === interrupted) return;
    this.#last = { command: execution.commandLine.value.trim(), exitCode, output: await output.whole() };
    this.#log.debug(`A command failed with exit code ${exitCode}.`);
  }
}

/** A command as short as a chip. */
export function failureLabel({ command }: Failure): string {
  const [line = ''] = command.split('\n', 1);
  return line.length > limits.failures.labelChars ? `${line.slice(0, limits.failures.labelChars)}…` : line;
}

export const failureText = ({ command, exitCode, output }: Failure): string =>
  `$ ${command}\n${output}\n(exit code ${exitCode})`;

/** Undefined, and the user is told why, if there is nothing to explain. */
export function failureQuestion({ last }: Pick<FailureWatch, 'last'>): string | undefined {
  if (last !== undefined) return `${vscode.l10n.t('Why did this command fail, and what fixes it?')} @failure`;
  const text = vscode.workspace.isTrusted
    ? vscode.l10n.t('No command has failed in a terminal with shell integration.')
    : vscode.l10n.t('Terminals are read in trusted folders alone.');
  void vscode.window.showInformationMessage(text);
  return undefined;
}
