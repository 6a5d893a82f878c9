import * as vscode from 'vscode';
import type { EngineClient } from './client.ts';
import { type EngineView, idleView } from './view.ts';

/**
 * Creates the engine's client when it is first needed. Its code (protocol schemas, RPC) is evaluated only
 * then, so that a window in which Hearth is not used pays nothing for it.
 */
export class EngineHost {
  readonly #create: () => Promise<EngineClient>;
  readonly #changed = new vscode.EventEmitter<EngineView>();
  readonly onView = this.#changed.event;
  #opening: Promise<EngineClient> | undefined;
  #opened: EngineClient | undefined;

  constructor(create: () => Promise<EngineClient>) {
    this.#create = create;
  }

  /** The client, if anything has needed it. */
  get current(): EngineClient | undefined {
    return this.#opened;
  }

  get view(): EngineView {
    return this.#opened?.view ?? idleView;
  }

  client(): Promise<EngineClient> {
    this.#opening ??= this.#create().then((client) => {
      this.#opened = client;
      client.onView((view) => this.#changed.fire(view));
      return client;
    });
    return this.#opening;
  }

  async stop(): Promise<void> {
    await this.#opened?.stop();
  }

  dispose(): void {
    this.#opened?.dispose();
    this.#changed.dispose();
  }
}
