import { isAbsolute } from 'node:path';
import * as vscode from 'vscode';
import type { ChatParams, ChatResult, Delta } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard, ModelEntry } from '../../engine/protocol/models.ts';
import type { EngineClient, Unnamed } from '../client/client.ts';
import { EngineFailure, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { bareAddress } from '../servers.ts';
import { chatSettings, engineSettings } from '../settings.ts';
import { answerOptions, type Thinking } from '../thinking.ts';
import { messageText, objectIn, thinkingPart, toChatMessages, toTools, usagePart } from './toolLoop.ts';

/** Description of a model for VS Code. */
interface InstalledModel {
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
 * The models on this computer as last known. VS Code asks for them in every window; only the very first time starts an engine
 * for this. A model's abilities are certain once it was loaded, and are then stored.
 */
export class InstalledModels {
  readonly #storage: vscode.Memento;
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #changed = new vscode.EventEmitter<void>();
  readonly onChange = this.#changed.event;
  readonly #subscription: vscode.Disposable;
  #noted = '';

  constructor(storage: vscode.Memento, engine: EngineHost, log: Log) {
    this.#storage = storage;
    this.#engine = engine;
    this.#log = log;
    this.#subscription = engine.onView(({ state }) => {
      if (state.kind === 'ready') this.#note(state.card);
    });
  }

  /** `afresh`: asks the engine even if the list is known. */
  async list(afresh: boolean): Promise<InstalledModel[]> {
    const known = this.#storage.get<InstalledModel[] | undefined>(listKey, undefined);
    const listed = known === undefined || afresh ? await this.#refresh() : known;
    const { model } = engineSettings();
    const loaded = this.#engine.current?.warmModel?.id;
    const cards = this.#storage.get<Record<string, InstalledModel>>(cardsKey, {});
    const { remote } = engineSettings();
    // The user's own file and a server's model are not in the engine's list.
    const own = Object.values(cards).filter(
      ({ id }) =>
        (isAbsolute(id) && (id === model || id === loaded)) ||
        (remote !== undefined && id.startsWith(`remote:${bareAddress(remote.url)}`)),
    );
    return [...own, ...listed.map((entry) => ({ ...entry, ...cards[entry.id], description: entry.description }))];
  }

  dispose(): void {
    this.#subscription.dispose();
    this.#changed.dispose();
  }

  async #refresh(): Promise<InstalledModel[]> {
    const client: EngineClient = await this.#engine.client();
    const present = (await client.models())
      .filter(({ state, embedding }) => state === 'present' && !embedding)
      .map(fromEntry);
    await this.#storage.update(listKey, present);
    return present;
  }

  /** After a load: the card has the model's real abilities, and the models on disk may have changed. */
  #note(card: ModelCard): void {
    const model = fromCard(card);
    const key = JSON.stringify(model);
    if (key === this.#noted) return;
    this.#noted = key;
    this.#remember(model).catch((error: unknown) => this.#log.warn(`The list of models: ${sentence(error)}`));
  }

  async #remember(model: InstalledModel): Promise<void> {
    const cards = this.#storage.get<Record<string, InstalledModel>>(cardsKey, {});
    await this.#storage.update(cardsKey, { ...cards, [model.id]: model });
    await this.#refresh();
    this.#changed.fire();
  }
}

/** Before its first load a model is assumed to call tools. Base models cannot; their card corrects this. */
const fromEntry = ({ id, name, family, description, contextTokens }: ModelEntry): InstalledModel => ({
  ...{ id, name, family, description, contextTokens },
  toolCalling: true,
});

const fromCard = ({ id, name, family, contextTokens, toolCalling, host }: ModelCard): InstalledModel => ({
  ...{ id, family, contextTokens, toolCalling },
  name: host === undefined ? name : `${name} @ ${host}`,
  description: host === undefined ? '' : vscode.l10n.t('Answered by {0}; questions are sent there', host),
});

/** The engine's failure as the error type of VS Code's language model API. */
function hostError(error: unknown): Error {
  const code = error instanceof EngineFailure ? error.code : 'internal';
  if (code === 'cancelled') return new vscode.CancellationError();
  const isAbsent = code === 'no-model' || code === 'not-found';
  const text =
    code === 'context-overflow'
      ? vscode.l10n.t('{0} Raise hearth.contextTokens, or choose a model with a longer context.', sentence(error))
      : sentence(error);
  const failure = isAbsent ? vscode.LanguageModelError.NotFound(text) : new vscode.LanguageModelError(text);
  // VS Code would show the stack in its chat.
  delete failure.stack;
  return failure;
}

