/** Chat: fits the conversation into the context, and separates thinking from the answer. */

import type { SamplerSettings } from '../backend/sampler.ts';
import { HearthError } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/schemaDocument.ts';
import { limits } from '../limits.ts';
import type { ChatMessage, OutputPiece, Tool } from '../prompt/conversation.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from '../prompt/formats/promptFormat.ts';
import type { ThinkingMode } from '../prompt/thinking.ts';
import type { Grammars } from '../sampling/grammar.ts';
import { MinimumTokens, ThinkingLimit } from '../sampling/logitsProcessor.ts';
import { LogprobRecorder, type TokenLogprob } from '../sampling/logprobs.ts';
import { PlanProcessor } from '../sampling/planProcessor.ts';
import type { RequestClass } from '../scheduler/job.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { Sliced, Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Generated, generate, runInSlices, type SliceOptions } from './generate.ts';

export interface ChatRequest {
  readonly requestClass: RequestClass;
  readonly messages: readonly ChatMessage[];
  readonly thinking: ThinkingMode;
  /** Tools that the model may call. */
  readonly tools?: readonly Tool[] | undefined;
  readonly toolChoice?: PromptOptions['toolChoice'];
  readonly parallelToolCalls?: PromptOptions['parallelToolCalls'];
  /** Constrains the format of the answer. */
  readonly responseFormat?: PromptOptions['responseFormat'];
  /** Limit of thinking tokens. */
  readonly thinkingTokens?: number | undefined;
  /** Abort it to end thinking now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Absent: limited by the context only. */
  readonly maxTokens?: number | undefined;
  readonly stopStrings: readonly string[];
  readonly stopIds?: readonly number[] | undefined;
  /** See `GenerationRequest`. */
  readonly endRepetition?: boolean | undefined;
  /** The model can't end the answer before this many tokens. */
  readonly minTokens?: number | undefined;
  /** How many alternatives `onPiece` gets log-probabilities for; absent: no log-probabilities. */
  readonly logprobs?: number | undefined;
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** `tokens`: generated so far. */
  readonly onPiece: (piece: OutputPiece, tokens: number, logprobs?: readonly TokenLogprob[]) => void;
  /** From now; a request that takes longer fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ChatAnswer extends Generated {
  readonly droppedMessages: number;
}

/** The parts of a loaded model that a chat needs. */
export interface ChatModel {
  readonly scheduler: Submitter;
  readonly format: PromptFormat;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  readonly contextTokens: number;
  /** The date for templates that show it. */
  readonly now: () => Date;
}

const utf8 = new TextDecoder();

/**
 * @throws HearthError `context-overflow` if the last message alone does not fit; `unsupported` for a schema that is too
 * large.
 */
export async function chat(model: ChatModel, request: ChatRequest): Promise<ChatAnswer> {
  const started = performance.now();
  const { thinking, tools, toolChoice, parallelToolCalls, responseFormat, messages, timeoutMs, maxTokens, signal } =
    request;
  for (const { parameters } of tools ?? []) checkSchemaBounds(parameters);
  if (responseFormat?.kind === 'json-schema') checkSchemaBounds(responseFormat.schema);
  const options = { thinking, tools, toolChoice, parallelToolCalls, responseFormat, now: model.now() };
  const deadlineMs = timeoutMs === undefined ? undefined : started + timeoutMs;
  let prepared: PreparedChat;
  try {
    prepared = await prepareChat(model, messages, options, { maxTokens, signal, deadlineMs });
  } catch (error) {
    // Cancellation is a normal end, even before the first token.
    if (error instanceof HearthError && error.code === 'cancelled') return nothingWritten;
    throw error;
  }
  const generated = await answer(model, prepared.prompt, {
    ...request,
    timeoutMs: deadlineMs && Math.max(1, deadlineMs - performance.now()),
  });
  return { ...generated, droppedMessages: prepared.droppedMessages };
}

const nothingWritten: ChatAnswer = {
  text: '',
  thinking: '',
  calls: [],
  finish: 'cancelled',
  statistics: { promptTokens: 0, cachedTokens: 0, generatedTokens: 0, timeToFirstTokenMs: 0, tokensPerSecond: 0 },
  droppedMessages: 0,
};

function answer(model: ChatModel, prompt: ChatPrompt, request: ChatRequest): Promise<Generated> {
  const { thinkingTokens, answerNow, onPiece, stopIds = [], minTokens = 0, logprobs, ...common } = request;
  const stops = new Set([...prompt.stops, ...stopIds]);
  const parser = prompt.parser();
  const { tokenizer, grammars } = model;
  const plan = new PlanProcessor({ plan: prompt.plan, tokenizer, grammars, parser, signal: request.signal });
  const limit = new ThinkingLimit({
    parser,
    close: prompt.closeThinking,
    maxTokens: thinkingTokens,
    answerNow,
    endsSentence: (token) => /[.!?:;\n]$/.test(utf8.decode(model.tokenizer.bytesOf(token))),
  });
  return planned(
    plan,
    generate(model.scheduler, {
      ...common,
      prompt: prompt.ids,
      boundaries: prompt.boundaries,
      maxTokens: request.maxTokens ?? model.contextTokens,
      stopIds: stops,
      stopStrings: [...prompt.stopStrings, ...request.stopStrings],
      parser,
      processors: [limit, plan, ...(minTokens > 0 ? [new MinimumTokens(minTokens, prompt.stops)] : [])],
      logprobs: logprobs === undefined ? undefined : new LogprobRecorder(tokenizer, logprobs),
      onPiece: (...given) => {
        onPiece(...given);
        return 'continue';
      },
    }),
  );
}

/** @throws HearthError `unavailable` if the answer breaks a part of its schema that could not be enforced. */
export async function planned(plan: PlanProcessor, answer: Promise<Generated>): Promise<Generated> {
  try {
    const generated = await answer;
    const violation = generated.finish === 'stop' ? await plan.violation() : undefined;
    if (violation === undefined) return generated;
    throw new HearthError(
      'unavailable',
      `The answer violates a part of its JSON Schema that can't be enforced (${violation}). It was shown as written; ask again.`,
    );
  } finally {
    plan.close();
  }
}

// Makes a prompt that fits the context from a conversation, without blocking other requests.

interface PreparedChat {
  readonly prompt: ChatPrompt;
  readonly droppedMessages: number;
}

/** @throws HearthError `context-overflow` when the last message alone does not fit, `cancelled`, `timeout`. */
export async function prepareChat(
  { format, contextTokens }: { readonly format: PromptFormat; readonly contextTokens: number },
  messages: readonly ChatMessage[],
  options: PromptOptions,
  { maxTokens = contextTokens, ...slices }: SliceOptions & { readonly maxTokens?: number | undefined },
): Promise<PreparedChat> {
  // Without a limit, a quarter of the context is left for the answer.
  const budgetTokens = contextTokens - Math.min(maxTokens, Math.floor(contextTokens / 4));
  const fixedChars = await runInSlices(charsOfTools(options.tools ?? []), slices);
  const { prompt, droppedMessages } = await fitHistory(
    messages,
    async (kept) => {
      const rendered = await runInSlices(format.renderSliced(kept, options), slices);
      return { rendered, tokens: rendered.ids.length };
    },
    { budgetTokens, fixedChars },
  );
  return { prompt: prompt.rendered, droppedMessages };
}

/** Formats omit some of a schema's syntax, never its names and descriptions. */
function* charsOfTools(tools: readonly Tool[]): Sliced<number> {
  let chars = 0;
  for (const { name, description, parameters } of tools) {
    yield;
    chars += name.length + description.length + charsOfTexts(parameters);
  }
  return chars;
}

function charsOfTexts(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.entries(value).reduce(
    (sum, [key, item]) => sum + (Array.isArray(value) ? 0 : key.length) + charsOfTexts(item),
    0,
  );
}

// Chooses the turns of a conversation that go into the prompt if the context can't hold all of them.

/** The measured size of a prompt. */
interface Measured {
  readonly tokens: number;
}

interface FittedHistory<Prompt extends Measured> {
  readonly messages: readonly ChatMessage[];
  readonly droppedMessages: number;
  /** The prompt of these messages. */
  readonly prompt: Prompt;
}

interface HistoryRoom {
  readonly budgetTokens: number;
  /** Characters that every prompt of the conversation contains besides its messages: tool descriptions. */
  readonly fixedChars?: number;
}

/**
 * Drops the earliest turns until the prompt has at most `budgetTokens`; leading system messages and the last turn stay. It
 * drops a quarter of the budget at a time, so that the prompts of later turns keep the same prefix and hit the cache. A
 * conversation whose characters can't fit is first cut by characters in the same way. About log n of n turns are measured,
 * on the assumption that fewer turns never take more tokens.
 * @throws HearthError `context-overflow` when the last turn alone is too long.
 */
export async function fitHistory<Prompt extends Measured>(
  messages: readonly ChatMessage[],
  measure: (messages: readonly ChatMessage[]) => Prompt | Promise<Prompt>,
  room: HistoryRoom,
): Promise<FittedHistory<Prompt>> {
  const { budgetTokens } = room;
  const turns = new Turns(messages, room.fixedChars ?? 0);
  const first = await turns.startWithin((start) => turns.charsFrom(start), 0, mostChars(budgetTokens));
  const last = turns.starts.length - 1;
  if (first === undefined) throw turns.overflow(`${turns.charsFrom(last)} characters`, budgetTokens);
  // Usually everything fits.
  const prompts = new Map([[first, await measure(turns.from(first))]]);
  const tokensFrom = async (start: number): Promise<number> => {
    const prompt = prompts.get(start) ?? (await measure(turns.from(start)));
    prompts.set(start, prompt);
    return prompt.tokens;
  };
  const start = await turns.startWithin(tokensFrom, first, budgetTokens);
  if (start === undefined) throw turns.overflow(`${await tokensFrom(last)} tokens`, budgetTokens);
  const kept = turns.from(start);
  const prompt = prompts.get(start) ?? (await measure(kept));
  return { messages: kept, droppedMessages: messages.length - kept.length, prompt };
}

const mostChars = (budgetTokens: number): number =>
  Math.max(budgetTokens * limits.generation.charsPerToken, limits.generation.historyChars);

class Turns {
  /** Indexes at which the conversation may start: its first message and each later user message, so that roles stay in order. */
  readonly starts: readonly number[];
  readonly #messages: readonly ChatMessage[];
  readonly #system: readonly ChatMessage[];
  readonly #fixedChars: number;
  readonly #systemChars: number;
  /** Characters from each message to the end. */
  readonly #chars: Float64Array;

