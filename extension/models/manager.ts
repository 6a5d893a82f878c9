import * as vscode from 'vscode';
import type { Progress } from '../../engine/protocol/engineProtocol.ts';
import type { HubOffer, ModelEntry } from '../../engine/protocol/models.ts';
import type { EngineClient } from '../client/client.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { formatBytes, formatParameters, percent } from '../format.ts';
import { engineSettings, indexEmbeddings, writeSetting } from '../settings.ts';
import type { Offer } from './choose.ts';

interface ModelItem extends vscode.QuickPickItem {
  entry?: ModelEntry;
  action?: 'file' | 'hub' | 'automatic' | 'compare' | 'remote';
}

/** Read-only pages about models. */
const pageScheme = 'hearth-models';

/** Lists, downloads, checks, removes and chooses models. */
export class ModelManager {
  #page = '';
  readonly #pages = vscode.workspace.registerTextDocumentContentProvider(pageScheme, {
    provideTextDocumentContent: () => this.#page,
  });

  readonly #engine: EngineHost;
  readonly #searchWith: (model: string) => Promise<void>;

  /** `searchWith` makes the index use an embedding model. */
  constructor(engine: EngineHost, searchWith: (model: string) => Promise<void>) {
    this.#engine = engine;
    this.#searchWith = searchWith;
  }

  dispose(): void {
    this.#pages.dispose();
  }

  async open(): Promise<void> {
    if (engineSettings().remote !== undefined) {
      await vscode.commands.executeCommand('hearth.chooseRemoteModel');
      return;
    }
    const client = await this.#engine.client();
    const picker = vscode.window.createQuickPick<ModelItem>();
    picker.title = vscode.l10n.t('Hearth: Models');
    picker.placeholder = vscode.l10n.t('Choose the model that answers (downloaded first if needed)');
    picker.matchOnDescription = true;
    picker.matchOnDetail = true;
    picker.busy = true;
    picker.onDidHide(() => picker.dispose());
    picker.onDidAccept(() => {
      const item = picker.selectedItems[0];
      picker.hide();
      if (item !== undefined) void this.#report(() => this.#accept(client, item));
    });
    picker.onDidTriggerItemButton(({ item, button }) => {
      picker.hide();
      const { entry } = item;
      if (entry !== undefined) void this.#report(() => this.#press(client, entry, button));
    });
    picker.show();
    try {
      picker.items = this.#items(await client.models());
      // Preselected, so that Enter does not download the largest one.
      const used = this.#engine.current?.warmModel?.id;
      const advised =
        picker.items.find(({ entry }) => entry !== undefined && entry.id === used) ??
        picker.items.find(({ entry }) => entry?.recommendedFor.includes('chat') === true);
      if (advised !== undefined) picker.activeItems = [advised];
    } catch (error) {
      picker.hide();
      void vscode.window.showErrorMessage(sentence(error));
    }
    picker.busy = false;
  }

  /** One click on the welcome card or the notification: downloads, chooses and loads the model, then its completion model. */
  async download({ entry, completes }: Offer): Promise<void> {
    const client = await this.#engine.client();
    let answers = false;
    await this.#report(async () => {
      if (!answers) await this.#pullAndUse(client, entry, false);
      answers = true;
      if (completes === undefined) return;
      await this.#pull(client, completes);
      await client.reconnect();
    });
  }

  #items(entries: readonly ModelEntry[]): ModelItem[] {
    const chosen = engineSettings().model;
    const used = this.#engine.current?.warmModel?.id;
    const completes = this.#engine.current?.completionModel?.id;
    const present = entries.filter((entry) => entry.state === 'present');
    const absent = entries.filter((entry) => entry.state !== 'present').sort(byAdvice);
    const heading = (label: string): ModelItem => ({ label, kind: vscode.QuickPickItemKind.Separator });
    return [
      ...(present.length > 0 ? [heading(vscode.l10n.t('On this computer'))] : []),
      ...present.map((entry) =>
        modelItem(entry, entry.id === used || entry.id === indexEmbeddings(), entry.id === completes),
      ),
      heading(vscode.l10n.t('To download')),
      ...absent.map((entry) => modelItem(entry, false)),
      heading(''),
      {
        label: `${chosen === '' ? '$(check) ' : ''}${vscode.l10n.t('Automatic')}`,
        description: vscode.l10n.t('the best model on this computer'),
        action: 'automatic',
        alwaysShow: true,
      },
      {
        label: `$(list-flat) ${vscode.l10n.t('Compare all models…')}`,
        description: vscode.l10n.t('before any download'),
        action: 'compare',
        alwaysShow: true,
      },
      {
        label: `$(cloud-download) ${vscode.l10n.t('A model on Hugging Face…')}`,
        description: vscode.l10n.t('GGUF or safetensors'),
        action: 'hub',
        alwaysShow: true,
      },
      {
        label: `$(folder-opened) ${vscode.l10n.t('A model file…')}`,
        description: 'GGUF',
        action: 'file',
        alwaysShow: true,
      },
      {
        label: `$(cloud) ${vscode.l10n.t('A server…')}`,
        description: vscode.l10n.t('OpenAI-compatible: vLLM, SGLang, llama-server'),
        action: 'remote',
        alwaysShow: true,
      },
    ];
  }

  async #accept(client: EngineClient, item: ModelItem): Promise<void> {
    if (item.action === 'automatic') return this.#use(client, '');
    if (item.action === 'compare') return this.#compare(client);
    if (item.action === 'hub') return this.#useHub(client);
    if (item.action === 'file') return this.#useFile(client);
    if (item.action === 'remote') {
      await vscode.commands.executeCommand('hearth.connectRemote');
      return;
    }
    if (item.entry === undefined) return;
    if (item.entry.state === 'present') return this.#useEntry(client, item.entry);
    return this.#pullAndUse(client, item.entry, true);
  }

  async #press(client: EngineClient, entry: ModelEntry, button: vscode.QuickInputButton): Promise<void> {
    if (button === explainButton()) return this.#explain(client, [entry.id]);
    if (button === completionButton()) return this.#completeWith(client, entry);
    if (button === verifyButton()) return this.#verify(client, entry);
    if (button === removeButton()) return this.#remove(client, entry);
    return this.#pullAndUse(client, entry, true);
  }

  async #compare(client: EngineClient): Promise<void> {
    await this.#explain(
      client,
      (await client.models()).map(({ id }) => id),
    );
  }

  async #explain(client: EngineClient, models: string[]): Promise<void> {
    this.#page = await client.inspect(models);
    // A new URI each time, because VS Code caches the text of an opened one.
    const title = models.length === 1 ? (models[0] ?? '') : vscode.l10n.t('Comparison of models');
    const uri = vscode.Uri.from({ scheme: pageScheme, path: `/${title}`, query: String(Date.now()) });
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(uri), { preview: true });
  }

  /** Changes the setting only once the model is loaded; if loading fails, the previous model answers again. */
  async #use(client: EngineClient, model: string): Promise<void> {
    const before = client.warmModel;
    try {
      await withProgress(vscode.l10n.t('Loading the model'), false, () => client.use(model));
    } catch (error) {
      if (before !== undefined) await client.ready().catch(() => {});
      throw error;
    }
    await writeSetting('chat.model', model);
  }

  async #useHub(client: EngineClient): Promise<void> {
    const repository = await vscode.window.showInputBox({
      title: vscode.l10n.t('A model on Hugging Face'),
      prompt: vscode.l10n.t('The name or address of its repository'),
      placeHolder: 'ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF',
      ignoreFocusOut: true,
    });
    if (repository === undefined || repository.trim() === '') return;
    const title = vscode.l10n.t('Reading {0}', repository.trim());
    const offers = await withProgress(title, false, () => client.hubOffers(repository.trim()));
    const chosen = await vscode.window.showQuickPick(offers.map(offerItem), {
      title: vscode.l10n.t('Models of {0}', repository.trim()),
      matchOnDescription: true,
    });
    if (chosen !== undefined) await this.#pullAndUse(client, chosen.offer, true);
  }

  async #useEntry(client: EngineClient, { id, name, embedding }: ModelEntry): Promise<void> {
    if (!embedding) return this.#use(client, id);
    await this.#searchWith(id);
    void vscode.window.showInformationMessage(
      vscode.l10n.t('{0} embeds the repository in the background for embedding search.', name),
    );
  }

  async #completeWith(client: EngineClient, { id }: ModelEntry): Promise<void> {
    await writeSetting('completion.model', engineSettings().completionModel === id ? '' : id);
    await withProgress(vscode.l10n.t('Loading the model'), false, () => client.ready());
  }

  async #useFile(client: EngineClient): Promise<void> {
    const [file] =
      (await vscode.window.showOpenDialog({ filters: { GGUF: ['gguf'] }, title: vscode.l10n.t('A model file') })) ?? [];
    if (file !== undefined) await this.#use(client, file.fsPath);
  }

  /** `ask`: the user has not yet confirmed with a button that showed the size, and did not choose this model in particular. */
  async #pullAndUse(client: EngineClient, entry: ModelEntry, ask: boolean): Promise<void> {
    if (ask && !(await confirmDownload(entry))) return;
    const pulled = await this.#pull(client, entry);
    if (ask) await this.#useEntry(client, pulled);
    else await client.ready();
  }

  async #pull(client: EngineClient, entry: ModelEntry): Promise<ModelEntry> {
    const title = vscode.l10n.t('Downloading {0}', entry.name);
    return withProgress(title, true, (onStep, token) => client.pull(entry, onStep, token));
  }

  async #verify(client: EngineClient, entry: ModelEntry): Promise<void> {
    const title = vscode.l10n.t('Checking {0}', entry.name);
    const after = await withProgress(title, true, (onStep, token) => client.verify(entry, onStep, token));
    const text =
      after.state === 'present'
        ? vscode.l10n.t('{0} is intact: its digest matches the published one.', entry.name)
        : vscode.l10n.t('{0} is damaged. Download it again; intact parts are reused.', entry.name);
    void vscode.window.showInformationMessage(text);
  }

  async #remove(client: EngineClient, entry: ModelEntry): Promise<void> {
    const remove = vscode.l10n.t('Remove');
    const answer = await vscode.window.showWarningMessage(
      vscode.l10n.t('Remove {0} ({1}) from this computer?', entry.name, formatBytes(entry.downloadBytes)),
      { modal: true },
      remove,
    );
    if (answer !== remove) return;
    await client.remove(entry);
    if (engineSettings().model === entry.id) await writeSetting('chat.model', undefined);
    if (engineSettings().completionModel === entry.id) await writeSetting('completion.model', undefined);
    if (indexEmbeddings() === entry.id) await writeSetting('index.embeddings', undefined);
  }

  /** Shows a failure with a retry button. */
  async #report(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (isCancelled(error)) return;
      const retry = vscode.l10n.t('Retry');
      void vscode.window.showErrorMessage(sentence(error), retry).then((answer) => {
        if (answer === retry) void this.#report(work);
      });
    }
  }
}

