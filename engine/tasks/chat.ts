/** A conversation: the turns that fit, and the answer told from the thinking. */
import { HearthError } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/schemaBounds.ts';
import type { ChatMessage, Tool } from '../prompt/conversation.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from '../prompt/formats/promptFormat.ts';
import type { OutputPiece } from '../prompt/output.ts';
import type { ThinkingMode } from '../prompt/thinkingModes.ts';
import type { Grammars } from '../sampling/grammar.ts';
import { LogprobRecorder, type TokenLogprob } from '../sampling/logprobs.ts';
import { MinimumTokens } from '../sampling/minimumTokens.ts';
import { PlanSteer } from '../sampling/planProcessor.ts';
import type { SamplerSettings } from '../sampling/sampler.ts';
import { ThinkingLimit } from '../sampling/thinkingLimit.ts';
import type { RequestClass } from '../scheduler/nextStep.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Generated, generate } from './generate.ts';
import { type PreparedChat, prepareChat } from './preparedChat.ts';

export interface ChatRequest {
  readonly requestClass: RequestClass;
  readonly messages: readonly ChatMessage[];
  readonly thinking: ThinkingMode;
  /** What the model may call. */
  readonly tools?: readonly Tool[] | undefined;
  readonly toolChoice?: PromptOptions['toolChoice'];
  readonly parallelToolCalls?: PromptOptions['parallelToolCalls'];
  /** What the answer must be. */
  readonly responseFormat?: PromptOptions['responseFormat'];
  /** Thinking ends after as many tokens. */
  readonly thinkingTokens?: number | undefined;
  /** Aborted: thinking ends now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Absent: until the context is full. */
  readonly maxTokens?: number | undefined;
  readonly stopStrings: readonly string[];
  readonly stopIds?: readonly number[] | undefined;
  /** The model cannot end the answer by itself before. */
  readonly minTokens?: number | undefined;
  /** Alternatives whose log-probabilities `onPiece` is told; absent: none of any. */
  readonly logprobs?: number | undefined;
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** `tokens`: generated so far. */
  readonly onPiece: (piece: OutputPiece, tokens: number, logprobs?: readonly TokenLogprob[]) => void;
  /** Counted from now: what is not done by then fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ChatAnswer extends Generated {
  readonly droppedMessages: number;
}

/** What answers a chat needs of a loaded model. */
export interface ChatModel {
  readonly scheduler: Scheduler;
  readonly format: PromptFormat;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  readonly contextTokens: number;
  /** What a template that shows the date is told. */
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
    // Cancelling is an end, before the first token as later.
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
  const plan = new PlanSteer({ plan: prompt.plan, tokenizer, grammars, parser, signal: request.signal });
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

/** @throws HearthError `unavailable` for an answer that breaks what of its schema could not be enforced. */
export async function planned(plan: PlanSteer, answer: Promise<Generated>): Promise<Generated> {
  try {
    const generated = await answer;
    const violation = generated.finish === 'stop' ? await plan.violation() : undefined;
    if (violation === undefined) return generated;
    throw new HearthError(
      'unavailable',
      `The answer breaks its JSON Schema where it can't be enforced (${violation}). What was written was shown; ask again.`,
    );
  } finally {
    plan.close();
  }
}
