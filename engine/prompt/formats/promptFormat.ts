/** A model's prompt format: renders a conversation to token ids, and parses the output into thinking, text and calls. */

import { runWhole, type Sliced, type Tokenizer } from '../../tokenizer/tokenizer.ts';
import {
  type ChatMessage,
  messageBoundaries,
  type OutputParser,
  type Tool,
  withStatedFormat,
} from '../conversation.ts';
import { ChannelParser } from '../parsers/channels.ts';
import { TaggedParser, ToolCallSplitter } from '../parsers/toolCallText.ts';
import { type AnswerPlan, answerSteps, freeAnswer, taggedPlan, wantedCalls } from '../plans/answerPlan.ts';
import {
  endsInsideThinking,
  nearestThinkingMode,
  probeThinking,
  type ThinkingMode,
  thinkingModes,
  thinkingTagsOf,
  thinkingVariables,
} from '../thinking.ts';
import { encodeChatSliced } from './chatPrompt.ts';
import { type ChatTemplate, compileChatTemplate, type ToolSyntax, toolSyntaxOf } from './chatTemplate.ts';
import { DeepSeekFormat, type DeepSeekVersion } from './deepseek.ts';
import { HarmonyFormat } from './harmony.ts';

export interface PromptOptions {
  readonly thinking: ThinkingMode;
  /** For templates that include the date. */
  readonly now: Date;
  /** The tools that the model may call. */
  readonly tools?: readonly Tool[] | undefined;
  readonly toolChoice?: 'auto' | 'none' | 'required' | { readonly name: string } | undefined;
  /** False: the first call ends the turn. A call required by `toolChoice` always does. */
  readonly parallelToolCalls?: boolean | undefined;
  /** The required form of the answer. */
  readonly responseFormat?: ResponseFormat | undefined;
}

export type ResponseFormat =
  | { readonly kind: 'text' }
  | { readonly kind: 'json' }
  | { readonly kind: 'json-schema'; readonly schema: Readonly<Record<string, unknown>> }
  /** One of these texts; none contains a carriage return. */
  | { readonly kind: 'choice'; readonly choices: readonly string[] };

export interface ChatPrompt {
  readonly ids: readonly number[];
  /** Prefix lengths of `ids` after which other prompts of the conversation may differ (`messageBoundaries`). */
  readonly boundaries: readonly number[];
  /** Token ids and texts that end the turn. */
  readonly stops: ReadonlySet<number>;
  readonly stopStrings: readonly string[];
  /** The text that ends thinking and starts the answer, to make a model stop thinking. */
  readonly closeThinking: readonly number[];
  /** Constrains the answer. */
  readonly plan: AnswerPlan;
  /** Creates a parser for the output that follows this prompt. */
  parser(): OutputParser;
}

export interface PromptFormat {
  /** The modes that change the prompt (`thinkingModes`). */
  readonly thinkingModes: readonly ThinkingMode[];
  /** Whether tools may be offered. */
  readonly toolCalling: boolean;
  /** @throws HearthError `invalid-input` if the format refuses the conversation. */
  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt;
  /** `render` in slices, because a conversation may have megabytes. */
  renderSliced(messages: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt>;
}

/** ChatML, for checkpoints that have its tokens but no template. */
const chatMl =
  "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/**
 * The family's documented format if it is better than the template, else the checkpoint's template. Without a template:
 * ChatML, or names with colons.
 * @throws HearthError `invalid-input` if the template isn't valid.
 */
export function promptFormatOf(tokenizer: Tokenizer): PromptFormat {
  if (ChannelParser.suits(tokenizer)) return new HarmonyFormat(tokenizer);
  const knowsChatMl = tokenizer.framing.has('<|im_start|>') && tokenizer.framing.has('<|im_end|>');
  const source = tokenizer.chatTemplate ?? (knowsChatMl ? chatMl : undefined);
  if (source === undefined) return new DialogueFormat(tokenizer);
  const template = compileChatTemplate(source);
  const version = deepSeekVersion(tokenizer, template);
  return version ? new DeepSeekFormat(tokenizer, version) : new TemplateFormat(tokenizer, template);
}

/** R1 and its variants share the vocabulary but use their own templates. */
function deepSeekVersion(tokenizer: Tokenizer, template: ChatTemplate): DeepSeekVersion | undefined {
  const marks = [
    '<｜User｜>',
    '<｜Assistant｜>',
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁sep｜>',
    '<｜tool▁outputs▁begin｜>',
  ];
  if (!marks.every((mark) => tokenizer.framing.has(mark))) return undefined;
  const ending = (mode: ThinkingMode): string => probeThinking(template, tokenizer, mode).slice(-30);
  if (/<｜Assistant｜>$/.test(ending('off')) && ending('on') === ending('off')) return 'v3';
  const isV31 = /<｜Assistant｜><\/think>$/.test(ending('off')) && /<｜Assistant｜><think>$/.test(ending('on'));
  return isV31 ? 'v3.1' : undefined;
}

class TemplateFormat implements PromptFormat {
  readonly toolCalling = true;
  readonly thinkingModes: readonly ThinkingMode[];
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate;
  readonly #toolSyntax: ToolSyntax;

