/** The parts of the extension, created once at activation. */
import type * as vscode from 'vscode';
import type { Chat } from './chat/chat.ts';
import type { EngineHost } from './client/host.ts';
import type { CompletionProvider } from './completion/provider.ts';
import type { ChangeSets } from './edits/changeSets.ts';
import type { InPlaceEdits } from './edits/inPlace.ts';
import type { Proposals } from './edits/proposals.ts';
import type { FirstRun } from './models/choose.ts';
import type { ModelManager } from './models/manager.ts';
import type { NextEdit } from './nextEdit/nextEdit.ts';
import type { RepositoryIndex } from './repository/repositoryIndex.ts';
import type { Reviews } from './review/reviews.ts';
import type { Remote, Server } from './servers.ts';
import type { StatusBar } from './status.ts';
import type { FailureWatch } from './terminal.ts';
import type { Thinking } from './thinking.ts';

export interface Parts {
  context: vscode.ExtensionContext;
  log: vscode.LogOutputChannel;
  engine: EngineHost;
  remote: Remote;
  server: Server;
  thinking: Thinking;
  models: ModelManager;
  firstRun: FirstRun;
  completion: CompletionProvider;
  index: RepositoryIndex;
  nextEdit: NextEdit;
  proposals: Proposals;
  changes: ChangeSets;
  inPlace: InPlaceEdits;
  reviews: Reviews;
  failures: FailureWatch;
  status: StatusBar;
}

/** The part of vscode.LogOutputChannel that the extension writes to. */
export interface Log {
  error(message: string): void;
  warn(message: string): void;
  info(message: string): void;
  debug(message: string): void;
}

/** The chat, created when the view is first shown or a command needs it. */
export class LazyChat {
  readonly #parts: Parts;
  #opening: Promise<Chat> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Warms up the conversation on screen, if any. */
  async warm(token: vscode.CancellationToken): Promise<void> {
    await (await this.#opening)?.session.warm(token);
  }

  open(): Promise<Chat> {
    this.#opening ??= import('./chat/chat.ts').then(({ Chat }) => Chat.open(this.#parts));
    return this.#opening;
  }

  async close(): Promise<void> {
    const chat = await this.#opening;
    this.#opening = undefined;
    await chat?.close();
  }
}
