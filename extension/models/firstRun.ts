import * as vscode from 'vscode';
import { EngineFailure, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { formatBytes } from '../format.ts';
import { limits } from '../limits.ts';
import type { Log } from '../log.ts';
import { remoteSettings } from '../settings.ts';
import type { ModelManager } from './manager.ts';

const declinedKey = 'hearth.offerDeclined';

/** Loads the model in the background for completions, and offers a download once where there is none. */
export class FirstRun {
  readonly #engine: EngineHost;
  readonly #models: ModelManager;
  readonly #memory: vscode.Memento;
  readonly #log: Log;
  /** Does not retry a failure at every key. A changed setting or a user action clears it. */
  #settled = false;

  constructor(engine: EngineHost, models: ModelManager, memory: vscode.Memento, log: Log) {
    this.#engine = engine;
    this.#models = models;
    this.#memory = memory;
    this.#log = log;
  }

  warmUp(): void {
    if (this.#settled) return;
    this.#settled = true;
    void this.#load();
  }

  /** The next key may try again. */
  again(): void {
    this.#settled = false;
  }

  async #load(): Promise<void> {
    try {
      const client = await this.#engine.client();
      await client.ready();
      // Should the model go away (engine stopped, model removed), the next key loads it again.
      this.#settled = false;
    } catch (error) {
      this.#log.info(`No completions yet: ${sentence(error)}`);
      if (error instanceof EngineFailure && error.code === 'no-model') await this.#offer();
      // A server that is not there comes back by itself.
      else if (remoteSettings() !== undefined) setTimeout(() => this.again(), limits.remote.retryMs).unref();
    }
  }

  async #offer(): Promise<void> {
    const { state } = this.#engine.view;
    if (state.kind !== 'no-model' || this.#memory.get(declinedKey) === true) return;
    const [best, small] = state.offers;
    if (best === undefined) return;
    const size = formatBytes(best.downloadBytes);
    const download = vscode.l10n.t('Download ({0})', size);
    const quick = small && vscode.l10n.t('Small and quick ({0})', formatBytes(small.downloadBytes));
    const other = vscode.l10n.t('Other models');
    const never = vscode.l10n.t("Don't ask again");
    const answer = await vscode.window.showInformationMessage(
      vscode.l10n.t(
        'Hearth needs a model for completion and chat. {0} ({1}) suits this computer; it is downloaded once and stays here.',
        best.name,
        size,
      ),
      ...[download, ...(quick === undefined ? [] : [quick]), other, never],
    );
    if (answer === never) await this.#memory.update(declinedKey, true);
    else if (answer === other) await this.#models.open();
    else if (answer === download) await this.#models.download(best.id);
    else if (small && answer === quick) await this.#models.download(small.id);
  }
}
