import * as vscode from 'vscode';
import { Agent } from '../agent/agent.ts';
import { sentence } from '../client/failure.ts';
import { ContextGatherer } from '../context/gather.ts';
import { MentionSuggester } from '../context/mentions.ts';
import { ContextTracker } from '../context/tracker.ts';
import { findPlace } from '../context/workspace.ts';
import { draftsOf } from '../edits/drafts.ts';
import type { Parts } from '../parts.ts';
import { summaryRequest } from '../summarise.ts';
import { ChatList } from './chatList.ts';
import { findTurn } from './conversation.ts';
import { ChatSession } from './session.ts';
import { ChatStore } from './store.ts';
import { ChatView } from './view.ts';

/** Creates the parts of the chat and connects them. */
export class Chat {
  readonly session: ChatSession;
  readonly list: ChatList;
  readonly tracker = new ContextTracker();
  readonly view: ChatView;

  private constructor(parts: Parts, store: ChatStore) {
    const { engine, thinking, log, index } = parts;
    const reread = (uri: string) => summaryRequest(vscode.Uri.parse(uri, true));
    const { tracker } = this;
    const agent = new Agent(parts.changes, index);
    const session = new ChatSession(engine, store, thinking, log, { reread, find: findPlace }, agent);
    this.session = session;
    this.list = new ChatList(store, session);
    const gatherer = new ContextGatherer(engine, tracker, index, parts.failures);
    const suggester = new MentionSuggester(index);
    const { extensionUri, workspaceState: memory } = parts.context;
    session.onMessage((message) => {
      if (message.type !== 'end' || message.outcome.kind !== 'done') return;
      this.#propose(message.turn, parts).catch((error: unknown) =>
        log.warn(`Changes of an answer: ${sentence(error)}`),
      );
    });
    this.view = new ChatView({ ...parts, extensionUri, memory, session, tracker, gatherer, suggester, agent });
  }

  /** Restores the conversation that was on screen last. */
  static async open(parts: Parts): Promise<Chat> {
    const { storageUri, globalStorageUri } = parts.context;
    const folder = vscode.Uri.joinPath(storageUri ?? globalStorageUri, 'chats').fsPath;
    const store = new ChatStore(folder, parts.log);
    await store.restore();
    return new Chat(parts, store);
  }

  /** Shows an answer that changes several files as one set. */
  async #propose(turn: string, { changes, index }: Parts): Promise<void> {
    const asked = findTurn(this.session.conversation, turn);
    // The agent proposes by its tools.
    if (asked?.view.kind !== 'chat' || asked.view.steps.length > 0) return;
    const drafts = await draftsOf(asked.view.answer, asked.attachments, index);
    if (drafts.length > 0) await changes.propose(turn, asked.view.question.trim().split('\n', 1)[0] ?? '', drafts);
  }

  /** Writes the conversation to the disk. */
  async close(): Promise<void> {
    this.view.dispose();
    this.tracker.dispose();
    await this.session.close();
  }
}
