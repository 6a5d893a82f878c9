/** A conversation: its prompt in the model's own format, the turns that fit, and the answer told from the thinking. */
import { ChannelParser } from '../text/channels.ts';
import { encodeChat } from '../text/chatPrompt.ts';
import { type ChatTemplate, compileChatTemplate } from '../text/chatTemplate.ts';
import { type OutputParser, type OutputPiece, ThinkTagParser } from '../text/thinking.ts';
import {
  endsInsideThinking,
  nearestThinkingMode,
  type ThinkingMode,
  thinkingModes,
  thinkingVariables,
} from '../text/thinkingModes.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type Generated, generate } from './generate.ts';
import { fitHistory, type Message } from './history.ts';
import type { RequestClass } from './nextStep.ts';
import type { SamplerSettings } from './sampler.ts';
import type { Scheduler } from './scheduler.ts';

export interface ChatPrompt {
  readonly ids: readonly number[];
  readonly parser: () => OutputParser;
  readonly stopStrings: readonly string[];
}

/** How conversations are written for one model. */
export interface ChatFormat {
  /** Which thinking modes change anything. `['off']`: it cannot think. */
  readonly thinkingModes: readonly ThinkingMode[];
  /** @throws HearthError `invalid-input` when the template refuses the conversation. */
  prompt(messages: readonly Message[], thinking: ThinkingMode): ChatPrompt;
}

/**
 * By the checkpoint's template; by names and colons where it brings none.
 * @param now what a template that shows the date is told.
 * @throws HearthError `invalid-input` when the template is malformed.
 */
export function chatFormat(tokenizer: Tokenizer, now: () => Date): ChatFormat {
  const { chatTemplate } = tokenizer;
  return chatTemplate === undefined
    ? plainFormat(tokenizer)
    : templateFormat(tokenizer, compileChatTemplate(chatTemplate), now);
}

function templateFormat(tokenizer: Tokenizer, template: ChatTemplate, now: () => Date): ChatFormat {
  const modes = thinkingModes(template, tokenizer);
  const channels = ChannelParser.suits(tokenizer);
  return {
    thinkingModes: modes,
    prompt(messages, thinking) {
      const { ids, ending } = encodeChat(tokenizer, template, messages, {
        addGenerationPrompt: true,
        variables: thinkingVariables(nearestThinkingMode(thinking, modes)),
        now: now(),
      });
      const inside = endsInsideThinking(ending);
      const parser = () => (channels ? new ChannelParser(tokenizer) : new ThinkTagParser(tokenizer, inside));
      return { ids, parser, stopStrings: [] };
    },
  };
}

/** For models that were never taught to converse: they continue a dialogue as they would a book. */
function plainFormat(tokenizer: Tokenizer): ChatFormat {
  const names = { system: 'System', user: 'User', assistant: 'Assistant' };
  const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
  return {
    thinkingModes: ['off'],
    prompt(messages) {
      const turns = messages.map(({ role, content }) => `${names[role]}: ${content}\n`);
      const text = `${turns.join('')}${names.assistant}:`;
      return {
        ids: [...begin, ...tokenizer.encode(text, { special: 'plain' })],
        parser: () => new ThinkTagParser(tokenizer, false),
        stopStrings: [`\n${names.user}:`],
      };
    },
  };
}

export interface ChatRequest {
  readonly requestClass: RequestClass;
  readonly messages: readonly Message[];
  readonly thinking: ThinkingMode;
  /** Absent: until the context is full. */
  readonly maxTokens?: number | undefined;
  readonly stopStrings: readonly string[];
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  readonly onPiece: (piece: OutputPiece) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface ChatAnswer extends Generated {
  readonly droppedMessages: number;
}

/** What answers a chat needs of a loaded model. */
export interface ChatModel {
  readonly scheduler: Scheduler;
  readonly tokenizer: Tokenizer;
  readonly format: ChatFormat;
  readonly contextTokens: number;
}

/** @throws HearthError `context-overflow` when the last message alone does not fit. */
export async function chat(model: ChatModel, request: ChatRequest): Promise<ChatAnswer> {
  const { format, contextTokens } = model;
  const { thinking, onPiece, ...common } = request;
  // Room for an answer, whatever it will need: without a limit, a quarter of the context.
  const reserved = Math.min(request.maxTokens ?? contextTokens, Math.floor(contextTokens / 4));
  const count = (messages: readonly Message[]): number => format.prompt(messages, thinking).ids.length;
  const { messages, droppedMessages } = fitHistory(request.messages, count, contextTokens - reserved);
  const prompt = format.prompt(messages, thinking);
  const generated = await generate(model.scheduler, {
    ...common,
    prompt: prompt.ids,
    maxTokens: request.maxTokens ?? contextTokens,
    stopIds: model.tokenizer.endIds,
    stopStrings: [...prompt.stopStrings, ...request.stopStrings],
    parser: prompt.parser(),
    onPiece: (piece) => {
      onPiece(piece);
      return 'continue';
    },
  });
  return { ...generated, droppedMessages };
}