type HostProgress = vscode.Progress<vscode.LanguageModelResponsePart>;

/** Hearth's models in VS Code's own chat, its agent mode, and for every extension that asks VS Code for a model. */
export class ModelProvider implements vscode.LanguageModelChatProvider {
  readonly #engine: EngineHost;
  readonly #installed: InstalledModels;
  readonly #thinking: Thinking;
  readonly onDidChangeLanguageModelChatInformation: vscode.Event<void>;

  constructor(engine: EngineHost, installed: InstalledModels, thinking: Thinking) {
    this.#engine = engine;
    this.#installed = installed;
    this.#thinking = thinking;
    this.onDidChangeLanguageModelChatInformation = installed.onChange;
  }

  async provideLanguageModelChatInformation({
    silent,
  }: vscode.PrepareLanguageModelChatModelOptions): Promise<vscode.LanguageModelChatInformation[]> {
    return (await this.#installed.list(!silent)).map(informationOf);
  }

  async provideLanguageModelChatResponse(
    model: vscode.LanguageModelChatInformation,
    messages: readonly vscode.LanguageModelChatRequestMessage[],
    options: vscode.ProvideLanguageModelChatResponseOptions,
    progress: HostProgress,
    token: vscode.CancellationToken,
  ): Promise<void> {
    try {
      const client = await this.#engine.client();
      const card = await client.use(model.id);
      const required = options.toolMode === vscode.LanguageModelChatToolMode.Required;
      const params: Unnamed<ChatParams> = {
        messages: toChatMessages(messages),
        tools: toTools(options.tools ?? []),
        toolChoice: required ? 'required' : 'auto',
        ...answerOptions(card, this.#thinking, chatSettings()),
      };
      const answer = await client.chat(params, { onDelta: (piece) => pass(piece, progress) }, token);
      finish(answer, options.tools ?? [], progress);
    } catch (error) {
      throw hostError(error);
    }
  }

  /** Loads the model if needed: a caller that counts is about to ask. */
  async provideTokenCount(
    model: vscode.LanguageModelChatInformation,
    text: string | vscode.LanguageModelChatRequestMessage,
  ): Promise<number> {
    try {
      const client = await this.#engine.client();
      await client.use(model.id);
      if (typeof text === 'string') return (await client.countTokens([text]))[0] ?? 0;
      const [tokens = 0] = await client.countTokens([messageText(text)]);
      return tokens + limits.languageModel.framingTokens;
    } catch (error) {
      throw hostError(error);
    }
  }
}

/** Splits the context between prompt and answer, because VS Code adds the two. */
export function informationOf(model: InstalledModel): vscode.LanguageModelChatInformation {
  const { answerShare, answerTokens, agentPromptTokens } = limits.languageModel;
  const longest = chatSettings().maxTokens ?? answerTokens;
  const maxOutputTokens = Math.min(longest, Math.floor(model.contextTokens * answerShare));
  const maxInputTokens = model.contextTokens - maxOutputTokens;
  return {
    id: model.id,
    name: model.name,
    family: model.family,
    version: '1',
    tooltip: model.description,
    maxInputTokens,
    maxOutputTokens,
    // The editor offers a model to agents if it calls tools.
    capabilities: { toolCalling: model.toolCalling && maxInputTokens >= agentPromptTokens, imageInput: false },
  };
}

function pass(piece: Delta, progress: HostProgress): void {
  // VS Code takes only complete calls, so calls follow at the end.
  if (piece.kind === 'tool-call') return;
  const part = piece.kind === 'text' ? new vscode.LanguageModelTextPart(piece.text) : thinkingPart(piece.text);
  if (part !== undefined) progress.report(part);
}

/** Only calls of offered tools reach VS Code: a server, or text in the prompt, may name others. */
function finish(
  { toolCalls, statistics }: ChatResult,
  offered: readonly { readonly name: string }[],
  progress: HostProgress,
): void {
  for (const { id, name, arguments: json } of toolCalls) {
    const input = objectIn(json);
    const isOffered = offered.some((tool) => tool.name === name);
    const refusal = vscode.l10n.t(
      'The model called "{0}", but this tool was not offered or its arguments are unreadable. Nothing was run.',
      name.slice(0, 100),
    );
    progress.report(
      isOffered && input !== undefined
        ? new vscode.LanguageModelToolCallPart(id, name, input)
        : new vscode.LanguageModelTextPart(refusal),
    );
  }
  progress.report(usagePart(statistics));
}
