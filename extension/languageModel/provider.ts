import { randomUUID } from 'node:crypto';
import * as vscode from 'vscode';
import type { ChatParams, ChatResult, Delta } from '../../engine/protocol/engineProtocol.ts';
import { EngineFailure, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import { chatSettings } from '../settings.ts';
import { answerOptions, type Thinking } from '../thinking.ts';
import { messageText, thinkingPart, toChatMessages, toTools, usagePart } from './hostMessages.ts';
import type { InstalledModel, InstalledModels } from './installed.ts';

/** The engine's failure as the error that users of the host's API look for. */
function hostError(error: unknown): Error {
  const code = error instanceof EngineFailure ? error.code : 'internal';
  if (code === 'cancelled') return new vscode.CancellationError();
  const isAbsent = code === 'no-model' || code === 'not-found';
  const text =
    code === 'context-overflow'
      ? vscode.l10n.t('{0} Raise hearth.contextTokens, or choose a model with a longer context.', sentence(error))
      : sentence(error);
  const failure = isAbsent ? vscode.LanguageModelError.NotFound(text) : new vscode.LanguageModelError(text);
  // VS Code shows the stack of an extension's error in its chat.
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
      const params: ChatParams = {
        stream: randomUUID(),
        messages: toChatMessages(messages),
        tools: toTools(options.tools ?? []),
        toolChoice: required ? 'required' : 'auto',
        ...answerOptions(card, this.#thinking),
      };
      finish(await client.chat(params, { onDelta: (piece) => pass(piece, progress) }, token), progress);
    } catch (error) {
      throw hostError(error);
    }
  }

  /** Loads the model where it is not: who counts is about to ask. */
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

/** The context is split between prompt and answer, because the host adds the two up. */
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
  // The host takes a call whole, so calls follow at the end.
  if (piece.kind === 'tool-call') return;
  const part = piece.kind === 'text' ? new vscode.LanguageModelTextPart(piece.text) : thinkingPart(piece.text);
  if (part !== undefined) progress.report(part);
}

function finish({ toolCalls, statistics }: ChatResult, progress: HostProgress): void {
  for (const call of toolCalls) {
    const input: unknown = JSON.parse(call.arguments === '' ? '{}' : call.arguments);
    progress.report(new vscode.LanguageModelToolCallPart(call.id, call.name, Object(input)));
  }
  progress.report(usagePart(statistics));
}
