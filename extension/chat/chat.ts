/** The chat: its parts, and the messages between them and its pages. */
import * as vscode from 'vscode';
import * as z from 'zod';
import type { ModelCard } from '../../engine/protocol/models.ts';
import { Agent } from '../agent/agent.ts';
import { sentence } from '../client/failure.ts';
import type { EngineState } from '../client/host.ts';
import { ContextGatherer } from '../context/gather.ts';
import { MentionSuggester, mentionsOf, mentionText, parseMentions, pinOf } from '../context/mentions.ts';
import { nameOf } from '../context/sources.ts';
import { ContextTracker, focusId } from '../context/tracker.ts';
import { findPlace, openPlace } from '../context/workspace.ts';
import { draftsOf } from '../edits/drafts.ts';
import { insertAtCursor, putIntoTerminal } from '../edits/target.ts';
import { type Action, type Draft, draft, type ToHost, toHost } from '../messages.ts';
import type { Log, Parts } from '../parts.ts';
import { indexEnabled } from '../settings.ts';
import { summaryRequest } from '../summarise.ts';
import { ChatList } from './chatList.ts';
import { findTurn, isQueued } from './conversation.ts';
import { type ChatPage, ChatPages, controlsOf, noticeOf, openLink, postTo } from './pages.ts';
import { ChatSession } from './session.ts';
import { ChatStore } from './store.ts';

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

  /** Proposes the changes of an answer that changes several files as one set. */
  async #propose(turn: string, { changes, index }: Parts): Promise<void> {
    const asked = findTurn(this.session.conversation, turn);
    // The agent's tools make its proposals.
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

export interface ChatViewParts extends Pick<Parts, 'engine' | 'proposals' | 'changes' | 'thinking' | 'models'> {
  extensionUri: vscode.Uri;
  session: ChatSession;
  agent: Agent;
  tracker: ContextTracker;
  gatherer: ContextGatherer;
  suggester: MentionSuggester;
  log: Log;
  /** The workspace's stored state. */
  memory: vscode.Memento;
}

const draftKey = 'hearth.draft';
const pastedKey = 'hearth.pasted';
const commands = {
  restart: 'hearth.restartEngine',
  'choose-model': 'hearth.chooseModel',
  'show-log': 'hearth.showLog',
  'new-chat': 'hearth.newChat',
  trust: 'workbench.trust.manage',
  'answer-now': 'hearth.answerNow',
  thinking: 'hearth.thinking',
};

/** Passes messages between the pages and the chat's parts. All pages show the same. Holds no conversation state. */
export class ChatView {
  readonly #parts: ChatViewParts;
  readonly #subscriptions: vscode.Disposable;
  readonly pages: ChatPages;
  /** The state that the page shows. */
  #shownState: EngineState | undefined;
  /** The engine's progress before it answers, shown in the running turn. */
  #progress = '';
  #draft: Draft;
  /** Opens questions in the order in which they were asked. */
  #opening: Promise<unknown> = Promise.resolve();

