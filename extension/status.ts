import * as vscode from 'vscode';
import type { IndexState } from '../engine/protocol/indexProtocol.ts';
import type { ModelCard } from '../engine/protocol/models.ts';
import type { EngineHost, EngineView } from './client/host.ts';
import { formatBytes, formatSpeed, percent } from './format.ts';
import type { IndexView, RepositoryIndex } from './repository/repositoryIndex.ts';
import { canThink, modeLabel, type Thinking } from './thinking.ts';

interface StatusText {
  text: string;
  tooltip: string;
  problem: boolean;
}

/** Whether the active editor gets completions; `offFor`: the language for which they are off. */
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

/** Which model completes, if the chat model does not or was not trained to. */
function completionLines({ completion }: EngineView, chat: ModelCard): string[] {
  if (completion && 'card' in completion) {
    const { name, host } = completion.card;
    if (host === undefined) return [vscode.l10n.t('{0} completes code.', name)];
    return [vscode.l10n.t('{0} on {1} completes code. The code around the cursor is sent there.', name, host)];
  }
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

/** One sentence on what the index is doing; for the status bar's tooltip and the menu. */
export function indexSentence(view: IndexView): string {
  switch (view.kind) {
    case 'off':
      return view.reason;
    case 'starting':
      return vscode.l10n.t('The repository index is starting.');
    case 'failed':
      return view.message;
    case 'open':
      return [phaseSentence(view.state), skippedSentence(view.state), embeddingSentence(view.state), view.state.problem]
        .filter(Boolean)
        .join(' ');
  }
}

function phaseSentence({ phase, files, pending }: IndexState): string {
  switch (phase) {
    case 'paused':
      return vscode.l10n.t('The repository index is paused: {0} files indexed, {1} pending.', files, pending);
    case 'scanning':
      return vscode.l10n.t('Looking for changed files: {0} files indexed.', files);
    case 'indexing':
      return vscode.l10n.t('Indexing the repository: {0} files indexed, {1} pending.', files, pending);
    case 'idle':
      return vscode.l10n.t('The repository index is up to date: {0} files.', files);
  }
}

function skippedSentence({ skipped }: IndexState): string {
  const total = Object.values(skipped).reduce((sum, count) => sum + count, 0);
  if (total === 0) return '';
  return vscode.l10n.t('{0} files are indexed by name only: too large, binary, generated or unreadable.', total);
}

function embeddingSentence({ embeddings }: IndexState): string {
  if (!embeddings) return '';
  const { phase, model, done, total, problem } = embeddings;
  if (problem !== undefined) return problem;
  if (phase === 'loading') return vscode.l10n.t('Loading the embedding model {0}.', model);
  if (done === total) return vscode.l10n.t('Embedding search uses {0}.', model);
  return vscode.l10n.t('{0} of {1} chunks embedded ({2}).', done, total, model);
}

/** Shown during work, a pause or a problem. */
export class IndexStatus {
  readonly #item = vscode.window.createStatusBarItem('hearth.index', vscode.StatusBarAlignment.Right, 98);
  readonly #subscription: vscode.Disposable;

  constructor(index: RepositoryIndex) {
    this.#item.name = vscode.l10n.t('Hearth: repository index');
    this.#item.command = 'hearth.indexMenu';
    this.#subscription = index.onView((view) => this.#refresh(view));
  }

  dispose(): void {
    this.#subscription.dispose();
    this.#item.dispose();
  }

  #refresh(view: IndexView): void {
    const problem = view.kind === 'failed' || (view.kind === 'open' && problemOf(view.state) !== undefined);
    const busy = view.kind === 'open' && (view.state.phase !== 'idle' || embedded(view.state) !== undefined);
    if (problem || busy) this.#item.show();
    else this.#item.hide();
    this.#item.text = problem ? `$(error) ${vscode.l10n.t('Index')}` : workText(view);
    this.#item.tooltip = indexSentence(view);
    this.#item.accessibilityInformation = { label: `Hearth. ${this.#item.tooltip}` };
    this.#item.backgroundColor = problem ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
  }
}

const problemOf = ({ problem, embeddings }: IndexState): string | undefined => problem ?? embeddings?.problem;

/** Percent of chunks embedded so far; undefined when finished. */
function embedded({ embeddings }: IndexState): number | undefined {
  if (!embeddings || (embeddings.phase !== 'loading' && embeddings.phase !== 'embedding')) return undefined;
  return percent(embeddings.done, embeddings.total) ?? 0;
}

function workText(view: IndexView): string {
  const name = vscode.l10n.t('Index');
  if (view.kind !== 'open') return `$(sync~spin) ${name}`;
  const { phase, files, pending } = view.state;
  if (phase === 'paused') return `$(debug-pause) ${name}`;
  const done = phase === 'indexing' ? percent(files, files + pending) : embedded(view.state);
  return done === undefined ? `$(sync~spin) ${name}` : `$(sync~spin) ${name} ${done}%`;
}

/** Menu of the item. */
export async function showIndexMenu(index: RepositoryIndex): Promise<void> {
  const items: (vscode.QuickPickItem & { command: string })[] = [
    index.isPaused
      ? { label: `$(debug-start) ${vscode.l10n.t('Resume indexing')}`, command: 'hearth.pauseIndex' }
      : { label: `$(debug-pause) ${vscode.l10n.t('Pause indexing')}`, command: 'hearth.pauseIndex' },
    { label: `$(refresh) ${vscode.l10n.t('Rebuild the index')}`, command: 'hearth.rebuildIndex' },
    { label: `$(output) ${vscode.l10n.t('Show log')}`, command: 'hearth.showLog' },
  ];
  const chosen = await vscode.window.showQuickPick(items, { title: indexSentence(index.view) });
  if (chosen !== undefined) await vscode.commands.executeCommand(chosen.command);
}
