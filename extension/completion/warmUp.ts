import * as vscode from 'vscode';
import { isCancelled, sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import type { Log } from '../log.ts';

/** Has the engine read what stands at the cursor while nobody types, so that the first suggestion comes at once. */
export class WarmUp {
  readonly #warm: (token: vscode.CancellationToken) => Promise<void>;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #running: vscode.CancellationTokenSource | undefined;

  constructor(warm: (token: vscode.CancellationToken) => Promise<void>, log: Log) {
    this.#warm = warm;
    this.#log = log;
  }

  /** A key was pressed or another file shown: reading ahead stops, and idleness begins anew. */
  touch(): void {
    this.dispose();
    this.#timer = setTimeout(() => void this.#run(), limits.completion.idleMs);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#running?.cancel();
    this.#running = undefined;
  }

  async #run(): Promise<void> {
    const source = new vscode.CancellationTokenSource();
    this.#running = source;
    try {
      await this.#warm(source.token);
    } catch (error) {
      if (!isCancelled(error)) this.#log.debug(`Reading ahead: ${sentence(error)}`);
    } finally {
      source.dispose();
      if (this.#running === source) this.#running = undefined;
    }
  }
}