  constructor(parts: ChatViewParts) {
    this.#parts = parts;
    this.pages = new ChatPages(parts.extensionUri, this.#receive);
    this.#draft = draft.catch({ text: '', start: 0, end: 0 }).parse(parts.memory.get(draftKey));
    for (const text of z.array(z.string()).catch([]).parse(parts.memory.get(pastedKey))) parts.tracker.paste(text);
    this.#subscriptions = vscode.Disposable.from(
      parts.session.onMessage(this.pages.post),
      parts.session.onMessage((message) => {
        // The last question may have included the pins.
        if (message.type === 'end' && parts.session.conversation.pins.length > 0) this.#measure();
        if (message.type !== 'conversation') return;
        this.#postEngine();
        this.#measure();
        this.#postChanges(message.turns.map(({ id }) => id));
      }),
      parts.agent.onChange(this.#postEngine),
      parts.changes.onChange((turn) => this.#postChanges([turn])),
      // The view also changes when requests begin and end, but the page does not show that.
      parts.engine.onView(({ state }) => state !== this.#shownState && this.#postEngine()),
      parts.tracker.onChange(() => this.#onContext()),
      parts.thinking.onChange(this.#postEngine),
      vscode.workspace.onDidGrantWorkspaceTrust(() => {
        this.#postContext();
        this.#postEngine();
      }),
      // The empty page names the server.
      vscode.workspace.onDidChangeConfiguration((event) => {
        const isServer = ['hearth.remote.url', 'hearth.completion.model'].some((key) =>
          event.affectsConfiguration(key),
        );
        if (isServer) this.pages.redraw();
      }),
    );
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  readonly #receive = (raw: unknown, from: ChatPage): void => {
    const parsed = toHost.safeParse(raw);
    if (!parsed.success) {
      this.#parts.log.warn('The chat page sent an invalid message.');
      return;
    }
    Promise.resolve(this.#handle(parsed.data, from)).catch((error: unknown) => {
      this.#parts.log.error(`Chat view: ${sentence(error)}`);
      void vscode.window.showErrorMessage(sentence(error));
    });
  };

  #handle(message: ToHost, from: ChatPage): unknown {
    const { tracker } = this.#parts;
    switch (message.type) {
      case 'ready':
        return this.#onReady(from);
      case 'send':
        return this.ask(message.text);
      case 'resend':
        return this.#resend(message.turn, message.text);
      case 'copy':
        return vscode.env.clipboard.writeText(message.text);
      case 'insert':
        return insertAtCursor(message.text);
      case 'apply':
        return this.#apply(message.turn, message.text);
      case 'permit':
        return this.#parts.agent.permit(message.turn, message.step, message.answer);
      case 'changes':
        return this.#parts.changes.act(message.turn, message.act, message.file);
      case 'run':
        return putIntoTerminal(message.text);
      case 'draft':
        return this.#keepDraft(message.draft, from);
      case 'suggest':
        return this.#suggest(message.query, from);
      case 'open-citation':
        return this.#openCitation(message.turn, message.text);
      case 'open-chip':
        return this.#openChip(message.turn, message.id);
      case 'open-link':
        return openLink(message.href);
      case 'remove-chip':
        return tracker.remove(message.id);
      case 'paste':
        return tracker.paste(message.text);
      case 'drop':
        return mentionsOf(message.uris).then((found) => postTo(from, { type: 'dropped', ...found }));
      case 'pin':
        return this.#pin(message.mention, message.isPinned);
      case 'add-context':
        return tracker.add();
      case 'download':
        return this.#download(message.model);
      case 'action':
        return this.#act(message.action, message.turn);
      case 'page-error':
        return this.#parts.log.error(`Chat page: ${message.message}`);
    }
  }

  /** Downloads only a model offered on the welcome card; for others the list of models asks first. */
  #download(id: string): Promise<void> | undefined {
    const { state } = this.#parts.engine.view;
    const offer = state.kind === 'no-model' ? state.offers.find(({ entry }) => entry.id === id) : undefined;
    if (offer !== undefined) return this.#parts.models.download(offer);
    this.#parts.log.warn('The chat page asked for a model that it does not offer.');
    return undefined;
  }

  #onReady(page: ChatPage): Promise<void> {
    page.isListening = true;
    this.#postAll();
    postTo(page, { type: 'draft', draft: this.#draft });
    if (page.focusWanted) this.pages.focus(page);
    return this.#warmUp();
  }

  #keepDraft(draft: Draft, from: ChatPage): Thenable<void> {
    const changed = draft.text !== this.#draft.text;
    this.#draft = draft;
    if (changed) {
      this.#postContext();
      this.pages.tellOthers(from, { type: 'mirror', draft });
    }
    return this.#parts.memory.update(draftKey, draft);
  }

  #act(action: Action, turn = ''): unknown {
    const { session } = this.#parts;
    switch (action) {
      case 'retry':
        return session.retry(turn);
      case 'fork':
        return session.fork(turn);
      case 'send':
        return session.send(turn);
      case 'remove':
        return session.remove(turn);
      case 'stop':
        return session.stop();
      case 'agent':
        return this.#parts.agent.toggle(session.conversation.id);
      case 'settings':
        return this.#run('workbench.action.openSettings', 'hearth');
      default:
        return this.#run(commands[action]);
    }
  }

  #run(command: string, ...args: string[]): Thenable<unknown> {
    return vscode.commands.executeCommand(command, ...args);
  }

  /** Loads the model while the user types the first question. Problems show as the notice. */
  async #warmUp(): Promise<void> {
    const client = await this.#parts.engine.client();
    await client.ready().catch((error: unknown) => this.#parts.log.info(`The model is not loaded: ${sentence(error)}`));
  }

  /** Asks with the context of this moment, even if the question is queued. */
  async ask(question: string): Promise<void> {
    const { session, gatherer, tracker } = this.#parts;
    const gathered = Promise.all([
      gatherer.gather(question, session.conversation, tracker.takePasted()),
      this.#opening,
    ]);
    this.#opening = Promise.allSettled([gathered, this.#opening]);
    const [{ attachments, omitted }] = await gathered;
    await session.ask(question, attachments, omitted);
  }

