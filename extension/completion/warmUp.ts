import * as vscode from 'vscode';
import { isCancelled, sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import type { Log } from '../log.ts';

/** Warms up the prompt at the cursor while the user is idle, so that the first suggestion is fast. */
export class WarmUp {
  readonly #warm: (token: vscode.CancellationToken) => Promise<void>;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #running: vscode.CancellationTokenSource | undefined;

  constructor(warm: (token: vscode.CancellationToken) => Promise<void>, log: Log) {
    this.#warm = warm;
    this.#log = log;
  }

  /** Cancels the warm-up on a key, and restarts the idle timer. */
  touch(idleMs: number = limits.completion.idleMs): void {
    this.dispose();
    this.#timer = setTimeout(() => void this.#run(), idleMs);
  }

  /** The cursor is elsewhere, which may be the place of the next key. */
  moved(): void {
    this.touch(limits.completion.restMs);
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
      if (!isCancelled(error)) this.#log.debug(`Warm-up failed: ${sentence(error)}`);
    } finally {
      source.dispose();
      if (this.#running === source) this.#running = undefined;
    }
  }
}