const buttons = new Map<string, vscode.QuickInputButton>();
/** A new object for each button, so that a press is recognised by identity. */
function button(icon: string, tooltip: string): vscode.QuickInputButton {
  const known = buttons.get(icon) ?? { iconPath: new vscode.ThemeIcon(icon), tooltip };
  buttons.set(icon, known);
  return known;
}
const completionButton = () => button('edit', vscode.l10n.t('Use or stop using this model for completions'));
const verifyButton = () => button('verified', vscode.l10n.t('Verify digest'));
const removeButton = () => button('trash', vscode.l10n.t('Remove from this computer'));
const explainButton = () => button('info', vscode.l10n.t('Explain: architecture, memory, fit on this computer'));
const downloadButton = () => button('cloud-download', vscode.l10n.t('Download'));

function modelItem(entry: ModelEntry, used: boolean, completes = false): ModelItem {
  const icon = used
    ? 'check'
    : entry.fit.verdict === 'no'
      ? 'circle-slash'
      : entry.state === 'present'
        ? 'database'
        : 'cloud';
  const description = [
    ...(entry.parameters > 0
      ? [formatBytes(entry.downloadBytes), fitLabel(entry), formatParameters(entry.parameters), entry.licence]
      : // Another program's file that doesn't open; the reason is below.
        [vscode.l10n.t('Hearth cannot run it')]),
    ...(entry.state === 'partial' ? [vscode.l10n.t('partly downloaded')] : []),
    ...(entry.owner === undefined ? [] : [vscode.l10n.t('used in place from {0}', entry.owner)]),
    ...(entry.recommendedFor.includes('chat') ? [vscode.l10n.t('recommended')] : []),
    ...(recommendedToComplete(entry) ? [vscode.l10n.t('recommended for completions')] : []),
    ...(entry.fillInTheMiddle ? [vscode.l10n.t('fills in code')] : []),
    ...(completes ? [vscode.l10n.t('completes code now')] : []),
  ].join(' · ');
  return {
    label: `$(${icon}) ${entry.name}`,
    description,
    detail: entry.fit.verdict === 'good' ? entry.description : entry.fit.reason,
    entry,
    buttons: [
      ...(entry.embedding || entry.state !== 'present' ? [] : [completionButton()]),
      explainButton(),
      ...changeButtons(entry),
    ],
  };
}

