import { isAbsolute } from 'node:path';
import * as vscode from 'vscode';
import { bySuitability, type ModelEntry } from '../../engine/protocol/models.ts';
import { EngineFailure, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { formatBytes } from '../format.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { engineSettings, isAddress } from '../settings.ts';
import type { ModelManager } from './manager.ts';

/** One click downloads a chat model and, if that was not trained to fill in code, a completion model. */
export interface Offer {
  readonly entry: ModelEntry;
  readonly completes?: ModelEntry | undefined;
}

export function offerLabel({ entry, completes }: Offer): string {
  const size = formatBytes(offerBytes({ entry, completes }));
  if (completes === undefined) return `${entry.name} (${size})`;
  return vscode.l10n.t('{0} and, for completions, {1} ({2})', entry.name, completes.name, size);
}

const offerBytes = ({ entry, completes }: Offer): number => entry.downloadBytes + (completes?.downloadBytes ?? 0);

type ModelChoice =
  /** A catalogue id or path that can be loaded now. */
  | { kind: 'use'; model: string; name: string }
  /** No model can be loaded. `offers`: models to download, best first; empty if nothing in the catalogue fits. */
  | { kind: 'download'; offers: Offer[] }
  /** The setting names something that the catalogue does not know. */
  | { kind: 'unknown'; model: string };

/** A server for completions. The model is absent if the server has only one. */
interface ServerChoice {
  readonly kind: 'server';
  readonly url: string;
  readonly model?: string;
}

/** Which model the engine should load. `setting` is hearth.chat.model; '' chooses from the models on disk and the fit. */
export function chooseModel(setting: string, entries: readonly ModelEntry[]): ModelChoice {
  if (setting === '') return automatic(entries);
  const entry = entries.find((candidate) => candidate.id === setting);
  if (entry !== undefined) {
    return entry.state === 'present'
      ? { kind: 'use', model: entry.id, name: entry.name }
      : { kind: 'download', offers: [{ entry }] };
  }
  if (isAbsolute(setting)) return { kind: 'use', model: setting, name: fileName(setting) };
  return { kind: 'unknown', model: setting };
}

/** The parts of the chat model that decide the completion model. */
type ChatModel = Pick<ModelEntry, 'id' | 'fillInTheMiddle'>;

/** The setting that makes the chat model complete, whatever other models there are. */
const chatModelCompletes = 'chat';

/**
 * The separate completion model. Undefined: the chat model completes. `setting` is hearth.completion.model; an address means
 * a server; '' takes the chat model if it was trained to fill in code, otherwise the best model on disk that was.
 * `chat` is undefined if its training is unknown.
 */
export function chooseCompletionModel(
  setting: string,
  chat: ChatModel | undefined,
  entries: readonly ModelEntry[],
): ModelChoice | ServerChoice | undefined {
  if (isAddress(setting)) return serverOf(setting);
  if (setting === chatModelCompletes || (setting !== '' && setting === chat?.id)) return undefined;
  if (setting !== '') return chooseModel(setting, entries);
  if (chat === undefined || chat.fillInTheMiddle) return undefined;
  const best = mostSuitable(entries, 'completion');
  return best && { kind: 'use', model: best.id, name: best.name };
}

/** `https://HOST/v1#MODEL` */
function serverOf(address: string): ServerChoice {
  const [url = '', model] = address.split('#', 2);
  return { kind: 'server', url, ...(model && { model: decodeURIComponent(model) }) };
}

function automatic(entries: readonly ModelEntry[]): ModelChoice {
  const best = mostSuitable(entries, 'chat');
  if (best !== undefined) return { kind: 'use', model: best.id, name: best.name };
  return { kind: 'download', offers: offers(entries) };
}

/** The best model on this computer for a role. The engine decides the order. */
const mostSuitable = (entries: readonly ModelEntry[], role: 'chat' | 'completion'): ModelEntry | undefined =>
  bySuitability(entries, role).find(({ state }) => state === 'present');

/** At most two: the best model for this computer with its completion model, and the smallest download for a quick try. */
function offers(entries: readonly ModelEntry[]): Offer[] {
  const [best, ...others] = bySuitability(entries, 'chat');
  if (best === undefined) return [];
  const completes = entries.find(
    ({ id, state, recommendedFor }) => id !== best.id && state !== 'present' && recommendedFor.includes('completion'),
  );
  const pair = { entry: best, ...(completes && best.recommendedFor.includes('chat') && { completes }) };
  const smaller = others.filter(({ downloadBytes }) => downloadBytes < best.downloadBytes);
  const [smallest] = smaller.sort((a, b) => a.downloadBytes - b.downloadBytes);
  return smallest === undefined ? [pair] : [pair, { entry: smallest }];
}

export function fileName(path: string): string {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;
}

const declinedKey = 'hearth.offerDeclined';

/** Loads the completion model in the background, and offers a download once if there is no model. */
export class FirstRun {
  readonly #engine: EngineHost;
  readonly #models: ModelManager;
  readonly #memory: vscode.Memento;
  readonly #log: Log;
  #loading: Promise<void> | undefined;
  /** A failed load is not repeated at every key, but only after a changed setting, a user's action or a new model. */
  #failed = false;

  constructor(engine: EngineHost, models: ModelManager, memory: vscode.Memento, log: Log) {
    this.#engine = engine;
    this.#models = models;
    this.#memory = memory;
    this.#log = log;
    engine.onView(({ state }) => {
      if (this.#failed && !['no-model', 'downloading', 'failed'].includes(state.kind)) this.again();
    });
  }

  /** Resolves when the completion model is downloaded and loaded, or when that failed. */
  async warmUp(): Promise<void> {
    await this.#engine.until(({ state }) => state.kind !== 'downloading');
    this.#loading ??= this.#load();
    await this.#loading;
  }

  /** The next key may try again. */
  again(): void {
    this.#loading = undefined;
    this.#failed = false;
  }

  async #load(): Promise<void> {
    try {
      const client = await this.#engine.client();
      await client.readyToComplete();
      // If the model is unloaded later (engine stopped, model removed), the next key loads it again.
      this.again();
    } catch (error) {
      this.#failed = true;
      this.#log.info(`No completions yet: ${sentence(error)}`);
      if (error instanceof EngineFailure && error.code === 'no-model') void this.#offer();
      // An unreachable server may come back.
      else if (engineSettings().remote !== undefined) setTimeout(() => this.again(), limits.remote.retryMs).unref();
    }
  }

  async #offer(): Promise<void> {
    const { state } = this.#engine.view;
    if (state.kind !== 'no-model' || this.#memory.get(declinedKey) === true) return;
    const [best, small] = state.offers;
    if (best === undefined) return;
    const size = formatBytes(offerBytes(best));
    const download = vscode.l10n.t('Download ({0})', size);
    const quick = small && vscode.l10n.t('Small and quick ({0})', formatBytes(offerBytes(small)));
    const other = vscode.l10n.t('Other models');
    const never = vscode.l10n.t("Don't ask again");
    const answer = await vscode.window.showInformationMessage(
      vscode.l10n.t(
        'Hearth needs a model for completion and chat. {0} suits this computer; it is downloaded once and stays here.',
        offerLabel(best),
      ),
      ...[download, ...(quick === undefined ? [] : [quick]), other, never],
    );
    if (answer === never) await this.#memory.update(declinedKey, true);
    else if (answer === other) await this.#models.open();
    else if (answer === download) await this.#models.download(best);
    else if (small && answer === quick) await this.#models.download(small);
  }
}

// The walkthrough, and the first window.

/** Ticks a step of the walkthrough in package.json once the user has really done it. */
export function tickStep(step: 'hasModel' | 'hasAccepted' | 'hasAsked' | 'hasSummarised'): void {
  void vscode.commands.executeCommand('setContext', `hearth.${step}`, true);
}

const firstWindowShown = 'hearth.firstWindowShown';

/** In the first window of `npm start`, once per profile: shows chat and walkthrough, and hides VS Code's own chat, which asks for an account. */
export async function showFirstWindow(extension: string, memory: vscode.Memento): Promise<void> {
  if (process.env['HEARTH_FIRST_WINDOW'] !== '1' || memory.get(firstWindowShown) === true) return;
  await memory.update(firstWindowShown, true);
  await vscode.commands.executeCommand('workbench.action.closeAuxiliaryBar');
  await vscode.commands.executeCommand('workbench.action.openWalkthrough', `${extension}#start`, false);
  await vscode.commands.executeCommand('hearth.openChat');
}
