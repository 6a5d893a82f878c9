/** Chat: fits the conversation into the context, and separates thinking from the answer. */
import { HearthError } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/refusals.ts';
import type { ChatMessage, OutputPiece, Tool } from '../prompt/conversation.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from '../prompt/formats/promptFormat.ts';
import type { ThinkingMode } from '../prompt/thinking.ts';
import type { Grammars } from '../sampling/grammar.ts';
import { MinimumTokens, ThinkingLimit } from '../sampling/logitsProcessor.ts';
import { PlanProcessor } from '../sampling/planProcessor.ts';
import { LogprobRecorder, type SamplerSettings, type TokenLogprob } from '../sampling/sampler.ts';
import type { RequestClass } from '../scheduler/job.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Sliced, Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Generated, generate, runInSlices, type SliceOptions } from './generate.ts';
import { fitHistory } from './history.ts';

export interface ChatRequest {
  readonly requestClass: RequestClass;
  readonly messages: readonly ChatMessage[];
  readonly thinking: ThinkingMode;
  /** Tools that the model may call. */
  readonly tools?: readonly Tool[] | undefined;
  readonly toolChoice?: PromptOptions['toolChoice'];
  readonly parallelToolCalls?: PromptOptions['parallelToolCalls'];
  /** The form that the answer must have. */
  readonly responseFormat?: PromptOptions['responseFormat'];
  /** Limit of thinking tokens. */
  readonly thinkingTokens?: number | undefined;
  /** Abort it to end thinking now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Absent: limited by the context only. */
  readonly maxTokens?: number | undefined;
  readonly stopStrings: readonly string[];
  readonly stopIds?: readonly number[] | undefined;
  /** As in `GenerationRequest`. */
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
  readonly scheduler: Scheduler;
  readonly format: PromptFormat;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  readonly contextTokens: number;
  /** The date for templates that show it. */
  readonly now: () => Date;
}

const utf8 = new TextDecoder();

/** @throws HearthError `context-overflow` when the last message alone does not fit; `unsupported` for too large a schema. */
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
      `The answer breaks a part of its JSON Schema that can't be enforced (${violation}). It was shown as written; ask again.`,
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