  /** A changed question gets new context; an unchanged one, or a queued one with the same mentions, keeps its context. */
  async #resend(id: string, question: string): Promise<void> {
    const { session, gatherer } = this.#parts;
    const old = findTurn(session.conversation, id);
    if (old === undefined) return;
    const mentions = (text: string) =>
      parseMentions(text)
        .map((mention) => mention.text)
        .join();
    const same = isQueued(old) ? mentions(old.view.question) === mentions(question) : old.view.question === question;
    return session.resend(id, question, same ? undefined : await gatherer.gather(question, session.conversation));
  }

  async #suggest(query: string, page: ChatPage): Promise<void> {
    postTo(page, { type: 'suggestions', query, items: await this.#parts.suggester.suggest(query) });
  }

  #apply(id: string, code: string): Promise<void> {
    const turn = findTurn(this.#parts.session.conversation, id);
    return this.#parts.proposals.show(code, turn?.view.answer ?? '', turn?.attachments ?? []);
  }

  async #openCitation(id: string, text: string): Promise<void> {
    const turn = findTurn(this.#parts.session.conversation, id)?.view;
    const citation = turn?.citations.find((known) => known.text === text);
    if (citation !== undefined) await openPlace(citation);
  }

  async #openChip(id: string, chip: string): Promise<void> {
    const turn = findTurn(this.#parts.session.conversation, id);
    const attached = turn?.attachments.find((known) => known.id === chip);
    if (attached === undefined || attached.firstLine === 0) return;
    const { path, firstLine: line, text } = attached;
    await openPlace({ path, line, endLine: line + text.split('\n').length - 1 });
  }

  #onContext(): void {
    const { memory, tracker } = this.#parts;
    const pasted = tracker.pasted.map(({ text }) => text);
    // Most changes concern only the editor.
    if (pasted.length > 0 || memory.get(pastedKey) !== undefined)
      void memory.update(pastedKey, pasted.length > 0 ? pasted : undefined);
    this.#postContext();
  }

  #postAll(): void {
    const { turns } = this.#parts.session;
    this.pages.post({ type: 'conversation', turns });
    this.#postChanges(turns.map(({ id }) => id));
    this.#postEngine();
    this.#measure();
  }

  #postChanges(turns: readonly string[]): void {
    const { changes, session, log } = this.#parts;
    const post = async () => {
      for (const turn of turns) {
        const view = findTurn(session.conversation, turn) && (await changes.viewOf(turn));
        if (view !== undefined) this.pages.post({ type: 'changes', turn, changes: view });
      }
    };
    post().catch((error: unknown) => log.warn(`Changes of the chat: ${sentence(error)}`));
  }

  readonly #postEngine = (): void => {
    const { engine, session, thinking, agent } = this.#parts;
    const isAgentOn = (card: ModelCard) => agent.isOn(session.conversation.id, card);
    const notice = noticeOf(engine.view);
    this.#shownState = engine.view.state;
    this.pages.post({ type: 'notice', notice });
    this.pages.post({ type: 'controls', controls: controlsOf(engine.view, thinking, isAgentOn) });
    const progress = notice.kind === 'progress' ? notice.text : '';
    if (session.busy && progress !== this.#progress) session.showProgress(progress, undefined);
    this.#progress = session.busy ? progress : '';
  };

  #pin(text: string, isPinned: boolean): void {
    const mention = pinOf(text);
    if (mention === undefined) return;
    this.#parts.session.pin(mention, isPinned);
    this.#measure();
  }

  /** Shows the context at once, and again when the sizes of the pins are known. */
  #measure(): void {
    const { gatherer, session, log } = this.#parts;
    this.#postContext();
    gatherer.measure(session.conversation.pins).then(
      (isChanged) => isChanged && this.#postContext(),
      (error: unknown) => log.warn(`Sizes of pinned context: ${sentence(error)}`),
    );
  }

  #postContext(): void {
    if (!this.pages.isVisible) return;
    const { gatherer } = this.#parts;
    const { conversation } = this.#parts.session;
    const chips = gatherer.chips(this.#draft.text, conversation.pins);
    const { focus } = this.#parts.tracker;
    const present =
      focus === undefined ||
      chips.some(({ id, pin }) => id === focusId(focus) || pin === mentionText('file', focus.path));
    const restricted = indexEnabled() && !vscode.workspace.isTrusted;
    this.pages.post({
      type: 'context',
      context: {
        chips,
        restricted,
        pinnedTokens: gatherer.unsentTokens(conversation),
        ...(present ? {} : { addable: nameOf(focus.path) }),
      },
    });
  }
}
