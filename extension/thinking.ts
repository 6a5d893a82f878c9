import * as vscode from 'vscode';
import type { ChatParams } from '../engine/protocol/engineProtocol.ts';
import type { ModelCard, ThinkingMode } from '../engine/protocol/models.ts';
import type { EngineHost } from './client/host.ts';
import type { ChatSettings } from './settings.ts';

const storageKey = 'hearth.thinking';

export const canThink = (modes: readonly ThinkingMode[]): boolean => modes.some((mode) => mode !== 'off');

/** Default mode: off if the model supports it, otherwise medium. */
export function defaultMode(modes: readonly ThinkingMode[]): ThinkingMode {
  if (modes.includes('off')) return 'off';
  return modes.includes('medium') ? 'medium' : (modes[0] ?? 'off');
}

export function modeLabel(mode: ThinkingMode): string {
  const labels: Record<ThinkingMode, string> = {
    off: vscode.l10n.t('Off'),
    on: vscode.l10n.t('On'),
    low: vscode.l10n.t('Low'),
    medium: vscode.l10n.t('Medium'),
    high: vscode.l10n.t('High'),
  };
  return labels[mode];
}

function modeDetail(mode: ThinkingMode): string {
  const details: Record<ThinkingMode, string> = {
    off: vscode.l10n.t('Answers at once'),
    on: vscode.l10n.t('Thinks before it answers: slower, better on hard questions'),
    low: vscode.l10n.t('Thinks briefly'),
    medium: vscode.l10n.t('Thinks for a medium time'),
    high: vscode.l10n.t('Thinks as long as needed: slowest, best on hard questions'),
  };
  return details[mode];
}

/** The thinking switch, remembered for each model. */
export class Thinking {
  readonly #storage: vscode.Memento;
  readonly #engine: EngineHost;
  readonly #changed = new vscode.EventEmitter<void>();
  readonly onChange = this.#changed.event;

  constructor(storage: vscode.Memento, engine: EngineHost) {
    this.#storage = storage;
    this.#engine = engine;
  }

  mode(card: Pick<ModelCard, 'id' | 'thinkingModes'>): ThinkingMode {
    const saved = this.#storage.get<Record<string, ThinkingMode>>(storageKey, {})[card.id];
    return saved !== undefined && card.thinkingModes.includes(saved) ? saved : defaultMode(card.thinkingModes);
  }

  async set(card: Pick<ModelCard, 'id'>, mode: ThinkingMode): Promise<void> {
    const all = this.#storage.get<Record<string, ThinkingMode>>(storageKey, {});
    await this.#storage.update(storageKey, { ...all, [card.id]: mode });
    this.#changed.fire();
  }

  /** Toggles two modes, asks among more, and tells the user if the model cannot think. */
  async pick(): Promise<void> {
    const card = this.#engine.current?.warmModel ?? (await this.#loadForPick());
    if (card === undefined) return;
    if (!canThink(card.thinkingModes)) return this.#sayCannot(card);
    const mode = card.thinkingModes.length === 2 ? this.#other(card) : await this.#ask(card);
    if (mode !== undefined) await this.set(card, mode);
  }

  dispose(): void {
    this.#changed.dispose();
  }

  async #loadForPick(): Promise<ModelCard | undefined> {
    const client = await this.#engine.client();
    return client.ready();
  }

  #other(card: ModelCard): ThinkingMode | undefined {
    const now = this.mode(card);
    return card.thinkingModes.find((mode) => mode !== now);
  }

  async #ask(card: ModelCard): Promise<ThinkingMode | undefined> {
    const now = this.mode(card);
    const items = card.thinkingModes.map((mode) => ({
      label: `${mode === now ? '$(check) ' : ''}${modeLabel(mode)}`,
      description: modeDetail(mode),
      mode,
    }));
    const title = vscode.l10n.t('Thinking for {0}', card.name);
    return (await vscode.window.showQuickPick(items, { title }))?.mode;
  }

  async #sayCannot(card: ModelCard): Promise<void> {
    const choose = vscode.l10n.t('Choose a model');
    const answer = await vscode.window.showInformationMessage(
      vscode.l10n.t('{0} was not trained to think. Models such as Qwen3 and GPT-OSS can.', card.name),
      choose,
    );
    if (answer === choose) await vscode.commands.executeCommand('hearth.chooseModel');
  }
}

/** The user's answer settings for this model, shared by Hearth's chat and VS Code's own. */
export function answerOptions(
  card: ModelCard,
  thinking: Thinking,
  { sampling, maxTokens, thinkingTokens }: ChatSettings,
): Pick<ChatParams, 'thinking' | 'thinkingTokens' | 'maxTokens' | 'sampling' | 'endRepetition'> {
  return {
    thinking: thinking.mode(card),
    sampling,
    endRepetition: true,
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(thinkingTokens === undefined ? {} : { thinkingTokens }),
  };
}
