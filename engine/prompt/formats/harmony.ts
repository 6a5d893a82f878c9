/**
 * GPT-OSS's prompts (openai/harmony, docs/format.md). The checkpoint's template differs from that document: it writes
 * `commentary json` where the document has ` <|constrain|>json`, puts a call's recipient before its channel, and ends
 * the instructions with a blank line. The document is followed: it is what the publisher's own renderer and the
 * model's training agree on, and what the model writes itself, so that a turn's prompt continues the one before.
 */

import { runWhole, type Sliced } from '../../tokenizer/sliced.ts';
import type { PromptPart, Tokenizer } from '../../tokenizer/tokenizer.ts';
import { type ChatMessage, messageBoundaries, type Tool, toolNames } from '../conversation.ts';
import { ChannelParser } from '../parsers/channels.ts';
import { wantedCalls } from '../plans/answerPlan.ts';
import { answerStart, harmonyPlan } from '../plans/harmonyPlan.ts';
import { harmonyFormatSection } from '../responseFormat.ts';
import { nearestThinkingMode, type ThinkingMode } from '../thinkingModes.ts';
import { toolsSection } from './harmonyTypes.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from './promptFormat.ts';

export interface HarmonyMessage {
  /** `system`, `developer`, `user`, `assistant`, or a tool's name. */
  readonly author: string;
  readonly recipient?: string;
  /** Where the header names the recipient; the document shows both. */
  readonly recipientIn?: 'author' | 'channel';
  readonly channel?: 'analysis' | 'commentary' | 'final';
  /** Of the content; `json` follows `<|constrain|>`. */
  readonly type?: 'json';
  readonly text: string;
}

export interface HarmonySystem {
  readonly effort: 'low' | 'medium' | 'high';
  /** `YYYY-MM-DD` */
  readonly date?: string;
  readonly knowledgeCutoff?: string;
  readonly channels?: readonly string[];
  readonly functions: boolean;
}

export class HarmonyFormat implements PromptFormat {
  readonly toolCalling = true;
  readonly thinkingModes: readonly ThinkingMode[] = ['low', 'medium', 'high'];
  readonly #tokenizer: Tokenizer;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    return runWhole(this.renderSliced(messages, options));
  }

  *renderSliced(messages: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt> {
    const tokenizer = this.#tokenizer;
    const { tools = [] } = options;
    const mode = nearestThinkingMode(options.thinking, this.thinkingModes);
    const system: HarmonyMessage = {
      author: 'system',
      text: systemText({
        effort: mode === 'low' || mode === 'high' ? mode : 'medium',
        date: localDate(options.now),
        functions: tools.length > 0,
      }),
    };
    const firstTurn = messages.findIndex(({ role }) => role !== 'system');
    const turns = firstTurn < 0 ? [] : messages.slice(firstTurn);
    const instructions = messages.slice(0, firstTurn < 0 ? messages.length : firstTurn).map(({ content }) => content);
    const format = harmonyFormatSection(options.responseFormat);
    const developer = developerText(instructions.join('\n\n'), tools, format);
    const history = [
      system,
      ...(developer === '' ? [] : [{ author: 'developer', text: developer }]),
      ...withoutOldAnalysis(harmonyMessages(turns)),
    ];
    const ids = yield* tokenizer.encodeSliced([...harmonyParts(tokenizer, history), ...assistantStart(tokenizer)]);
    const mark = marksOf(tokenizer);
    return {
      ids,
      boundaries: turnBoundaries(history, messageBoundaries(ids, new Set([mark('<|end|>'), mark('<|call|>')]))),
      stops: tokenizer.endIds,
      stopStrings: [],
      closeThinking: tokenizer.encode(wantedCalls(options).required ? '<|end|>' : `<|end|>${answerStart}`, {
        special: 'parse',
      }),
      plan: harmonyPlan(options),
      parser: () => new ChannelParser(tokenizer, wantedCalls(options).tools),
    };
  }
}

/**
 * Of the ends of messages, and the prompt's own, those around the user's: there a turn is edited, and from there its answer
 * is written otherwise once its thinking is left out, calls or not.
 */
function turnBoundaries(history: readonly HarmonyMessage[], ends: readonly number[]): number[] {
  const isUser = (message: HarmonyMessage | undefined): boolean => message?.author === 'user';
  return ends.filter((_, i) => i === history.length || isUser(history[i]) || isUser(history[i + 1]));
}