const recommendedToComplete = ({ recommendedFor }: ModelEntry): boolean =>
  recommendedFor.includes('completion') && !recommendedFor.includes('chat');

function changeButtons({ state, owner }: ModelEntry): vscode.QuickInputButton[] {
  if (owner !== undefined) return [];
  return state === 'present' ? [verifyButton(), removeButton()] : [downloadButton()];
}

/** Sorts recommended models first, then those that run well, then the smallest. */
function byAdvice(a: ModelEntry, b: ModelEntry): number {
  const rank = ({ fit }: ModelEntry) => ['good', 'slow', 'no'].indexOf(fit.verdict);
  const advised = ({ recommendedFor }: ModelEntry) =>
    recommendedFor.includes('chat') ? 0 : recommendedFor.includes('completion') ? 1 : 2;
  const advice = advised(a) - advised(b);
  return advice || rank(a) - rank(b) || a.downloadBytes - b.downloadBytes;
}

function fitLabel({ fit }: Pick<ModelEntry, 'fit'>): string {
  const labels: Record<ModelEntry['fit']['verdict'], string> = {
    good: vscode.l10n.t('runs well here'),
    slow: vscode.l10n.t('slow here'),
    no: vscode.l10n.t('too large for this computer'),
  };
  return labels[fit.verdict];
}