  constructor(messages: readonly ChatMessage[], fixedChars: number) {
    const found = messages.findIndex(({ role }) => role !== 'system');
    const firstTurn = found < 0 ? messages.length : found;
    const later = messages.flatMap(({ role }, i) => (role === 'user' && i > firstTurn ? [i] : []));
    this.starts = [firstTurn, ...later];
    this.#messages = messages;
    this.#system = messages.slice(0, firstTurn);
    this.#fixedChars = fixedChars;
    this.#systemChars = this.#system.reduce((sum, message) => sum + charsOf(message), 0);
    this.#chars = new Float64Array(messages.length + 1);
    for (let i = messages.length - 1; i >= firstTurn; i--) {
      const message = messages[i];
      this.#chars[i] = (this.#chars[i + 1] ?? 0) + (message ? charsOf(message) : 0);
    }
  }

  from(start: number): readonly ChatMessage[] {
    return start === 0 ? this.#messages : [...this.#system, ...this.#messages.slice(this.starts[start])];
  }

  charsFrom(start: number): number {
    return this.#fixedChars + this.#systemChars + this.#turnChars(start);
  }

  /** The earliest fitting start that is not before `first`. @returns undefined if none fits. */
  async startWithin(
    sizeFrom: (start: number) => number | Promise<number>,
    first: number,
    budget: number,
  ): Promise<number | undefined> {
    const total = await sizeFrom(first);
    if (total <= budget) return first;
    const step = Math.max(1, Math.floor(budget / 4));
    const goal = total - Math.ceil((total - budget) / step) * step;
    return (await this.#earliest(sizeFrom, first + 1, goal)) ?? (await this.#earliest(sizeFrom, first + 1, budget));
  }

  overflow(size: string, budgetTokens: number): HearthError {
    const last = this.starts.length - 1;
    const parts: readonly (readonly [string, number])[] = [
      ['The last message', this.#turnChars(last)],
      ['The system message', this.#systemChars],
      ['The descriptions of the tools', this.#fixedChars],
    ];
    const [longest] = parts.reduce((a, b) => (b[1] > a[1] ? b : a));
    const isLast = longest === 'The last message';
    const found = isLast
      ? `The last message has ${size} with its framing`
      : `${longest} and the last message have ${size} together, most of them the former`;
    const advice = isLast ? 'it' : longest.toLowerCase();
    return new HearthError(
      'context-overflow',
      `${found}; ${budgetTokens} tokens fit beside the answer. Shorten ${advice} or load the model with a longer context.`,
    );
  }

  async #earliest(
    sizeFrom: (start: number) => number | Promise<number>,
    first: number,
    most: number,
  ): Promise<number | undefined> {
    let low = first;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((await sizeFrom(middle)) <= most) high = middle;
      else low = middle + 1;
    }
    return low < this.starts.length ? low : undefined;
  }

  #turnChars(start: number): number {
    return this.#chars[this.starts[start] ?? this.#messages.length] ?? 0;
  }
}

/** Without thinking, which most formats omit from earlier turns. */
function charsOf(message: ChatMessage): number {
  const calls = message.role === 'assistant' ? (message.toolCalls ?? []) : [];
  const called = calls.reduce((sum, call) => sum + call.name.length + call.arguments.length, 0);
  const { content } = message;
  const thought = message.role === 'assistant' && /^\s*<think>/.test(content) ? content.indexOf('</think>') : -1;
  return limits.generation.messageChars + called + content.length - Math.max(0, thought);
}
