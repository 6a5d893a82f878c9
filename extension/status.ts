import * as vscode from 'vscode';
import type { ModelCard } from '../engine/protocol/engineProtocol.ts';
import type { EngineHost } from './client/host.ts';
import type { EngineView } from './client/view.ts';
import { formatBytes, formatSpeed, percent } from './format.ts';
import { canThink, modeLabel, type Thinking } from './thinking.ts';

export interface StatusText {
  text: string;
  tooltip: string;
  problem: boolean;
}

/** Whether the active editor gets completions; a language id: they are off for it. */
export type Completions = 'on' | 'paused' | 'off' | { offFor: string };

/** Text of the status bar. Pure. */
export function statusText(view: EngineView, completions: Completions): StatusText {
  const { state } = view;
  const say = (icon: string, text: string, tooltip: string, problem = false): StatusText => ({
    text: `$(${icon}) ${text}`,
    tooltip,
    problem,
  });
  switch (state.kind) {
    case 'idle':
      return say('flame', 'Hearth', vscode.l10n.t('The model loads when it is first needed.'));
    case 'starting':
      return say('loading~spin', 'Hearth', vscode.l10n.t('The engine is starting.'));
    case 'no-model':
      return say('cloud-download', 'Hearth', vscode.l10n.t('There is no model on this computer yet.'));
    case 'downloading':
      return say('loading~spin', share(state), vscode.l10n.t('Downloading {0}: {1}', state.name, bytes(state)));
    case 'loading':
      return say('loading~spin', share(state), vscode.l10n.t('Loading {0}', state.name));
    case 'restarting':
      return say('sync~spin', 'Hearth', vscode.l10n.t('The engine stopped unexpectedly. It is restarting.'));
    case 'failed':
      return say('error', 'Hearth', state.message, true);
    case 'connecting':
      return say('loading~spin', state.host, vscode.l10n.t('Connecting to {0}', state.host));
    case 'ready':
      return readyText(view, state.card, completions);
  }
}

function readyText(view: EngineView, card: ModelCard, completions: Completions): StatusText {
  const { name, host } = card;
  const resting = view.away !== undefined ? 'warning' : completions === 'on' ? undefined : restIcon(completions);
  const icon = view.running > 0 ? 'loading~spin' : (resting ?? (host === undefined ? 'flame' : 'cloud'));
  const speed = view.last === undefined ? '' : `  ${formatSpeed(view.last.tokensPerSecond)}`;
  const lines = [view.running > 0 ? vscode.l10n.t('{0} is working.', name) : vscode.l10n.t('{0} is ready.', name)];
  if (host !== undefined) {
    lines.push(vscode.l10n.t('{0} answers. Questions and attached code are sent there.', host));
  }
  lines.push(...completionLines(view, card));
  if (view.away !== undefined) lines.push(vscode.l10n.t('The server did not answer: {0}', view.away));
  if (completions !== 'on') lines.push(restSentence(completions));
  if (view.last !== undefined) {
    lines.push(
      vscode.l10n.t(
        'Last answer: {0} prompt tokens, {1} from the cache; time to first token {2} ms.',
        view.last.promptTokens,
        view.last.cachedTokens,
        Math.round(view.last.timeToFirstTokenMs),
      ),
    );
  }
  return {
    text: `$(${icon}) ${host === undefined ? name : `${name} @ ${host}`}${speed}`,
    tooltip: lines.join('\n\n'),
    problem: view.away !== undefined,
  };
}

const restIcon = (completions: Completions): string => (completions === 'paused' ? 'debug-pause' : 'circle-slash');

function restSentence(completions: Exclude<Completions, 'on'>): string {
  if (completions === 'paused') return vscode.l10n.t('Completions are paused.');
  if (completions === 'off') return vscode.l10n.t('Completions are switched off in the settings.');
  return vscode.l10n.t('Completions are off for {0}.', completions.offFor);
}

/** Which model completes, if the chat model does not or does it badly. */
function completionLines({ completion }: EngineView, chat: ModelCard): string[] {
  if (completion && 'card' in completion) return [vscode.l10n.t('{0} completes code.', completion.card.name)];
  const lines = completion ? [vscode.l10n.t('The model for completions is not used: {0}', completion.problem)] : [];
  if (!chat.fillInTheMiddle) {
    lines.push(
      vscode.l10n.t(
        '{0} was not trained to fill in code: completions do not see what follows the cursor. Models has small ones that were.',
        chat.name,
      ),
    );
  }
  return lines;
}

const share = (state: { name: string; done: number; total: number }): string => {
  const done = percent(state.done, state.total);
  return done === undefined ? state.name : `${state.name} ${done}%`;
};

const bytes = (state: { done: number; total: number }): string =>
  vscode.l10n.t('{0} of {1}', formatBytes(state.done), formatBytes(state.total));

/** The two items at the right: model and state, and the thinking switch. */
export class StatusBar {
  readonly #main = vscode.window.createStatusBarItem('hearth.status', vscode.StatusBarAlignment.Right, 100);
  readonly #switch = vscode.window.createStatusBarItem('hearth.thinking', vscode.StatusBarAlignment.Right, 99);
  readonly #engine: EngineHost;
  readonly #thinking: Thinking;
  readonly #completions: () => Completions;

  constructor(engine: EngineHost, thinking: Thinking, completions: () => Completions) {
    this.#engine = engine;
    this.#thinking = thinking;
    this.#completions = completions;
    this.#main.name = 'Hearth';
    this.#main.command = 'hearth.menu';
    this.#switch.name = vscode.l10n.t('Hearth: thinking');
    this.#switch.command = 'hearth.thinking';
    this.refresh();
    this.#main.show();
  }

  refresh(): void {
    const view = this.#engine.view;
    const { text, tooltip, problem } = statusText(view, this.#completions());
    this.#main.text = text;
    this.#main.tooltip = tooltip;
    this.#main.accessibilityInformation = { label: `Hearth. ${tooltip}` };
    this.#main.backgroundColor = problem ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
    if (view.state.kind === 'ready') this.#showSwitch(view.state.card);
    else this.#switch.hide();
  }

  dispose(): void {
    this.#main.dispose();
    this.#switch.dispose();
  }

  #showSwitch(card: Parameters<Thinking['mode']>[0]): void {
    const able = canThink(card.thinkingModes);
    const mode = modeLabel(this.#thinking.mode(card));
    this.#switch.text = able ? `$(lightbulb) ${mode}` : '$(lightbulb)';
    this.#switch.tooltip = able
      ? vscode.l10n.t('Thinking: {0}. Click to change.', mode)
      : vscode.l10n.t('This model cannot think.');
    this.#switch.color = able ? undefined : new vscode.ThemeColor('disabledForeground');
    this.#switch.accessibilityInformation = { label: this.#switch.tooltip };
    this.#switch.show();
  }
}
