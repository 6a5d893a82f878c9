import * as vscode from 'vscode';
import type { IndexState } from '../../engine/protocol/indexProtocol.ts';
import { percent } from '../format.ts';
import type { IndexView, RepositoryIndex } from './repositoryIndex.ts';

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

/** Shows while there is something to see: work, a pause, a problem. */
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
    this.#item.text = problem ? '$(error) Index' : workText(view);
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
  if (view.kind !== 'open') return '$(sync~spin) Index';
  const { phase, files, pending } = view.state;
  if (phase === 'paused') return '$(debug-pause) Index';
  const done = phase === 'indexing' ? percent(files, files + pending) : embedded(view.state);
  return done === undefined ? '$(sync~spin) Index' : `$(sync~spin) Index ${done}%`;
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
