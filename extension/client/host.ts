import * as vscode from 'vscode';
import type { Progress, Statistics } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard, ModelEntry } from '../../engine/protocol/models.ts';
import { fileName, type Offer } from '../models/choose.ts';
import type { EngineClient } from './client.ts';
import type { ProcessState } from './process.ts';

/**
 * Creates the engine's client when it is first needed. Its code (protocol schemas, RPC) is evaluated only
 * then, so that it costs nothing in a window that does not use Hearth.
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
      client.onView(this.#changed.fire, this.#changed);
      return client;
    });
    return this.#opening;
  }

  /** Resolves when the condition holds. */
  until(isSo: (view: EngineView) => boolean): Promise<void> {
    return untilView(this, isSo);
  }

  async stop(): Promise<void> {
    await this.#opened?.stop();
  }

  dispose(): void {
    this.#opened?.dispose();
    this.#changed.dispose();
  }
}

/** State of the engine, for status bar and chat view. */
export type EngineState =
  /** Not needed yet, or stopped. */
  | { kind: 'idle' }
  | { kind: 'starting' }
  /** No model on disk. `offers`: models to download. `problem`: why the last download failed; its model comes first. */
  | { kind: 'no-model'; offers: Offer[]; problem?: string }
  /** Bytes. */
  | { kind: 'downloading'; name: string; done: number; total: number }
  /** Bytes; total 0 until the engine says. */
  | { kind: 'loading'; name: string; done: number; total: number }
  /** Asking a server for its models. */
  | { kind: 'connecting'; host: string }
  | { kind: 'ready'; card: ModelCard }
  | { kind: 'restarting'; delayMs: number }
  | { kind: 'failed'; message: string; remedy: 'restart' | 'choose-model' };

export interface EngineView {
  state: EngineState;
  /** The separate completion model, or why the chosen one is not used. */
  completion?: { card: ModelCard } | { problem: string };
  /** Number of requests that are generating. */
  running: number;
  /** Statistics of the last request that generated with the model in `state`. */
  last: Statistics | undefined;
  /** Why the server did not answer the last time. */
  away?: string;
}

export const downloading = (entry: ModelEntry, step: Progress): EngineState => ({
  kind: 'downloading',
  name: entry.name || fileName(entry.id),
  done: step.done,
  total: step.total || entry.downloadBytes,
});

/** The next state after a process change; undefined if unchanged. */
export function stateOf(process: ProcessState, before: EngineState): EngineState | undefined {
  switch (process.kind) {
    case 'starting':
      return { kind: 'starting' };
    case 'running':
      return before.kind === 'starting' ? { kind: 'idle' } : undefined;
    case 'waiting':
      return { kind: 'restarting', delayMs: process.delayMs };
    case 'failed':
      return { kind: 'failed', message: process.message, remedy: 'restart' };
    case 'stopped':
      return { kind: 'idle' };
  }
}

/** Resolves when the condition holds. */
function untilView(
  { view, onView }: Pick<ViewKeeper, 'view' | 'onView'>,
  isSo: (view: EngineView) => boolean,
): Promise<void> {
  if (isSo(view)) return Promise.resolve();
  return new Promise((resolve) => {
    const subscription = onView((next) => {
      if (!isSo(next)) return;
      subscription.dispose();
      resolve();
    });
  });
}

const idleView: EngineView = { state: { kind: 'idle' }, running: 0, last: undefined };

/** Holds the engine's view and notifies listeners of changes. */
export class ViewKeeper {
  readonly #changed = new vscode.EventEmitter<EngineView>();
  readonly onView = this.#changed.event;
  #current = idleView;
  /** Id of the model whose statistics `last` has. */
  #lastOf: string | undefined;

  get view(): EngineView {
    return this.#current;
  }

  show(state: EngineState): void {
    const { away: _, ...current } = this.#current;
    // Otherwise another model's figures would appear beside this one's name.
    const last = state.kind === 'ready' && state.card.id !== this.#lastOf ? undefined : current.last;
    this.#current = { ...current, state, last };
    this.#changed.fire(this.#current);
  }

  /** Why the server did not answer; undefined: it answers again. */
  showAway(away: string | undefined): void {
    if (away === this.#current.away) return;
    const { away: _, ...current } = this.#current;
    this.#current = { ...current, ...(away !== undefined && { away }) };
    this.#changed.fire(this.#current);
  }

  showCompletion(completion: EngineView['completion']): void {
    const { completion: _, ...rest } = this.#current;
    this.#current = { ...rest, ...(completion && { completion }) };
    this.#changed.fire(this.#current);
  }

  /** A generating request began, or ended with these statistics of the chat model. */
  count(change: 1 | -1, last = this.#current.last): void {
    if (this.#current.state.kind === 'ready') this.#lastOf = this.#current.state.card.id;
    this.#current = { ...this.#current, running: this.#current.running + change, last };
    this.#changed.fire(this.#current);
  }

  /** Resolves when no request is generating. */
  untilIdle(): Promise<void> {
    return untilView(this, ({ running }) => running === 0);
  }

  dispose(): void {
    this.#changed.dispose();
  }
}
