import * as vscode from 'vscode';
import type { EngineHost } from '../client/host.ts';
import type { Repository } from '../context/gather.ts';
import { ContextGatherer } from '../context/gather.ts';
import { MentionSuggester } from '../context/suggest.ts';
import { ContextTracker } from '../context/tracker.ts';
import type { Proposals } from '../edits/proposals.ts';
import type { Log } from '../log.ts';
import type { ModelManager } from '../models/manager.ts';
import { summaryRequest } from '../summarise.ts';
import type { Thinking } from '../thinking.ts';
import { findPlace } from './places.ts';
import { ChatSession } from './session.ts';
import { ChatSessions } from './sessions.ts';
import { ChatStore } from './store.ts';
import { ChatView } from './view.ts';

export interface ChatNeeds {
  context: vscode.ExtensionContext;
  engine: EngineHost;
  thinking: Thinking;
  models: ModelManager;
  log: Log;
  index: Repository;
  proposals: Proposals;
}

/** Creates the parts of the chat and connects them. */
export class Chat {
  readonly session: ChatSession;
  readonly sessions: ChatSessions;
  readonly tracker: ContextTracker;
  readonly view: ChatView;

  private constructor({ context, engine, thinking, models, log, index, proposals }: ChatNeeds, store: ChatStore) {
    const reread = (uri: string) => summaryRequest(vscode.Uri.parse(uri, true));
    this.session = new ChatSession(engine, store, thinking, log, { reread, find: findPlace });
    this.sessions = new ChatSessions(store, this.session);
    this.tracker = new ContextTracker();
    const { extensionUri } = context;
    const { session, tracker } = this;
    const gatherer = new ContextGatherer(engine, tracker, index);
    const suggester = new MentionSuggester(index);
    this.view = new ChatView({
      extensionUri,
      engine,
      session,
      tracker,
      gatherer,
      suggester,
      proposals,
      thinking,
      models,
      log,
      memory: context.workspaceState,
    });
  }

  /** Restores the conversation that was on screen last. */
  static async open(needs: ChatNeeds): Promise<Chat> {
    const { storageUri, globalStorageUri } = needs.context;
    const folder = vscode.Uri.joinPath(storageUri ?? globalStorageUri, 'chats').fsPath;
    const store = new ChatStore(folder, needs.log);
    await store.restore();
    return new Chat(needs, store);
  }

  /** Writes the conversation to the disk. */
  async close(): Promise<void> {
    this.view.dispose();
    this.tracker.dispose();
    await this.session.close();
  }
}
