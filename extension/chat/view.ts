import * as vscode from 'vscode';
import * as z from 'zod';
import { sentence } from '../client/failure.ts';
import type { ContextGatherer } from '../context/gather.ts';
import { parseMentions } from '../context/mentions.ts';
import { nameOf } from '../context/sources.ts';
import type { MentionSuggester } from '../context/suggest.ts';
import { type ContextTracker, focusId } from '../context/tracker.ts';
import { putIntoTerminal } from '../edits/target.ts';
import type { Log } from '../log.ts';
import { type Action, type Draft, draft, type ToHost, type ToPage, toHost } from '../messages.ts';
import type { Parts } from '../parts.ts';
import { indexEnabled } from '../settings.ts';
import { findTurn, isQueued } from './conversation.ts';
import { chatPage } from './html.ts';
import { controlsOf, noticeOf, openLink, pageTexts } from './panel.ts';
import { openPlace } from './places.ts';
import type { ChatSession } from './session.ts';

export interface ChatViewParts extends Pick<Parts, 'engine' | 'proposals' | 'thinking' | 'models'> {
  extensionUri: vscode.Uri;
  session: ChatSession;
  tracker: ContextTracker;
  gatherer: ContextGatherer;
  suggester: MentionSuggester;
  log: Log;
  /** State of this workspace. */
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

/** Passes messages between the page and the chat's parts. Holds no conversation state. */
export class ChatView {
  readonly #parts: ChatViewParts;
  readonly #subscriptions: vscode.Disposable;
  #view: vscode.WebviewView | undefined;
  /** The page sent `ready`. */
  #listening = false;
  #focusWanted = false;
  #draft: Draft;
  /** Opens questions in the order in which they were asked. */
  #opening: Promise<unknown> = Promise.resolve();

