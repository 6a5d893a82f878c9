import * as vscode from 'vscode';
import type { ModelCard } from '../../engine/protocol/models.ts';
import type { EngineView } from '../client/host.ts';
import { formatParameters, percent } from '../format.ts';
import type { Controls, Notice, Texts, ToPage } from '../messages.ts';
import { type Offer, offerLabel } from '../models/choose.ts';
import { hostOf } from '../servers.ts';
import { type EngineSettings, engineSettings, isAddress } from '../settings.ts';
import { canThink, modeLabel, type Thinking } from '../thinking.ts';
import { chatPage } from './html.ts';

/** As package.json names the view; the tab's type is the same. */
const chatViewId = 'hearth.chat';

/** A webview that shows the chat: the view's, or the editor tab's. */
export interface ChatPage {
  readonly view: vscode.WebviewView | vscode.WebviewPanel;
  /** The page has sent `ready`. */
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
  /** VS Code has not created the view yet. */
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

  /** Shows the chat in the view or tab where the user has it, and focuses the question box once the page listens. */
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

  /** Loads the pages again with the current texts. */
  redraw(): void {
    for (const page of this.#all) this.#draw(page);
  }

  readonly post = (message: ToPage): void => {
    for (const { view } of this.#all) void view.webview.postMessage(message);
  };

  /** Sends to all pages except `from`. */
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

/** Notice above the question box for each engine state. */
export function noticeOf({ state }: EngineView): Notice {
  switch (state.kind) {
    case 'idle':
    case 'ready':
      return { kind: 'none' };
    case 'starting':
      return { kind: 'progress', text: vscode.l10n.t('Starting the engine') };
    case 'restarting':
      return { kind: 'progress', text: vscode.l10n.t('The engine stopped unexpectedly and is restarting') };
    case 'connecting':
      return { kind: 'progress', text: vscode.l10n.t('Connecting to {0}', state.host) };
    case 'loading':
      return progress(vscode.l10n.t('Loading {0}', state.name), state);
    case 'downloading':
      return progress(vscode.l10n.t('Downloading {0}', state.name), state);
    case 'no-model':
      return {
        kind: 'no-model',
        text: state.problem ?? vscode.l10n.t('Hearth needs a model. It is downloaded once and stays on this computer.'),
        failed: state.problem !== undefined,
        offers: state.offers.map(offer),
      };
    case 'failed':
      return {
        kind: 'problem',
        text: state.message,
        actions: state.remedy === 'restart' ? ['restart', 'show-log'] : ['choose-model', 'show-log'],
      };
  }
}

const offer = (offered: Offer): { id: string; label: string; detail: string } => ({
  id: offered.entry.id,
  label: offerLabel(offered),
  detail: `${offered.entry.description} ${offered.entry.fit.reason}`.trim(),
});

function progress(text: string, { done, total }: { done: number; total: number }): Notice {
  const share = percent(done, total);
  if (share === undefined) return { kind: 'progress', text };
  return { kind: 'progress', text: `${text} (${share}%)`, share: share / 100 };
}

/** `isAgentOn`: for the chat on screen with this model. */
export function controlsOf(
  { state }: EngineView,
  thinking: Thinking,
  isAgentOn: (card: ModelCard) => boolean = () => false,
): Controls {
  if (state.kind !== 'ready') {
    const name = 'name' in state ? state.name : vscode.l10n.t('Choose model');
    return {
      model: name,
      modelDetail: '',
      thinking: modeLabel('off'),
      thinkingOn: false,
      canThink: false,
      agent: 'unavailable',
      contextTokens: 0,
    };
  }
  const { card } = state;
  const mode = thinking.mode(card);
  const facts = [
    ...(card.host === undefined ? [vscode.l10n.t('{0} parameters', formatParameters(card.parameters))] : []),
    vscode.l10n.t('{0} tokens of context', card.contextTokens),
    card.host === undefined ? runsOn(card.backend) : vscode.l10n.t('runs on {0}', card.host),
    ...card.notes,
  ];
  return {
    model: card.host === undefined ? card.name : `${card.name} @ ${card.host}`,
    modelDetail: facts.join('\n'),
    thinking: modeLabel(mode),
    thinkingOn: mode !== 'off',
    canThink: canThink(card.thinkingModes),
    agent: !card.toolCalling || !vscode.workspace.isTrusted ? 'unavailable' : isAgentOn(card) ? 'on' : 'off',
    contextTokens: card.contextTokens,
  };
}

function runsOn(backend: ModelCard['backend']): string {
  switch (backend) {
    case 'webgpu':
      return vscode.l10n.t('runs on the GPU');
    case 'split':
      return vscode.l10n.t('runs on the GPU and the CPU');
    case 'ggml':
    case 'onnx':
      return vscode.l10n.t('runs on the CPU');
    default:
      return vscode.l10n.t('runs on {0}', backend);
  }
}

/** Returns a link that may be opened: http(s) only, without credentials. */
export function webLink(href: string): URL | undefined {
  if (!URL.canParse(href)) return undefined;
  const url = new URL(href);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return undefined;
  return url.username === '' && url.password === '' ? url : undefined;
}

/** A URL from a model can leak what the model read, so the user sees all of it first. */
export async function openLink(href: string): Promise<void> {
  const url = webLink(href);
  if (url === undefined) return;
  const open = vscode.l10n.t('Open');
  const copy = vscode.l10n.t('Copy');
  const answer = await vscode.window.showInformationMessage(
    vscode.l10n.t('Open {0} in the browser?', url.host),
    { modal: true, detail: vscode.l10n.t('The model wrote this address:\n\n{0}', url.href) },
    open,
    copy,
  );
  if (answer === open) await vscode.env.openExternal(vscode.Uri.parse(url.href, true));
  if (answer === copy) await vscode.env.clipboard.writeText(url.href);
}

function whereItGoes({ remote, completionModel }: EngineSettings): string {
  if (remote) return vscode.l10n.t('{0} answers. Your questions and attached code are sent there.', hostOf(remote.url));
  if (!isAddress(completionModel)) {
    return vscode.l10n.t('The model runs on this computer. Nothing you write is sent anywhere.');
  }
  return vscode.l10n.t(
    'The model runs on this computer: your questions stay here. Completions send the code around the cursor to {0}.',
    hostOf(completionModel),
  );
}

/** The page's texts in the user's language. Called when the page is created: `l10n` is not ready before activation. */
export function pageTexts(): Texts {
  return {
    conversation: vscode.l10n.t('Conversation'),
    you: vscode.l10n.t('You'),
    answer: vscode.l10n.t('Hearth'),
    emptyTitle: vscode.l10n.t('Ask about your code'),
    emptyText: whereItGoes(engineSettings()),
    examples: [
      vscode.l10n.t('Explain what this file does, step by step'),
      vscode.l10n.t('Find bugs and risky edge cases in this code'),
      vscode.l10n.t('Write unit tests for the most important function here'),
    ],
    examplesLabel: vscode.l10n.t('Examples'),
    placeholder: vscode.l10n.t('Ask about your code (@ to attach)'),
    send: vscode.l10n.t('Send'),
    queue: vscode.l10n.t('Add to the queue'),
    queued: vscode.l10n.t('Queued'),
    held: vscode.l10n.t('Not sent'),
    copy: vscode.l10n.t('Copy'),
    copied: vscode.l10n.t('Copied'),
    insert: vscode.l10n.t('Insert at cursor'),
    apply: vscode.l10n.t('Show as a change to the file'),
    run: vscode.l10n.t('Run in Terminal'),
    changes: vscode.l10n.t('File changes: {0}', '{0}'),
    newFile: vscode.l10n.t('new file'),
    deletedFile: vscode.l10n.t('deleted'),
    renamedFile: vscode.l10n.t('renamed'),
    lineCounts: vscode.l10n.t('{0} lines added, {1} removed', '{0}', '{1}'),
    showChange: vscode.l10n.t('Show the change to {0}', '{0}'),
    acceptChange: vscode.l10n.t('Accept the change to {0}', '{0}'),
    rejectChange: vscode.l10n.t('Reject the change to {0}', '{0}'),
    acceptAll: vscode.l10n.t('Accept All'),
    rejectAll: vscode.l10n.t('Reject All'),
    accepted: vscode.l10n.t('Accepted'),
    rejected: vscode.l10n.t('Rejected'),
    restore: vscode.l10n.t('Restore the Files'),
    steps: vscode.l10n.t('Steps: {0}', '{0}'),
    allowOnce: vscode.l10n.t('Allow Once'),
    allowChat: vscode.l10n.t('Allow in This Chat'),
    never: vscode.l10n.t('Never in This Chat'),
    asks: vscode.l10n.t('Hearth asks to run this:'),
    refused: vscode.l10n.t('not allowed'),
    failed: vscode.l10n.t('failed'),
    agentOn: vscode.l10n.t('The agent is on: answers may read, search, propose changes, and ask to run commands'),
    agentOff: vscode.l10n.t('Turn on the agent for this chat'),
    agentUnavailable: vscode.l10n.t('The agent needs a model that calls tools, and a trusted folder'),
    copyAnswer: vscode.l10n.t('Copy answer'),
    edit: vscode.l10n.t('Edit the question'),
    editNote: vscode.l10n.t('Replaces this answer and everything after it.'),
    cancel: vscode.l10n.t('Cancel'),
    regenerate: vscode.l10n.t('Answer again'),
    thinking: vscode.l10n.t('Thinking…'),
    thoughts: vscode.l10n.t('Thoughts'),
    thinkingMode: vscode.l10n.t('Thinking: {0}', '{0}'),
    cannotAttach: vscode.l10n.t(
      'Not attached: {0}. Models cannot see pictures, and only files of the workspace can be dropped here. Paste the text instead.',
      '{0}',
    ),
    pictureName: vscode.l10n.t('picture'),
    cannotThink: vscode.l10n.t('This model cannot think'),
    chooseModel: vscode.l10n.t('Choose model'),
    contextLabel: vscode.l10n.t('Attached to your question'),
    sentLabel: vscode.l10n.t('Attached to the question'),
    restricted: vscode.l10n.t('This folder is in restricted mode. Trust it to let Hearth search it.'),
    passages: vscode.l10n.t('{0} chunks', '{0}'),
    omitted: vscode.l10n.t('Left out: {0}', '{0}'),
    mentions: vscode.l10n.t('Mentions'),
    usage: vscode.l10n.t('{0} of {1} tokens of the context window used ({2}%)', '{0}', '{1}', '{2}'),
    missingPlace: vscode.l10n.t('{0} is not in the workspace.', '{0}'),
    removeChip: vscode.l10n.t('Remove {0}', '{0}'),
    addChip: vscode.l10n.t('Add {0}', '{0}'),
    pin: vscode.l10n.t('Attach {0} to every question of this chat', '{0}'),
    unpin: vscode.l10n.t('Attached to every question of this chat. Remove {0}', '{0}'),
    chipTokens: vscode.l10n.t('about {0} tokens', '{0}'),
    stopped: vscode.l10n.t('You stopped this answer.'),
    interrupted: vscode.l10n.t('The window closed during this answer. The text received so far was saved.'),
    cutByLength: vscode.l10n.t('The answer reached the maximum length in your settings.'),
    cutByContext: vscode.l10n.t('The context window is full. Start a new chat to continue.'),
    cutByRepetition: vscode.l10n.t('The model repeated itself, so the answer was stopped.'),
    dropped: vscode.l10n.t('{0} earlier messages did not fit the context window and were left out.', '{0}'),
    speed: vscode.l10n.t('{0} tokens/s', '{0}'),
    promptTokens: vscode.l10n.t('{0} prompt, {1} cached', '{0}', '{1}'),
    figuresDetail: vscode.l10n.t(
      '{0} prompt tokens, {1} from the cache; time to first token {2} s',
      '{0}',
      '{1}',
      '{2}',
    ),
    image: vscode.l10n.t('image'),
    diagram: vscode.l10n.t('Diagram'),
    diagramFailed: vscode.l10n.t('The diagram could not be drawn: {0}', '{0}'),
    diagramSlow: vscode.l10n.t('it takes too long.'),
    diagramLong: vscode.l10n.t('its source is too long.'),
    showSource: vscode.l10n.t('Show the source'),
    answered: vscode.l10n.t('The answer is complete.'),
    scrollDown: vscode.l10n.t('Scroll to the end'),
    download: vscode.l10n.t('Download'),
    otherModels: vscode.l10n.t('Other models'),
    actions: {
      retry: vscode.l10n.t('Try again'),
      restart: vscode.l10n.t('Restart the engine'),
      'choose-model': vscode.l10n.t('Choose a model'),
      'show-log': vscode.l10n.t('Show log'),
      'new-chat': vscode.l10n.t('New chat'),
      settings: vscode.l10n.t('Settings'),
      trust: vscode.l10n.t('Manage trust'),
      send: vscode.l10n.t('Send'),
      remove: vscode.l10n.t('Remove from the queue'),
      stop: vscode.l10n.t('Stop'),
      'answer-now': vscode.l10n.t('Answer now'),
      thinking: vscode.l10n.t('Thinking'),
      agent: vscode.l10n.t('Agent'),
      fork: vscode.l10n.t('Continue from here in a new chat'),
    },
  };
}
