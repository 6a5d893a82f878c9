/** How a model is talked to: a conversation to ids, and what it generates back to thinking and text. */
import { ChannelParser } from './channels.ts';
import { type ChatMessage, encodeChat } from './chatPrompt.ts';
import { type ChatTemplate, compileChatTemplate } from './chatTemplate.ts';
import { type OutputParser, ThinkTagParser } from './thinking.ts';
import {
  endsInsideThinking,
  nearestThinkingMode,
  type ThinkingMode,
  thinkingModes,
  thinkingVariables,
} from './thinkingModes.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface PromptOptions {
  readonly thinking: ThinkingMode;
  /** For templates that tell the model the date. */
  readonly now: Date;
}

export interface ChatPrompt {
  readonly ids: readonly number[];
  /** Ids that end the turn, and texts that do. */
  readonly stops: ReadonlySet<number>;
  readonly stopStrings: readonly string[];
  /** Reads what follows this prompt. */
  parser(): OutputParser;
}

export interface PromptFormat {
  /** The modes that change anything: see `thinkingModes`. */
  readonly thinkingModes: readonly ThinkingMode[];
  /** @throws HearthError `invalid-input` when the format refuses the conversation. */
  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt;
}

/** ChatML, for checkpoints that have its tokens and forgot the template. */
const chatMl =
  "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/**
 * The format of the checkpoint's own template; ChatML or names and colons for one that brings none.
 * @throws HearthError `invalid-input` when the template is none.
 */
export function promptFormatOf(tokenizer: Tokenizer): PromptFormat {
  const knowsChatMl = tokenizer.framing.has('<|im_start|>') && tokenizer.framing.has('<|im_end|>');
  const source = tokenizer.chatTemplate ?? (knowsChatMl ? chatMl : undefined);
  return source === undefined
    ? new DialogueFormat(tokenizer)
    : new TemplateFormat(tokenizer, compileChatTemplate(source));
}

class TemplateFormat implements PromptFormat {
  readonly thinkingModes: readonly ThinkingMode[];
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate;

  constructor(tokenizer: Tokenizer, template: ChatTemplate) {
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.thinkingModes = thinkingModes(template, tokenizer);
  }

  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    const tokenizer = this.#tokenizer;
    const { ids, ending } = encodeChat(tokenizer, this.#template, messages, {
      addGenerationPrompt: true,
      variables: thinkingVariables(nearestThinkingMode(options.thinking, this.thinkingModes)),
      now: options.now,
    });
    const parser = ChannelParser.suits(tokenizer)
      ? () => new ChannelParser(tokenizer)
      : () => new ThinkTagParser(tokenizer, endsInsideThinking(ending));
    return { ids, stops: tokenizer.endIds, stopStrings: [], parser };
  }
}

/** For models that were never taught to converse: they continue a dialogue as they would a book. */
class DialogueFormat implements PromptFormat {
  readonly thinkingModes: readonly ThinkingMode[] = ['off'];
  readonly #tokenizer: Tokenizer;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  render(messages: readonly ChatMessage[]): ChatPrompt {
    const tokenizer = this.#tokenizer;
    const names = { system: 'System', user: 'User', assistant: 'Assistant', tool: 'Tool' };
    const turns = messages.map(({ role, content }) => `${names[role]}: ${content}\n`);
    const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
    const ids = tokenizer.encode(`${turns.join('')}${names.assistant}:`, { special: 'plain' });
    return {
      ids: [...begin, ...ids],
      stops: tokenizer.endIds,
      stopStrings: [`\n${names.user}:`],
      parser: () => new ThinkTagParser(tokenizer, false),
    };
  }
}
