import * as vscode from 'vscode';
import type { ModelEntry } from '../../engine/protocol/engineProtocol.ts';
import type { EngineView } from '../client/view.ts';
import { formatBytes, formatParameters, percent } from '../format.ts';
import type { Controls, Notice, Texts } from '../messages.ts';
import { hostOf } from '../remote.ts';
import { remoteSettings } from '../settings.ts';
import { canThink, modeLabel, type Thinking } from '../thinking.ts';

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

const offer = (entry: ModelEntry): { id: string; label: string; detail: string } => ({
  id: entry.id,
  label: `${entry.name} (${formatBytes(entry.downloadBytes)})`,
  detail: `${entry.description} ${entry.fit.reason}`.trim(),
});

function progress(text: string, { done, total }: { done: number; total: number }): Notice {
  const share = percent(done, total);
  if (share === undefined) return { kind: 'progress', text };
  return { kind: 'progress', text: `${text} (${share}%)`, share: share / 100 };
}

export function controlsOf({ state }: EngineView, thinking: Thinking): Controls {
  if (state.kind !== 'ready') {
    const name = 'name' in state ? state.name : vscode.l10n.t('Choose model');
    return {
      model: name,
      modelDetail: '',
      thinking: modeLabel('off'),
      thinkingOn: false,
      canThink: false,
      contextTokens: 0,
    };
  }
  const { card } = state;
  const mode = thinking.mode(card);
  const facts = [
    ...(card.host === undefined ? [vscode.l10n.t('{0} parameters', formatParameters(card.parameters))] : []),
    vscode.l10n.t('{0} tokens of context', card.contextTokens),
    vscode.l10n.t('runs on {0}', card.host ?? card.backend),
    ...card.notes,
  ];
  return {
    model: card.host === undefined ? card.name : `${card.name} @ ${card.host}`,
    modelDetail: facts.join('\n'),
    thinking: modeLabel(mode),
    thinkingOn: mode !== 'off',
    canThink: canThink(card.thinkingModes),
    contextTokens: card.contextTokens,
  };
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

/** The page's texts in the user's language. Called when the page is made: `l10n` is not ready before activation. */
export function pageTexts(): Texts {
  const { t } = vscode.l10n;
  const remote = remoteSettings();
  return {
    conversation: t('Conversation'),
    you: t('You'),
    answer: t('Hearth'),
    emptyTitle: t('Ask about your code'),
    emptyText:
      remote === undefined
        ? t('The model runs on this computer. Nothing you write is sent anywhere.')
        : t('{0} answers. Your questions and attached code are sent there.', hostOf(remote.url)),
    examples: [
      t('Explain what this file does, step by step'),
      t('Find bugs and risky edge cases in this code'),
      t('Write unit tests for the most important function here'),
    ],
    examplesLabel: t('Examples'),
    placeholder: t('Ask about your code (@ to attach)'),
    send: t('Send'),
    queue: t('Add to the queue'),
    queued: t('Queued'),
    held: t('Not sent'),
    copy: t('Copy'),
    copied: t('Copied'),
    insert: t('Insert at cursor'),
    apply: t('Show as a change to the file'),
    run: t('Run in Terminal'),
    copyAnswer: t('Copy answer'),
    edit: t('Edit the question'),
    editNote: t('Replaces this answer and everything after it.'),
    cancel: t('Cancel'),
    regenerate: t('Answer again'),
    thinking: t('Thinking…'),
    thoughts: t('Thoughts'),
    thinkingMode: t('Thinking: {0}', '{0}'),
    cannotAttach: t('Pictures and dropped files are not attached. Mention a file with @file:, or paste its text.'),
    cannotThink: t('This model cannot think'),
    chooseModel: t('Choose model'),
    contextLabel: t('Attached to your question'),
    sentLabel: t('Attached to the question'),
    restricted: t('This folder is in restricted mode. Trust it to let Hearth search it.'),
    passages: t('{0} chunks', '{0}'),
    omitted: t('Left out: {0}', '{0}'),
    mentions: t('Mentions'),
    usage: t('{0} of {1} tokens of the context window used ({2}%)', '{0}', '{1}', '{2}'),
    missingPlace: t('{0} is not in the workspace.', '{0}'),
    removeChip: t('Remove {0}', '{0}'),
    addChip: t('Add {0}', '{0}'),
    chipTokens: t('about {0} tokens', '{0}'),
    stopped: t('You stopped this answer.'),
    interrupted: t('The window closed during this answer. The text received so far was saved.'),
    cutByLength: t('The answer reached the maximum length in your settings.'),
    cutByContext: t('The context window is full. Start a new chat to continue.'),
    cutByRepetition: t('The model repeated itself, so the answer was stopped.'),
    dropped: t('{0} earlier messages did not fit the context window and were left out.', '{0}'),
    speed: t('{0} tokens/s', '{0}'),
    promptTokens: t('{0} prompt, {1} cached', '{0}', '{1}'),
    figuresDetail: t('{0} prompt tokens, {1} from the cache; time to first token {2} s', '{0}', '{1}', '{2}'),
    image: t('image'),
    answered: t('The answer is complete.'),
    scrollDown: t('Scroll to the end'),
    download: t('Download'),
    otherModels: t('Other models'),
    actions: {
      retry: t('Try again'),
      restart: t('Restart the engine'),
      'choose-model': t('Choose a model'),
      'show-log': t('Show log'),
      'new-chat': t('New chat'),
      settings: t('Settings'),
      trust: t('Manage trust'),
      send: t('Send'),
      remove: t('Remove from the queue'),
      stop: t('Stop'),
      'answer-now': t('Answer now'),
      thinking: t('Thinking'),
    },
  };
}
