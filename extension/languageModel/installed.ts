import { isAbsolute } from 'node:path';
import * as vscode from 'vscode';
import type { ModelCard, ModelEntry } from '../../engine/protocol/engineProtocol.ts';
import type { EngineClient } from '../client/client.ts';
import { sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import type { Log } from '../log.ts';
import { bareAddress } from '../remote.ts';
import { engineSettings, remoteSettings } from '../settings.ts';

/** What VS Code is told of a model that can answer here. */
export interface InstalledModel {
  id: string;
  name: string;
  family: string;
  description: string;
  contextTokens: number;
  toolCalling: boolean;
}

const listKey = 'hearth.installed';
const cardsKey = 'hearth.cards';

/**
 * The models on this computer, as they were last known: VS Code asks for them in every window, and no engine is started
 * for that but the very first time. What a model can do is known for certain once it was loaded, and remembered.
 */
export class InstalledModels {
  private readonly storage: vscode.Memento;
  private readonly engine: EngineHost;
  private readonly log: Log;
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onChange = this.changed.event;
  private readonly subscription: vscode.Disposable;
  private noted = '';

  constructor(storage: vscode.Memento, engine: EngineHost, log: Log) {
    this.storage = storage;
    this.engine = engine;
    this.log = log;
    this.subscription = engine.onView(({ state }) => {
      if (state.kind === 'ready') this.note(state.card);
    });
  }

  /** `afresh`: asks the engine even where the list is known. */
  async list(afresh: boolean): Promise<InstalledModel[]> {
    const known = this.storage.get<InstalledModel[] | undefined>(listKey, undefined);
    const listed = known === undefined || afresh ? await this.refresh() : known;
    const { model } = engineSettings();
    const loaded = this.engine.current?.warmModel?.id;
    const cards = this.storage.get<Record<string, InstalledModel>>(cardsKey, {});
    const remote = remoteSettings();
    // The user's own file and a server's model are in no list.
    const own = Object.values(cards).filter(
      ({ id }) =>
        (isAbsolute(id) && (id === model || id === loaded)) ||
        (remote !== undefined && id.startsWith(`remote:${bareAddress(remote.url)}`)),
    );
    return [...own, ...listed.map((entry) => ({ ...entry, ...cards[entry.id], description: entry.description }))];
  }

  dispose(): void {
    this.subscription.dispose();
    this.changed.dispose();
  }

  private async refresh(): Promise<InstalledModel[]> {
    const client: EngineClient = await this.engine.client();
    const present = (await client.models())
      .filter(({ state, embedding }) => state === 'present' && !embedding)
      .map(fromEntry);
    await this.storage.update(listKey, present);
    return present;
  }

  /** A model was loaded: its card is the truth, and what is on disk may have changed since the list was made. */
  private note(card: ModelCard): void {
    const model = fromCard(card);
    const key = JSON.stringify(model);
    if (key === this.noted) return;
    this.noted = key;
    this.remember(model).catch((error: unknown) => this.log.warn(`The list of models: ${sentence(error)}`));
  }

  private async remember(model: InstalledModel): Promise<void> {
    const cards = this.storage.get<Record<string, InstalledModel>>(cardsKey, {});
    await this.storage.update(cardsKey, { ...cards, [model.id]: model });
    await this.refresh();
    this.changed.fire();
  }
}

/** Every model of the catalogue has a prompt format that offers tools. */
const fromEntry = ({ id, name, family, description, contextTokens }: ModelEntry): InstalledModel => ({
  ...{ id, name, family, description, contextTokens },
  toolCalling: true,
});

const fromCard = ({ id, name, family, contextTokens, toolCalling, host }: ModelCard): InstalledModel => ({
  ...{ id, family, contextTokens, toolCalling },
  name: host === undefined ? name : `${name} @ ${host}`,
  description: host === undefined ? '' : vscode.l10n.t('Answered by {0}, to which questions are sent', host),
});