  constructor(tokenizer: Tokenizer, template: ChatTemplate) {
    this.#tokenizer = tokenizer;
    this.#template = template;
    this.thinkingModes = thinkingModes(template, tokenizer);
    this.#toolSyntax = toolSyntaxOf(template, tokenizer);
  }

  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    return runWhole(this.renderSliced(messages, options));
  }

  *renderSliced(messages: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt> {
    const tokenizer = this.#tokenizer;
    const { tools = [] } = options;
    const mode = nearestThinkingMode(options.thinking, this.thinkingModes);
    const thinks = mode !== 'off';
    const asked = withStatedFormat(messages, options.responseFormat);
    const { ids, ending } = yield* encodeChatSliced(tokenizer, this.#template, asked, {
      addGenerationPrompt: true,
      variables: thinkingVariables(mode),
      now: options.now,
      tools,
      toolSyntax: this.#toolSyntax,
    });
    const callable = wantedCalls(options).tools;
    const calls = (): ToolCallSplitter | undefined =>
      callable.length > 0 ? new ToolCallSplitter(this.#toolSyntax, callable) : undefined;
    const parser = (): OutputParser =>
      new TaggedParser(tokenizer, endsInsideThinking(ending), calls(), thinkingTagsOf(tokenizer));
    const closeThinking = tokenizer.encode(thinkingEnd(tokenizer), { special: 'parse' });
    const plan = taggedPlan(this.#toolSyntax, options, { thinks, insideThinking: endsInsideThinking(ending) });
    const boundaries = messageBoundaries(ids, tokenizer.endIds);
    return { ids, boundaries, stops: tokenizer.endIds, stopStrings: [], closeThinking, plan, parser };
  }
}

/** Qwen's wording (QwenLM/Qwen3, "Thinking budget"), with which its models were evaluated. */
function thinkingEnd(tokenizer: Tokenizer): string {
  const words =
    'Considering the limited time by the user, I have to give the solution based on the thinking directly now.';
  return `${tokenizer.framing.has('<|im_start|>') ? `\n\n${words}` : ''}\n${thinkingTagsOf(tokenizer).close}\n\n`;
}

/** For base models without chat training, which continue a written dialogue. */
class DialogueFormat implements PromptFormat {
  readonly toolCalling = false;
  readonly thinkingModes: readonly ThinkingMode[] = ['off'];
  readonly #tokenizer: Tokenizer;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    return runWhole(this.renderSliced(messages, options));
  }

  *renderSliced(messages: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt> {
    const tokenizer = this.#tokenizer;
    const names = { system: 'System', user: 'User', assistant: 'Assistant', tool: 'Tool' };
    const turns = withStatedFormat(messages, options.responseFormat).map(
      ({ role, content }) => `${names[role]}: ${content}\n`,
    );
    const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
    // Encoded without a prefix, because SentencePiece vocabularies put a blank before a text.
    const ids = [...begin, ...(yield* tokenizer.encodeSliced([`${turns.join('')}${names.assistant}:`]))];
    return {
      ids,
      boundaries: messageBoundaries(ids, tokenizer.endIds),
      stops: tokenizer.endIds,
      stopStrings: [`\n${names.user}:`],
      closeThinking: [],
      plan: { ...freeAnswer, steps: answerSteps(options) },
      parser: () => new TaggedParser(tokenizer, false),
    };
  }
}
