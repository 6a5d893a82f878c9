import * as vscode from 'vscode';
import { sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import type { Log } from '../log.ts';
import { type Action, type ToHost, type ToPage, toHost } from '../messages.ts';
import type { ModelManager } from '../models/manager.ts';
import { chatSettings } from '../settings.ts';
import type { Thinking } from '../thinking.ts';
import { attachmentChars, type ContextTracker } from './context.ts';
import type { Attachment } from './conversation.ts';
import { chatPage } from './html.ts';
import { openLink } from './links.ts';
import { controlsOf, noticeOf } from './panel.ts';
import type { ChatSession } from './session.ts';
import { pageTexts } from './texts.ts';

export interface ChatViewParts {
  extensionUri: vscode.Uri;
  engine: EngineHost;
  session: ChatSession;
  context: ContextTracker;
  thinking: Thinking;
  models: ModelManager;
  log: Log;
}

/** Carries messages between the page and the parts that do the work; keeps no state of the conversation itself. */
export class ChatView {
  private readonly parts: ChatViewParts;
  private readonly subscriptions: vscode.Disposable;
  private view: vscode.WebviewView | undefined;
  /** The page has said that it listens. */
  private listening = false;
  private focusWanted = false;

  constructor(parts: ChatViewParts) {
    this.parts = parts;
    this.subscriptions = vscode.Disposable.from(
      parts.session.onMessage((message) => this.post(message)),
      parts.engine.onView(() => this.onEngine()),
      parts.context.onChange(() => this.postContext()),
      parts.thinking.onChange(() => this.postEngine()),
    );
  }

  attach(view: vscode.WebviewView): void {
    this.view = view;
    const { webview } = view;
    const dist = vscode.Uri.joinPath(this.parts.extensionUri, 'dist');
    webview.options = { enableScripts: true, localResourceRoots: [dist] };
    webview.onDidReceiveMessage((raw: unknown) => this.receive(raw));
    view.onDidDispose(() => {
      this.view = undefined;
      this.listening = false;
    });
    view.onDidChangeVisibility(() => {
      // A hidden page is thrown away: it says `ready` anew.
      if (!view.visible) this.listening = false;
    });
    this.listening = false;
    webview.html = chatPage({
      scriptUri: webview.asWebviewUri(vscode.Uri.joinPath(dist, 'chat.js')).toString(),
      styleUri: webview.asWebviewUri(vscode.Uri.joinPath(dist, 'chat.css')).toString(),
      cspSource: webview.cspSource,
      language: vscode.env.language,
      texts: pageTexts(),
    });
  }

  /** Puts the cursor into the question box, once the page is there. */
  focusInput(): void {
    this.focusWanted = !this.listening;
    this.post({ type: 'focus' });
  }

  dispose(): void {
    this.subscriptions.dispose();
  }

  private receive(raw: unknown): void {
    const parsed = toHost.safeParse(raw);
    if (!parsed.success) {
      this.parts.log.warn('The chat page sent something that is not understood.');
      return;
    }
    Promise.resolve(this.handle(parsed.data)).catch((error: unknown) => {
      this.parts.log.error(`Chat view: ${sentence(error)}`);
      void vscode.window.showErrorMessage(sentence(error));
    });
  }

  private handle(message: ToHost): unknown {
    const { session, context, models } = this.parts;
    switch (message.type) {
      case 'ready':
        return this.onReady();
      case 'send':
        return session.ask(message.text, this.attachments());
      case 'resend':
        return session.resend(message.turn, message.text);
      case 'stop':
        return session.stop();
      case 'copy':
        return vscode.env.clipboard.writeText(message.text);
      case 'insert':
        return insertAtCursor(message.text);
      case 'open-link':
        return openLink(message.href);
      case 'remove-chip':
        return context.remove(message.id);
      case 'add-context':
        return context.add();
      case 'pick-thinking':
        return vscode.commands.executeCommand('hearth.thinking');
      case 'pick-model':
        return vscode.commands.executeCommand('hearth.chooseModel');
      case 'download':
        return models.download(message.model);
      case 'action':
        return this.act(message.action, message.turn);
      case 'page-error':
        return this.parts.log.error(`Chat page: ${message.message}`);
    }
  }

  private onReady(): Promise<void> {
    this.listening = true;
    this.postAll();
    if (this.focusWanted) this.focusInput();
    return this.warmUp();
  }

  private act(action: Action, turn: string | undefined): unknown {
    const commands: Record<Exclude<Action, 'retry'>, [string, ...string[]]> = {
      restart: ['hearth.restartEngine'],
      'choose-model': ['hearth.chooseModel'],
      'show-log': ['hearth.showLog'],
      'new-chat': ['hearth.newChat'],
      settings: ['workbench.action.openSettings', 'hearth'],
    };
    if (action === 'retry') return turn === undefined ? undefined : this.parts.session.retry(turn);
    const [command, ...args] = commands[action];
    return vscode.commands.executeCommand(command, ...args);
  }

  /** Whoever opens the chat is about to ask: the model loads while they type. Problems show as the notice. */
  private async warmUp(): Promise<void> {
    const client = await this.parts.engine.client();
    await client.ready().catch((error: unknown) => this.parts.log.info(`The model is not loaded: ${sentence(error)}`));
  }

  private attachments(): Attachment[] {
    const maxChars = attachmentChars(this.parts.engine.current?.warmModel);
    return this.parts.context.attachments(maxChars, chatSettings().includeActiveFile);
  }

  private onEngine(): void {
    const { session, engine } = this.parts;
    this.postEngine();
    const notice = noticeOf(engine.view);
    if (session.busy) session.showProgress(notice.kind === 'progress' ? notice.text : '', undefined);
  }

  private postAll(): void {
    this.post({ type: 'conversation', turns: this.parts.session.turns });
    this.postEngine();
    this.postContext();
  }

  private postEngine(): void {
    const { engine, thinking } = this.parts;
    this.post({ type: 'notice', notice: noticeOf(engine.view) });
    this.post({ type: 'controls', controls: controlsOf(engine.view, thinking) });
  }

  private postContext(): void {
    if (!this.view?.visible) return;
    const attachments = this.attachments();
    const addable = this.parts.context.addable(attachments);
    const chips = attachments.map(({ id, label, detail, tokens }) => ({ id, label, detail, tokens }));
    this.post({ type: 'context', context: { chips, ...(addable === undefined ? {} : { addable }) } });
  }

  private post(message: ToPage): void {
    void this.view?.webview.postMessage(message);
  }
}

async function insertAtCursor(text: string): Promise<void> {
  const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
  if (editor === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open a file to insert the code into.'));
    return;
  }
  await editor.edit((edit) => {
    for (const selection of editor.selections) edit.replace(selection, text);
  });
  await vscode.window.showTextDocument(editor.document, editor.viewColumn);
}
