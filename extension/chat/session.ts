import { randomUUID } from 'node:crypto';
import * as vscode from 'vscode';
import type { Progress, Statistics } from '../../engine/protocol/engineProtocol.ts';
import { answerOptions } from '../answerOptions.ts';
import type { EngineClient, StreamHandlers } from '../client/client.ts';
import { EngineFailure, isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import type { Gathered } from '../context/gather.ts';
import type { Log } from '../log.ts';
import type { Outcome, ToPage, Turn } from '../messages.ts';
import { chatSettings } from '../settings.ts';
import type { Thinking } from '../thinking.ts';
import { type Checked, checkCitations, outlineCitations, type Place } from './citations.ts';
import { type Attachment, type Conversation, findTurn, type JournalRecord, type StoredTurn } from './conversation.ts';
import { failedOutcome, progressNote } from './outcome.ts';
import { beforeQuestion, promptMessages } from './prompt.ts';
import type { ChatStore } from './store.ts';

/** A file to be summarised. `symbols`: zero-based lines, end inclusive. */
export interface SummaryRequest {
  uri: string;
  path: string;
  languageId: string;
  text: string;
  symbols: { name: string; startLine: number; endLine: number }[];
  /** If not empty, `path` is a folder (ends with a slash) and these are its files. */
  files: { path: string; languageId: string; text: string }[];
}

/** Access to the workspace's files. */
export interface FileAccess {
  /** Reads a file again for another summary. */
  reread(uri: string): Promise<SummaryRequest | undefined>;
  /** Finds the file that an answer cites. `attachments`: those of the question. */
  find(path: string, attachments: readonly Attachment[]): Promise<Place | undefined>;
}

interface Answer {
  text: string;
  thinking: string;
  finish: 'stop' | 'length' | 'context' | 'repetition' | 'cancelled';
  statistics: Statistics;
  droppedMessages: number;
}

type Run = (client: EngineClient, handlers: StreamHandlers, token: vscode.CancellationToken) => Promise<Answer>;

/**
 * The open chat: asks the engine, stores the answer while it streams, and tells listeners what to show. It runs one
 * answer at a time.
 */
export class ChatSession {
  readonly #engine: EngineHost;
  readonly #store: ChatStore;
  readonly #thinking: Thinking;
  readonly #log: Log;
  readonly #said = new vscode.EventEmitter<ToPage>();
  readonly onMessage = this.#said.event;
  #running: { turn: string; source: vscode.CancellationTokenSource } | undefined;
  #closed = false;
  readonly #files: FileAccess;

  constructor(engine: EngineHost, store: ChatStore, thinking: Thinking, log: Log, files: FileAccess) {
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

  /** Resolves when the answer is complete, was stopped or failed; never rejects. */
  async ask(question: string, attachments: Attachment[], omitted: string[] = []): Promise<void> {
    if (this.#running !== undefined) return;
    const turn = this.#open('chat', question, attachments, omitted);
    await this.#answer(turn, (client, handlers, token) => this.#chat(client, handlers, token));
  }

  /** Warms up the prompt of the next question. */
  async warm(token: vscode.CancellationToken): Promise<void> {
    const client = this.#engine.current;
    const card = client?.warmModel;
    if (!client || !card?.chat || this.busy || this.#closed) return;
    const messages = beforeQuestion(this.conversation.turns, chatSettings().instructions);
    await client.warm({ kind: 'chat', messages, thinking: this.#thinking.mode(card) }, token);
  }

  /** `fresh`: ignores the summary cache. */
  async summarise(request: SummaryRequest, fresh = false): Promise<void> {
    if (this.#running !== undefined) return;
    const { files } = request;
    const size =
      files.length > 0
        ? vscode.l10n.t('{0} files', files.length)
        : vscode.l10n.t('{0} lines', request.text.split('\n').length);
    const name = request.path.replace(/\/$/, '').split('/').at(-1) ?? request.path;
    const chip = { id: request.uri, label: name, detail: size, tokens: 0 };
    const attachment = { ...chip, path: request.path, languageId: request.languageId, text: '', firstLine: 1 };
    const turn = this.#open('summary', vscode.l10n.t('Summarise {0}', request.path), [attachment]);
    await this.#answer(turn, (client, handlers, token) => summary({ ...request, fresh }, client, handlers, token));
  }

  stop(): void {
    this.#running?.source.cancel();
  }

  async startNew(): Promise<void> {
    this.#leave();
    const left = this.#store.startNew();
    this.#showConversation();
    await left;
  }

  /** Opens an earlier conversation. */
  async openChat(id: string): Promise<void> {
    if (id === this.conversation.id) return;
    this.#leave();
    const found = await this.#store.open(id);
    this.#showConversation();
    if (!found) throw new Error(vscode.l10n.t('That chat no longer exists on this computer.'));
  }

  /** Replaces that turn and all later ones with a new question. `gathered`: new attachments. */
  async resend(id: string, question: string, gathered?: Gathered): Promise<void> {
    const { turns } = this.#store.conversation;
    const at = turns.findIndex(({ view }) => view.id === id);
    const old = turns[at];
    if (old === undefined || this.#running !== undefined) return;
    for (const { view } of turns.slice(at)) this.#store.record({ type: 'drop', turn: view.id });
    this.#showConversation();
    await this.#askAgain(old, question, gathered);
  }

  /** Repeats a question. Replaces an attempt without text. */
  async retry(id: string): Promise<void> {
    const old = findTurn(this.conversation, id);
    if (old === undefined || this.#running !== undefined) return;
    if (old.view.answer === '') {
      this.#store.record({ type: 'drop', turn: id });
      this.#showConversation();
    }
    await this.#askAgain(old, old.view.question);
  }

  /** Shows progress before the first token. */
  showProgress(note: string, share: number | undefined): void {
    const turn = this.#running && findTurn(this.conversation, this.#running.turn)?.view;
    if (turn === undefined || turn.answer !== '' || turn.thinking !== '') return;
    this.#becomes(turn.id, { kind: 'running', note, ...(share === undefined ? {} : { share }) });
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

  /** Ends the running turn as stopped. */
  #leave(): void {
    if (this.#running === undefined) return;
    this.#record({ type: 'end', turn: this.#running.turn, outcome: { kind: 'stopped' } });
    this.stop();
    this.#running = undefined;
  }

  #showConversation(): void {
    this.#said.fire({ type: 'conversation', turns: structuredClone(this.turns) });
  }

  #open(kind: Turn['kind'], question: string, attachments: Attachment[], omitted: string[] = []): string {
    const turn = randomUUID();
    this.#store.record({ type: 'ask', turn, at: Date.now(), kind, question, attachments, omitted });
    const view = findTurn(this.conversation, turn)?.view;
    if (view !== undefined) this.#said.fire({ type: 'turn', turn: structuredClone(view) });
    return turn;
  }

  async #answer(turn: string, run: Run): Promise<void> {
    const source = new vscode.CancellationTokenSource();
    this.#running = { turn, source };
    let outcome: Outcome;
    try {
      const client = await orCancelled(this.#engine.client(), source.token);
      const card = await orCancelled(client.ready(), source.token);
      this.#record({ type: 'begin', turn, model: card.name });
      const answer = await run(client, this.#handlers(turn), source.token);
      await this.#settle(turn, answer);
      outcome = finished(answer);
    } catch (error) {
      if (!isCancelled(error)) this.#log.error(`Chat: ${sentence(error)}`);
      outcome = failedOutcome(error, this.#textOf(turn) !== '');
    }
    if (this.#running?.turn === turn) this.#running = undefined;
    source.dispose();
    this.#record({ type: 'end', turn, outcome });
    this.#tell({ type: 'outcome', turn, outcome });
  }

  async #chat(client: EngineClient, handlers: StreamHandlers, token: vscode.CancellationToken): Promise<Answer> {
    const params = {
      messages: promptMessages(this.conversation.turns, chatSettings().instructions),
      ...answerOptions(await client.ready(), this.#thinking),
    };
    const answer = await client.chat(params, handlers, token);
    // No tools are offered here.
    return { ...answer, finish: answer.finish === 'tool-calls' ? 'stop' : answer.finish };
  }

  #handlers(turn: string): StreamHandlers {
    return {
      onDelta: (delta) => {
        if (delta.kind === 'tool-call') return;
        const { kind, text, tokens } = delta;
        this.#record({ type: 'delta', turn, kind, text });
        this.#tell({ type: 'delta', turn, kind, text, ...(tokens !== undefined && { tokens }) });
      },
      onProgress: (step: Progress) => {
        const { note, share } = progressNote(step);
        this.showProgress(note, share);
      },
    };
  }

  /** The final result replaces streamed text if they differ. */
  async #settle(turn: string, { text: answer, thinking }: Answer): Promise<void> {
    const stored = findTurn(this.conversation, turn);
    if (stored === undefined) return;
    const { view } = stored;
    const { citations, missing } = await this.#checked(stored, answer);
    const corrected = view.answer !== answer || view.thinking !== thinking;
    if (corrected) this.#record({ type: 'text', turn, thinking, answer });
    const cited = citations.length + missing.length > 0;
    if (cited) this.#record({ type: 'cited', turn, citations, missing });
    if (corrected || cited) this.#tell({ type: 'turn', turn: structuredClone(view) });
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

  /** Ignores events of a conversation that is no longer open. */
  #tell(message: ToPage & { turn: string | Turn }): void {
    const id = typeof message.turn === 'string' ? message.turn : message.turn.id;
    if (findTurn(this.conversation, id) !== undefined) this.#said.fire(message);
  }

  /** Writes nothing to a conversation that is closed or no longer open. */
  #record(record: JournalRecord & { turn: string }): void {
    if (this.#closed || findTurn(this.conversation, record.turn) === undefined) return;
    this.#store.record(record);
  }

  #becomes(turn: string, outcome: Outcome): void {
    const view = findTurn(this.conversation, turn)?.view;
    if (view !== undefined) view.outcome = outcome;
    this.#tell({ type: 'outcome', turn, outcome });
  }

  #textOf(turn: string): string {
    return findTurn(this.conversation, turn)?.view.answer ?? '';
  }
}

async function summary(
  request: SummaryRequest & { fresh: boolean },
  client: EngineClient,
  handlers: StreamHandlers,
  token: vscode.CancellationToken,
): Promise<Answer> {
  const { uri: _, ...params } = request;
  const result = await client.summarise(params, handlers, token);
  return { ...result, thinking: '', droppedMessages: 0 };
}

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
