import * as vscode from 'vscode';
import type { ModelEntry } from '../../engine/protocol/engineProtocol.ts';
import type { EngineView } from '../client/view.ts';
import { formatBytes, formatParameters, percent } from '../format.ts';
import type { Controls, Notice } from '../messages.ts';
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
