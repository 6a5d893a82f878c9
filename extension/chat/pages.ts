import * as vscode from 'vscode';
import type { ToPage } from '../messages.ts';
import { chatPage } from './html.ts';
import { pageTexts } from './panel.ts';

/** As package.json names the view; the tab's type is the same. */
const chatViewId = 'hearth.chat';

/** A webview that shows the chat: the view's, or the editor tab's. */
export interface ChatPage {
  readonly view: vscode.WebviewView | vscode.WebviewPanel;
  /** It sent `ready`. */
  isListening: boolean;
  focusWanted: boolean;
}

/** The pages of the chat, in its view and in an editor tab. All show the same. */
export class ChatPages {
  readonly #extensionUri: vscode.Uri;
  readonly #onMessage: (message: unknown, from: ChatPage) => void;
  readonly #all = new Set<ChatPage>();
  #view: ChatPage | undefined;
  #tab: ChatPage | undefined;
  /** VS Code has not made the view yet. */
  #isViewAwaited = false;

  constructor(extensionUri: vscode.Uri, onMessage: (message: unknown, from: ChatPage) => void) {
    this.#extensionUri = extensionUri;
    this.#onMessage = onMessage;
  }

  get isVisible(): boolean {
    return [...this.#all].some(({ view }) => view.visible);
  }

  attach(view: vscode.WebviewView): void {
    const page = this.#pageIn(view);
    this.#view = page;
    page.focusWanted = this.#isViewAwaited;
    this.#isViewAwaited = false;
    view.onDidChangeVisibility(() => noteVisibility(page));
    view.onDidDispose(() => {
      if (this.#view === page) this.#view = undefined;
    });
  }

  attachTab(panel: vscode.WebviewPanel): ChatPage {
    const page = this.#pageIn(panel);
    this.#tab = page;
    panel.iconPath = vscode.Uri.joinPath(this.#extensionUri, 'media', 'icon.png');
    panel.onDidChangeViewState(() => noteVisibility(page));
    panel.onDidDispose(() => {
      this.#tab = undefined;
    });
    return page;
  }

  /** Shows the chat in an editor tab beside the code, as well as in its view. */
  openTab(): void {
    const column = { viewColumn: vscode.ViewColumn.Beside };
    this.focus(this.#tab ?? this.attachTab(vscode.window.createWebviewPanel(chatViewId, 'Hearth', column)));
  }

  /** Brings the chat up where the user has it, with the question box focused once its page listens. */
  async reveal(): Promise<void> {
    if (this.#tab) return this.focus(this.#tab);
    this.#isViewAwaited = this.#view === undefined;
    await vscode.commands.executeCommand(`${chatViewId}.focus`);
    if (this.#view) this.focus(this.#view);
  }

  focus(page: ChatPage): void {
    if ('reveal' in page.view) page.view.reveal();
    page.focusWanted = !page.isListening;
    postTo(page, { type: 'focus' });
  }

  /** With the current texts. */
  redraw(): void {
    for (const page of this.#all) this.#draw(page);
  }

  readonly post = (message: ToPage): void => {
    for (const { view } of this.#all) void view.webview.postMessage(message);
  };

  /** To the pages that `from` is not. */
  tellOthers(from: ChatPage, message: ToPage): void {
    for (const page of this.#all) if (page !== from) postTo(page, message);
  }

  #pageIn(view: ChatPage['view']): ChatPage {
    const page: ChatPage = { view, isListening: false, focusWanted: false };
    view.webview.options = { enableScripts: true, localResourceRoots: [this.#dist] };
    view.webview.onDidReceiveMessage((message) => this.#onMessage(message, page));
    view.onDidDispose(() => this.#all.delete(page));
    this.#all.add(page);
    this.#draw(page);
    return page;
  }

  get #dist(): vscode.Uri {
    return vscode.Uri.joinPath(this.#extensionUri, 'dist');
  }

  #draw(page: ChatPage): void {
    const { webview } = page.view;
    const uriOf = (name: string): string => webview.asWebviewUri(vscode.Uri.joinPath(this.#dist, name)).toString();
    page.isListening = false;
    webview.html = chatPage({
      scriptUri: uriOf('chat.js'),
      styleUri: uriOf('chat.css'),
      diagramsUri: uriOf('diagrams.js'),
      cspSource: webview.cspSource,
      language: vscode.env.language,
      texts: pageTexts(),
    });
  }
}

export function postTo({ view }: ChatPage, message: ToPage): void {
  void view.webview.postMessage(message);
}

/** VS Code discards a hidden page, which then sends `ready` again. */
function noteVisibility(page: ChatPage): void {
  if (!page.view.visible) page.isListening = false;
}
