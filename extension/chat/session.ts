import { randomUUID } from 'node:crypto';
import * as vscode from 'vscode';
import type * as z from 'zod';
import type { ChatResult, SummariseResult, summariseParams } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../engine/protocol/models.ts';
import type { Agent } from '../agent/agent.ts';
import type { EngineClient, StreamHandlers } from '../client/client.ts';
import { EngineFailure, failedOutcome, isCancelled, progressNotes, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import type { Gathered } from '../context/gather.ts';
import { limits } from '../limits.ts';
import type { Outcome, Step, ToPage, Turn, TurnEvent } from '../messages.ts';
import type { Log } from '../parts.ts';
import { chatSettings } from '../settings.ts';
import { answerOptions, type Thinking } from '../thinking.ts';
import { type Checked, checkCitations, outlineCitations, type Place } from './citations.ts';
import {
  type Asked,
  type Attachment,
  beforeQuestion,
  type Conversation,
  findTurn,
  isQueued,
  promptMessages,
  type StoredTurn,
  titleOf,
} from './conversation.ts';
import type { ChatStore } from './store.ts';

/** A file to be summarised, or a folder, whose path ends with a slash. */
export interface SummaryRequest extends Pick<z.output<typeof summariseParams>, 'path' | 'text' | 'symbols' | 'files'> {
  readonly uri: string;
  readonly languageId: string;
}

/** Access to the workspace's files. */
export interface FileAccess {
  /** Reads a file again for another summary. */
  reread(uri: string): Promise<SummaryRequest | undefined>;
  /** Finds the file that an answer cites. `attachments`: those of the question. */
  find(path: string, attachments: readonly Attachment[]): Promise<Place | undefined>;
}

/** Answers with tools, in chats where the user turned the agent on. */
export type Answering = Pick<Agent, 'isOn' | 'answer'>;

type Answer = Omit<ChatResult, 'toolCalls' | 'finish'> & Pick<SummariseResult, 'finish'>;

/** For a question that is not a new one of the chat. */
type Asking = Partial<Pick<Asked, 'kind' | 'turn' | 'queued'>>;

/**
 * The open chat: asks the engine and reports events to the store and the page. It runs one answer at a time. Questions
 * asked meanwhile are queued; each runs when the answer before it is complete. After a stop, a failure or a restart the
 * queue is held: a question then waits until the user sends it.
 */
export class ChatSession {
  readonly #engine: EngineHost;
  readonly #store: ChatStore;
  readonly #thinking: Thinking;
  readonly #log: Log;
  readonly #files: FileAccess;
  readonly #agent: Answering | undefined;
  readonly #said = new vscode.EventEmitter<ToPage>();
  readonly onMessage = this.#said.event;
  /** Files of queued summaries as they were when requested, by turn. */
  readonly #requests = new Map<string, SummaryRequest & { fresh: boolean }>();
  #running: { turn: string; source: vscode.CancellationTokenSource } | undefined;
  #closed = false;

  constructor(
    engine: EngineHost,
    store: ChatStore,
    thinking: Thinking,
    log: Log,
    files: FileAccess,
    agent?: Answering,
  ) {
    this.#agent = agent;
    this.#files = files;
    this.#engine = engine;
    this.#store = store;
    this.#thinking = thinking;
    this.#log = log;
  }

  get conversation(): Conversation {
    return this.#store.conversation;
  }

  get turns(): Turn[] {
    return this.conversation.turns.map((turn) => turn.view);
  }

  get busy(): boolean {
    return this.#running !== undefined;
  }

  /**
   * Adds a turn, or changes a queued one, and answers it unless it must wait. Resolves when the answer and those queued
   * behind it have ended; at once if the question is queued. Never rejects.
   */
  async ask(
    question: string,
    attachments: Attachment[],
    omitted: string[] = [],
    { kind = 'chat', turn = randomUUID(), queued = this.busy }: Asking = {},
  ): Promise<void> {
    const asked = { kind, question, attachments, omitted, ...(queued && { queued }) };
    this.#store.record({ type: 'ask', turn, at: Date.now(), ...asked });
    const stored = findTurn(this.conversation, turn);
    if (stored === undefined) return;
    this.#said.fire({ type: 'turn', turn: structuredClone(stored.view) });
    if (!queued) await this.#run(stored);
  }

  /** `fresh`: ignores the summary cache. */
  summarise(request: SummaryRequest, fresh = false): Promise<void> {
    const { files, path, languageId } = request;
    const detail =
      files.length > 0
        ? vscode.l10n.t('{0} files', files.length)
        : vscode.l10n.t('{0} lines', request.text.split('\n').length);
    const label = path.replace(/\/$/, '').split('/').at(-1) ?? path;
    const attachment = { id: request.uri, label, detail, tokens: 0, path, languageId, text: '', firstLine: 1 };
    const turn = randomUUID();
    this.#requests.set(turn, { ...request, fresh });
    const question = vscode.l10n.t('Summarise {0}', path);
    return this.ask(question, [attachment], [], { kind: 'summary', turn });
  }

  /** Warms up the prompt of the next question. */
  async warm(token: vscode.CancellationToken): Promise<void> {
    const client = this.#engine.current;
    const card = client?.warmModel;
    if (!client || !card?.chat || this.busy || this.#closed) return;
    // The agent's prompt begins with tools.
    if (this.#agent?.isOn(this.conversation.id, card)) return;
    const messages = beforeQuestion(this.conversation.turns, chatSettings().instructions, card);
    await client.warm({ kind: 'chat', messages, thinking: this.#thinking.mode(card) }, token);
  }

  /** Stops the answer and holds the queue. Later questions run. */
  stop(): void {
    if (this.#running === undefined) return;
    this.#running.source.cancel();
    this.#holdQueue();
  }

  async startNew(): Promise<void> {
    this.#leave();
    const left = this.#store.startNew();
    this.#showConversation();
    await left;
  }

  /** Continues after that turn in a new conversation. This one stays unchanged. */
  async fork(turn: string): Promise<void> {
    if (findTurn(this.conversation, turn) === undefined) return;
    if (this.busy) {
      void vscode.window.showInformationMessage(vscode.l10n.t('Wait until the answer is complete.'));
      return;
    }
    await this.#store.fork(turn, vscode.l10n.t('{0} (continued)', titleOf(this.conversation)));
    this.#showConversation();
  }

  /** Pins a mention to this conversation, or unpins it. */
  pin(mention: string, isPinned: boolean): void {
    const { pins } = this.conversation;
    if (isPinned === pins.includes(mention) || (isPinned && pins.length >= limits.chat.pins)) return;
    this.#store.record({ type: 'pin', mention, isPinned });
  }

  /** Opens an earlier conversation. */
  async openChat(id: string): Promise<void> {
    if (id === this.conversation.id) return;
    this.#leave();
    const found = await this.#store.open(id);
    this.#showConversation();
    if (!found) throw new Error(vscode.l10n.t('That chat no longer exists on this computer.'));
  }

  /**
   * Replaces that turn and all later ones except queued ones with a new question, or edits a queued one. `gathered`: new
   * attachments. If the turn's answer has just begun, the new question is queued instead.
   */
  async resend(id: string, question: string, gathered?: Gathered): Promise<void> {
    const { turns } = this.conversation;
    const at = turns.findIndex(({ view }) => view.id === id);
    const old = turns[at];
    if (old === undefined) return;
    if (isQueued(old)) {
      const { kind } = old.view;
      const { attachments, omitted } = gathered ?? { attachments: old.attachments, omitted: old.view.omitted };
      return this.ask(question, attachments, omitted, { kind, turn: id, queued: true });
    }
    const replaced = this.busy ? [] : turns.slice(at).filter((turn) => !isQueued(turn));
    for (const { view } of replaced) this.#tell({ type: 'drop', turn: view.id });
    await this.#askAgain(old, question, gathered);
  }

  /** Asks a question again. Replaces an answer without text. */
  async retry(id: string): Promise<void> {
    const old = findTurn(this.conversation, id);
    if (old === undefined || this.busy) return;
    if (old.view.answer === '') this.#tell({ type: 'drop', turn: id });
    await this.#askAgain(old, old.view.question);
  }

  /** Runs a held question, or queues it again while another is answered. */
  async send(id: string): Promise<void> {
    const turn = findTurn(this.conversation, id);
    if (turn === undefined || !isQueued(turn)) return;
    if (this.busy) this.#tell({ type: 'queue', turn: id, held: false });
    else await this.#run(turn);
  }

  /** Removes a queued question. */
  remove(id: string): void {
    const turn = findTurn(this.conversation, id);
    if (turn !== undefined && isQueued(turn)) this.#tell({ type: 'drop', turn: id });
    this.#requests.delete(id);
  }

  /** Shows progress before the first token. `share`: 0 to 1, undefined if unknown. */
  showProgress(note: string, share: number | undefined): void {
    const turn = this.#running && findTurn(this.conversation, this.#running.turn)?.view;
    if (turn === undefined || turn.answer !== '' || turn.thinking !== '') return;
    this.#tell({ type: 'progress', turn: turn.id, note, ...(share === undefined ? {} : { share }) });
  }

  /** A running turn stays open in the journal, so the next window shows it as interrupted. */
  async close(): Promise<void> {
    this.#closed = true;
    this.stop();
    await this.#store.close();
    this.#said.dispose();
  }

  async #askAgain({ view, attachments }: StoredTurn, question: string, gathered?: Gathered): Promise<void> {
    if (view.kind === 'chat') {
      return this.ask(question, gathered?.attachments ?? attachments, gathered?.omitted ?? view.omitted);
    }
    const request = await this.#files.reread(view.chips[0]?.id ?? '');
    if (request !== undefined) await this.summarise(request, true);
  }

  /** Stores an event and shows it. Ignores events of a conversation that is no longer open. */
  #tell(event: TurnEvent): void {
    if (this.#closed || findTurn(this.conversation, event.turn) === undefined) return;
    this.#store.record(event);
    this.#said.fire(event);
  }

  #showConversation(): void {
    this.#said.fire({ type: 'conversation', turns: structuredClone(this.turns) });
  }

  #holdQueue(): void {
    for (const turn of this.conversation.turns) {
      if (isWaiting(turn)) this.#tell({ type: 'queue', turn: turn.view.id, held: true });
    }
  }

  /** Ends the running turn as stopped. */
  #leave(): void {
    if (this.#running === undefined) return;
    this.#tell({ type: 'end', turn: this.#running.turn, outcome: { kind: 'stopped' } });
    this.stop();
    this.#running = undefined;
  }

  /** Answers a turn, and then the queue. */
  async #run(first: StoredTurn): Promise<void> {
    for (let stored: StoredTurn | undefined = first; stored !== undefined; ) {
      const open = await this.#answer(stored);
      const next = this.conversation.turns.find(isWaiting);
      stored = open && !this.#closed ? next : undefined;
    }
  }

  /** True if its conversation is still open. */
  async #answer(stored: StoredTurn): Promise<boolean> {
    const source = new vscode.CancellationTokenSource();
    const turn = stored.view.id;
    this.#running = { turn, source };
    if (isQueued(stored)) this.#tell({ type: 'start', turn });
    let outcome: Outcome;
    try {
      const client = await orCancelled(this.#engine.client(), source.token);
      const card = await orCancelled(client.ready(), source.token);
      this.#tell({ type: 'begin', turn, model: card.name });
      const answer = await this.#request(stored, client, card, source.token);
      await this.#settle(stored, answer);
      outcome = finished(answer);
    } catch (error) {
      if (!isCancelled(error)) this.#log.error(`Chat: ${sentence(error)}`);
      outcome = failedOutcome(error, stored.view.answer !== '');
    }
    const current = this.#running?.turn === turn;
    if (current) this.#running = undefined;
    source.dispose();
    this.#tell({ type: 'end', turn, outcome });
    if (current && outcome.kind === 'failed') this.#holdQueue();
    return current;
  }

  async #request(
    stored: StoredTurn,
    client: EngineClient,
    card: ModelCard,
    token: vscode.CancellationToken,
  ): Promise<Answer> {
    const { id: turn, question } = stored.view;
    const noteOf = progressNotes();
    const handlers: StreamHandlers = {
      onDelta: (delta) => {
        if (delta.kind === 'tool-call') return;
        const { kind, text, tokens } = delta;
        this.#tell({ type: 'delta', turn, kind, text, ...(tokens !== undefined && { tokens }) });
      },
      onProgress: (step) => {
        const { note, share } = noteOf(step);
        this.showProgress(note, share);
      },
    };
    if (stored.view.kind === 'summary') return this.#summary(stored, client, handlers, token);
    const settings = chatSettings();
    const messages = promptMessages(this.conversation.turns, settings.instructions, card);
    const params = { messages, ...answerOptions(card, this.#thinking, settings) };
    const { id: chat } = this.conversation;
    const tell = (step: Step) => this.#tell({ type: 'step', turn, step });
    const answer = this.#agent?.isOn(chat, card)
      ? await this.#agent.answer({ chat, turn, text: question, client, card, params, handlers, token, tell })
      : await client.chat(params, handlers, token);
    // Tool calls of the last answer are not run.
    return { ...answer, finish: answer.finish === 'tool-calls' ? 'stop' : answer.finish };
  }

  async #summary(
    { view: { id: turn }, attachments }: StoredTurn,
    client: EngineClient,
    handlers: StreamHandlers,
    token: vscode.CancellationToken,
  ): Promise<Answer> {
    const request = this.#requests.get(turn) ?? (await this.#files.reread(attachments[0]?.id ?? ''));
    this.#requests.delete(turn);
    // `reread` has told the user why there is nothing to summarise.
    if (request === undefined) throw new EngineFailure('cancelled', 'Nothing to summarise.');
    const { uri: _, ...params } = request;
    const result = await client.summarise(params, handlers, token);
    return { ...result, thinking: '', droppedMessages: 0 };
  }

  /** The final result replaces streamed text if they differ. */
  async #settle(stored: StoredTurn, { text: answer, thinking }: Answer): Promise<void> {
    const { citations, missing } = await this.#checked(stored, answer);
    const { view } = stored;
    const { id: turn } = view;
    if (view.answer !== answer || view.thinking !== thinking) this.#tell({ type: 'text', turn, thinking, answer });
    if (citations.length + missing.length > 0) this.#tell({ type: 'cited', turn, citations, missing });
  }

  async #checked({ view, attachments }: StoredTurn, text: string): Promise<Checked> {
    try {
      const folder = attachments[0]?.path.endsWith('/') === true;
      if (view.kind === 'chat' || folder)
        return await checkCitations(text, (path) => this.#files.find(path, attachments));
      const place = await this.#files.find(attachments[0]?.path ?? '', []);
      return { citations: place === undefined ? [] : outlineCitations(text, place), missing: [] };
    } catch (error) {
      this.#log.warn(`Could not check the citations of an answer: ${sentence(error)}`);
      return { citations: [], missing: [] };
    }
  }
}

/** Queued and not held. */
const isWaiting = ({ view: { outcome } }: StoredTurn): boolean => outcome.kind === 'queued' && !outcome.held;

function finished(answer: Answer): Outcome {
  if (answer.finish === 'cancelled') return { kind: 'stopped', figures: answer.statistics };
  return { kind: 'done', reason: answer.finish, figures: answer.statistics, dropped: answer.droppedMessages };
}

/** Other requests share the engine's start and the model's load, so cancelling only stops waiting. */
function orCancelled<T>(value: Promise<T>, token: vscode.CancellationToken): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const subscription = token.onCancellationRequested(() => reject(new EngineFailure('cancelled', 'Stopped.')));
    value.then(resolve, reject).finally(() => subscription.dispose());
  });
}
