/** Terminals: the last command that failed, and commands that the user allowed the agent to run. */
import * as vscode from 'vscode';
import { EngineFailure } from './client/failure.ts';
import { limits } from './limits.ts';
import type { Log } from './parts.ts';

/** A command with an exit code other than 0. */
export interface Failure {
  readonly command: string;
  readonly exitCode: number;
  /** The end of its output. */
  readonly output: string;
}

/** Ctrl+C: 128 and SIGINT. */
const interrupted = 130;

/** Keeps the last command that failed in a terminal, but nothing in an untrusted folder. */
export class FailureWatch {
  readonly #log: Log;
  readonly #outputs = new WeakMap<vscode.TerminalShellExecution, ReturnType<typeof outputOf>>();
  readonly #subscriptions: vscode.Disposable;
  #last: Failure | undefined;

  constructor(log: Log) {
    this.#log = log;
    this.#subscriptions = vscode.Disposable.from(
      // Output that is written before the first read is lost.
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

/** A command shortened for a chip. */
export function failureLabel({ command }: Failure): string {
  const [line = ''] = command.split('\n', 1);
  return line.length > limits.failures.labelChars ? `${line.slice(0, limits.failures.labelChars)}…` : line;
}

export const failureText = ({ command, exitCode, output }: Failure): string =>
  `$ ${command}\n${output}\n(exit code ${exitCode})`;

/** Undefined if there is nothing to explain; tells the user why. */
export function failureQuestion({ last }: Pick<FailureWatch, 'last'>): string | undefined {
  if (last !== undefined) return `${vscode.l10n.t('Why did this command fail, and what fixes it?')} @failure`;
  const text = vscode.workspace.isTrusted
    ? vscode.l10n.t('No command has failed in a terminal with shell integration.')
    : vscode.l10n.t('Hearth reads terminals only in trusted folders.');
  void vscode.window.showInformationMessage(text);
  return undefined;
}

// Runs an allowed command in a visible terminal, and reads the output of commands.

/** Why a command is refused without asking the user; undefined: the user may be asked. */
export function flawOf(command: string): string | undefined {
  if (command.trim() === '') return 'The command is empty.';
  if (command.length > limits.agent.commandChars) return 'The command is too long. Write a script file instead.';
  // These act as keys in a terminal, or hide what the command does.
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/u.test(command))
    return 'A command is one line of visible characters: join several with && or write a script file.';
  return undefined;
}

const name = 'Hearth';

/** @returns its output, and its exit code if the shell reports it. */
export async function runInTerminal(
  command: string,
  cwd: vscode.Uri | undefined,
  token: vscode.CancellationToken,
): Promise<string> {
  const terminal =
    vscode.window.terminals.find((known) => known.name === name && known.exitStatus === undefined) ??
    // A pager waits for keys.
    vscode.window.createTerminal({ name, ...(cwd && { cwd }), env: { PAGER: 'cat', GIT_PAGER: 'cat' } });
  terminal.show(true);
  const shell = terminal.shellIntegration ?? (await shellOf(terminal, token));
  if (token.isCancellationRequested) throw new EngineFailure('cancelled', 'Stopped.');
  if (shell === undefined) {
    terminal.sendText(command);
    return 'The command was started in the terminal, whose output cannot be read here. Ask the user what it shows.';
  }
  const execution = shell.executeCommand(command);
  const ended = endOf(execution);
  const stopped = cancelled(token);
  try {
    const output = outputOf(execution.read());
    const code = await Promise.race([ended.code, stopped.happened, after(limits.agent.commandMs)]);
    const text = typeof code === 'string' ? output.text() : await output.whole();
    if (code === 'stopped') {
      terminal.sendText('\u0003', false);
      throw new EngineFailure('cancelled', 'Stopped.');
    }
    if (code === 'late') return `${text}\n(It still runs after ${limits.agent.commandMs / 60_000} minutes.)`;
    return `${text}\n(Exit code ${code ?? 'unknown'}.)`;
  } finally {
    stopped.dispose();
    ended.dispose();
  }
}

/** The last output arrives after the end event. */
const outputMs = 2_000;

const after = (ms: number): Promise<'late'> => new Promise((resolve) => setTimeout(() => resolve('late'), ms).unref());

/** Undefined if the shell has no integration with VS Code. */
function shellOf(
  terminal: vscode.Terminal,
  token: vscode.CancellationToken,
): Promise<vscode.TerminalShellIntegration | undefined> {
  return new Promise((resolve) => {
    const finish = (shell: vscode.TerminalShellIntegration | undefined) => {
      subscriptions.dispose();
      clearTimeout(timer);
      resolve(shell);
    };
    const timer = setTimeout(() => finish(undefined), limits.agent.shellMs);
    const subscriptions = vscode.Disposable.from(
      token.onCancellationRequested(() => finish(undefined)),
      vscode.window.onDidChangeTerminalShellIntegration((event) => {
        if (event.terminal === terminal) finish(event.shellIntegration);
      }),
    );
  });
}

function cancelled(token: vscode.CancellationToken): { happened: Promise<'stopped'>; dispose(): void } {
  let subscription: vscode.Disposable | undefined;
  const happened = new Promise<'stopped'>((resolve) => {
    subscription = token.onCancellationRequested(() => resolve('stopped'));
  });
  return { happened, dispose: () => subscription?.dispose() };
}

function endOf(execution: vscode.TerminalShellExecution): { code: Promise<number | undefined>; dispose(): void } {
  let subscription: vscode.Disposable | undefined;
  const code = new Promise<number | undefined>((resolve) => {
    subscription = vscode.window.onDidEndTerminalShellExecution((event) => {
      if (event.execution === execution) resolve(event.exitCode);
    });
  });
  return { code, dispose: () => subscription?.dispose() };
}

/** Reads a command's output. `text` returns the output so far, `whole` waits for the end; both keep only the last part. */
export function outputOf(parts: AsyncIterable<string>): { whole(): Promise<string>; text(): string } {
  let written = '';
  const read = async () => {
    for await (const part of parts) written = (written + part).slice(-limits.agent.outputChars * 2);
  };
  const reading = read();
  const text = () => tail(plain(written));
  return { text, whole: () => Promise.race([reading, after(outputMs)]).then(text) };
}

/** Without sequences that move the cursor, colour text or control the terminal. */
export function plain(output: string): string {
  return (
    output
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are removed.
      .replaceAll(/\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b\[[0-?]*[ -/]*[@-~]|\u001b[ -/]*[0-~]/g, '')
      .replaceAll(/\r+\n/g, '\n')
      // A progress bar overwrites its line.
      .replaceAll(/[^\n]*\r(?=[^\n])/g, '')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are removed.
      .replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
      .trim()
  );
}

/** The end of an output usually has the result. */
const tail = (text: string): string =>
  text.length <= limits.agent.outputChars ? text : `…${text.slice(-limits.agent.outputChars)}`;