  constructor(parts: ChatViewParts) {
    this.#parts = parts;
    this.#draft = draft.catch({ text: '', start: 0, end: 0 }).parse(parts.memory.get(draftKey));
    for (const text of z.array(z.string()).catch([]).parse(parts.memory.get(pastedKey))) parts.tracker.paste(text);
    this.#subscriptions = vscode.Disposable.from(
      parts.session.onMessage((message) => this.#post(message)),
      parts.engine.onView(() => this.#onEngine()),
      parts.tracker.onChange(() => this.#onContext()),
      parts.thinking.onChange(() => this.#postEngine()),
      vscode.workspace.onDidGrantWorkspaceTrust(() => this.#postContext()),
      // The empty page names the server.
      vscode.workspace.onDidChangeConfiguration((event) => {
        if (event.affectsConfiguration('hearth.remote.url') && this.#view) this.#draw(this.#view.webview);
      }),
    );
  }

  get #dist(): vscode.Uri {
    return vscode.Uri.joinPath(this.#parts.extensionUri, 'dist');
  }

  attach(view: vscode.WebviewView): void {
    this.#view = view;
    const { webview } = view;
    webview.options = { enableScripts: true, localResourceRoots: [this.#dist] };
    webview.onDidReceiveMessage((raw: unknown) => this.#receive(raw));
    view.onDidDispose(() => {
      this.#view = undefined;
      this.#listening = false;
    });
    view.onDidChangeVisibility(() => {
      // VS Code discards a hidden page, which then sends `ready` again.
      if (!view.visible) this.#listening = false;
    });
    this.#draw(webview);
  }

  /** Renders the page with the current texts. */
  #draw(webview: vscode.Webview): void {
    this.#listening = false;
    webview.html = chatPage({
      scriptUri: webview.asWebviewUri(vscode.Uri.joinPath(this.#dist, 'chat.js')).toString(),
      styleUri: webview.asWebviewUri(vscode.Uri.joinPath(this.#dist, 'chat.css')).toString(),
      cspSource: webview.cspSource,
      language: vscode.env.language,
      texts: pageTexts(),
    });
  }

  /** Focuses the question box once the page is ready. */
  focusInput(): void {
    this.#focusWanted = !this.#listening;
    this.#post({ type: 'focus' });
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  #receive(raw: unknown): void {
    const parsed = toHost.safeParse(raw);
    if (!parsed.success) {
      this.#parts.log.warn('The chat page sent an invalid message.');
      return;
    }
    Promise.resolve(this.#handle(parsed.data)).catch((error: unknown) => {
      this.#parts.log.error(`Chat view: ${sentence(error)}`);
      void vscode.window.showErrorMessage(sentence(error));
    });
  }

  #handle(message: ToHost): unknown {
    const { tracker } = this.#parts;
    switch (message.type) {
      case 'ready':
        return this.#onReady();
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
      case 'run':
        return putIntoTerminal(message.text);
      case 'draft':
        return this.#keepDraft(message.draft);
      case 'suggest':
        return this.#suggest(message.query);
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

  /** Only what the page shows on its welcome card; the list of models asks before any other download. */
  #download(id: string): Promise<void> | undefined {
    const notice = noticeOf(this.#parts.engine.view);
    if (notice.kind === 'no-model' && notice.offers.some((offer) => offer.id === id)) {
      return this.#parts.models.download(id);
    }
    this.#parts.log.warn('The chat page asked for a model that it does not offer.');
    return undefined;
  }

  #onReady(): Promise<void> {
    this.#listening = true;
    this.#postAll();
    this.#post({ type: 'draft', draft: this.#draft });
    if (this.#focusWanted) this.focusInput();
    return this.#warmUp();
  }

  #keepDraft(draft: Draft): Thenable<void> {
    const changed = draft.text !== this.#draft.text;
    this.#draft = draft;
    if (changed) this.#postContext();
    return this.#parts.memory.update(draftKey, draft);
  }

  #act(action: Action, turn = ''): unknown {
    const { session } = this.#parts;
    switch (action) {
      case 'retry':
        return session.retry(turn);
      case 'send':
        return session.send(turn);
      case 'remove':
        return session.remove(turn);
      case 'stop':
        return session.stop();
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
    const gathered = gatherer.gather(question, session.conversation, tracker.takePasted());
    const open = async () => {
      const { attachments, omitted } = await gathered;
      return { answered: session.ask(question, attachments, omitted) };
    };
    const opened = this.#opening.then(open, open);
    this.#opening = opened;
    await (await opened).answered;
  }

  /** A changed question gets new context; an unchanged one, or a queued one with the same mentions, keeps its own. */
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

  async #suggest(query: string): Promise<void> {
    this.#post({ type: 'suggestions', query, items: await this.#parts.suggester.suggest(query) });
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
    // Most changes are of the editor.
    if (pasted.length > 0 || memory.get(pastedKey) !== undefined)
      void memory.update(pastedKey, pasted.length > 0 ? pasted : undefined);
    this.#postContext();
  }

  #onEngine(): void {
    const { session, engine } = this.#parts;
    this.#postEngine();
    const notice = noticeOf(engine.view);
    if (session.busy) session.showProgress(notice.kind === 'progress' ? notice.text : '', undefined);
  }

  #postAll(): void {
    this.#post({ type: 'conversation', turns: this.#parts.session.turns });
    this.#postEngine();
    this.#postContext();
  }

  #postEngine(): void {
    const { engine, thinking } = this.#parts;
    this.#post({ type: 'notice', notice: noticeOf(engine.view) });
    this.#post({ type: 'controls', controls: controlsOf(engine.view, thinking) });
  }

  #postContext(): void {
    if (!this.#view?.visible) return;
    const chips = this.#parts.gatherer.chips(this.#draft.text);
    const { focus } = this.#parts.tracker;
    const present = focus === undefined || chips.some(({ id }) => id === focusId(focus));
    const restricted = indexEnabled() && !vscode.workspace.isTrusted;
    this.#post({
      type: 'context',
      context: { chips, restricted, ...(present ? {} : { addable: nameOf(focus.path) }) },
    });
  }

  #post(message: ToPage): void {
    void this.#view?.webview.postMessage(message);
  }
}

async function insertAtCursor(text: string): Promise<void> {
  const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
  if (editor === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open the file to insert the code into.'));
    return;
  }
  await editor.edit((edit) => {
    for (const selection of editor.selections) edit.replace(selection, text);
  });
  await vscode.window.showTextDocument(editor.document, editor.viewColumn);
}
