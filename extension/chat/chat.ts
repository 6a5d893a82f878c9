import * as vscode from 'vscode';
import { ContextGatherer } from '../context/gather.ts';
import { MentionSuggester } from '../context/suggest.ts';
import { ContextTracker } from '../context/tracker.ts';
import type { Parts } from '../parts.ts';
import { summaryRequest } from '../summarise.ts';
import { findPlace } from './places.ts';
import { ChatSession } from './session.ts';
import { ChatSessions } from './sessions.ts';
import { ChatStore } from './store.ts';
import { ChatView } from './view.ts';

/** Creates the parts of the chat and connects them. */
export class Chat {
  readonly session: ChatSession;
  readonly sessions: ChatSessions;
  readonly tracker = new ContextTracker();
  readonly view: ChatView;

  private constructor(parts: Parts, store: ChatStore) {
    const { engine, thinking, log, index } = parts;
    const reread = (uri: string) => summaryRequest(vscode.Uri.parse(uri, true));
    const { tracker } = this;
    const session = new ChatSession(engine, store, thinking, log, { reread, find: findPlace });
    this.session = session;
    this.sessions = new ChatSessions(store, session);
    const gatherer = new ContextGatherer(engine, tracker, index);
    const suggester = new MentionSuggester(index);
    const { extensionUri, workspaceState: memory } = parts.context;
    this.view = new ChatView({ ...parts, extensionUri, memory, session, tracker, gatherer, suggester });
  }

  /** Restores the conversation that was on screen last. */
  static async open(parts: Parts): Promise<Chat> {
    const { storageUri, globalStorageUri } = parts.context;
    const folder = vscode.Uri.joinPath(storageUri ?? globalStorageUri, 'chats').fsPath;
    const store = new ChatStore(folder, parts.log);
    await store.restore();
    return new Chat(parts, store);
  }

  /** Writes the conversation to the disk. */
  async close(): Promise<void> {
    this.view.dispose();
    this.tracker.dispose();
    await this.session.close();
  }
}