function offerItem({ id, label, bytes, fit, licence = vscode.l10n.t('not stated') }: HubOffer) {
  // The rest is only in its files.
  const unknown = { description: '', family: '', contextTokens: 0, parameters: 0 };
  const offer: ModelEntry = {
    ...unknown,
    id,
    name: id,
    downloadBytes: bytes,
    fit,
    licence,
    state: 'absent',
    embedding: false,
    fillInTheMiddle: false,
    recommendedFor: [],
    suitability: {},
  };
  return { label, description: `${formatBytes(bytes)} · ${fitLabel({ fit })}`, detail: fit.reason, offer };
}

async function confirmDownload(entry: ModelEntry): Promise<boolean> {
  const download = entry.state === 'partial' ? vscode.l10n.t('Resume') : vscode.l10n.t('Download');
  const answer = await vscode.window.showInformationMessage(
    vscode.l10n.t('Download {0} ({1})?', entry.name, formatBytes(entry.downloadBytes)),
    { modal: true, detail: `${entry.fit.reason}\n${vscode.l10n.t('Licence: {0}', entry.licence)}` },
    download,
  );
  return answer === download;
}

/** A notification with percent, and a cancel button if `cancellable`. */
async function withProgress<T>(
  title: string,
  cancellable: boolean,
  work: (onStep: (step: Progress) => void, token: vscode.CancellationToken) => Promise<T>,
): Promise<T> {
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable };
  return vscode.window.withProgress(options, (bar, token) => {
    let shown = 0;
    const onStep = (step: Progress): void => {
      const now = percent(step.done, step.total) ?? shown;
      const sizes = step.unit === 'bytes' ? ` ${formatBytes(step.done)} / ${formatBytes(step.total)}` : '';
      // A second stage (checking, unpacking) starts from 0, but the bar never shrinks.
      bar.report({ message: `${step.message}${sizes}`, increment: Math.max(0, now - shown) });
      shown = now;
    };
    return work(onStep, token);
  });
}