export function systemText(system: HarmonySystem): string {
  const { effort, date, knowledgeCutoff = '2024-06', channels = ['analysis', 'commentary', 'final'] } = system;
  const dates = [`Knowledge cutoff: ${knowledgeCutoff}`, ...(date === undefined ? [] : [`Current date: ${date}`])];
  const calls = system.functions ? "\nCalls to these tools must go to the commentary channel: 'functions'." : '';
  return `You are ChatGPT, a large language model trained by OpenAI.
${dates.join('\n')}

Reasoning: ${effort}

# Valid channels: ${channels.join(', ')}. Channel must be included for every message.${calls}`;
}

/** Empty: there is nothing to tell. */
export function developerText(instructions: string, tools: readonly Tool[], responseFormat = ''): string {
  const sections = [
    ...(instructions === '' ? [] : [`# Instructions\n\n${instructions}`]),
    ...(tools.length === 0 ? [] : [toolsSection(tools)]),
    ...(responseFormat === '' ? [] : [responseFormat]),
  ];
  return sections.join('\n\n');
}

export function harmonyParts(tokenizer: Tokenizer, messages: readonly HarmonyMessage[]): PromptPart[] {
  const mark = marksOf(tokenizer);
  return messages.flatMap(({ author, recipient, recipientIn = 'channel', channel, type, text }) => {
    const to = recipient === undefined ? '' : ` to=${recipient}`;
    const head = channel === undefined || recipientIn === 'author' ? author + to : author;
    const kind = channel === undefined ? [] : [mark('<|channel|>'), recipientIn === 'author' ? channel : channel + to];
    const constraint = type === undefined ? [] : [' ', mark('<|constrain|>'), type];
    const end = author === 'assistant' && recipient !== undefined ? '<|call|>' : '<|end|>';
    return [mark('<|start|>'), head, ...kind, ...constraint, mark('<|message|>'), text, mark(end)];
  });
}

export function assistantStart(tokenizer: Tokenizer): PromptPart[] {
  return [marksOf(tokenizer)('<|start|>'), 'assistant'];
}

/**
 * Thinking of turns that ended in an answer is left out, as the document and the checkpoint's template say; the
 * publisher's renderer keeps it from the second answer on. Around calls that wait for an answer it stays.
 */
export function withoutOldAnalysis(messages: readonly HarmonyMessage[]): HarmonyMessage[] {
  const kept: HarmonyMessage[] = [];
  let isLastTurn = true;
  let isAnswered = false;
  for (const message of messages.toReversed()) {
    if (message.author === 'user') [isLastTurn, isAnswered] = [false, false];
    else if (message.channel === 'final') isAnswered = true;
    if (message.channel !== 'analysis' || isLastTurn || !isAnswered) kept.push(message);
  }
  return kept.reverse();
}

function harmonyMessages(messages: readonly ChatMessage[]): HarmonyMessage[] {
  const names = toolNames(messages);
  return messages.flatMap((message) => {
    if (message.role === 'assistant') return assistantMessages(message);
    if (message.role === 'tool') return [toolMessage(message, names)];
    const { role, content } = message;
    return [
      role === 'user' ? { author: role, text: content } : { author: 'developer', text: developerText(content, []) },
    ];
  });
}

function toolMessage(
  { toolCallId, content }: Extract<ChatMessage, { readonly role: 'tool' }>,
  names: ReadonlyMap<string, string>,
): HarmonyMessage {
  const author = `functions.${names.get(toolCallId) ?? 'unknown'}`;
  return { author, recipient: 'assistant', recipientIn: 'author', channel: 'commentary', text: content };
}

function assistantMessages(message: Extract<ChatMessage, { readonly role: 'assistant' }>): HarmonyMessage[] {
  const { content, thinking = '', toolCalls = [] } = message;
  const said = { author: 'assistant', channel: toolCalls.length > 0 ? 'commentary' : 'final', text: content } as const;
  const calls = toolCalls.map((call) => ({
    author: 'assistant',
    recipient: `functions.${call.name}`,
    channel: 'commentary' as const,
    type: 'json' as const,
    text: call.arguments,
  }));
  return [
    ...(thinking === '' ? [] : [{ author: 'assistant', channel: 'analysis' as const, text: thinking }]),
    ...(content === '' && toolCalls.length > 0 ? [] : [said]),
    ...calls,
  ];
}

function marksOf(tokenizer: Tokenizer): (name: string) => number {
  return (name) => {
    const id = tokenizer.framing.get(name);
    if (id === undefined) throw new Error(`The vocabulary lacks ${name}.`);
    return id;
  };
}

function localDate(now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}
