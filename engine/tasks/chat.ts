/** A conversation: the turns that fit, and the answer told from the thinking. */
import { HearthError } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/schemaBounds.ts';
import type { ChatMessage, Tool } from '../prompt/conversation.ts';
import type { PromptFormat, PromptOptions } from '../prompt/formats/promptFormat.ts';
import type { OutputPiece } from '../prompt/output.ts';
import type { ThinkingMode } from '../prompt/thinkingModes.ts';
import type { Grammars } from '../sampling/grammar.ts';
import { PlanSteer } from '../sampling/planProcessor.ts';
import type { SamplerSettings } from '../sampling/sampler.ts';
import { ThinkingLimit } from '../sampling/thinkingLimit.ts';
import type { RequestClass } from '../scheduler/nextStep.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Generated, generate } from './generate.ts';
import { fitHistory } from './history.ts';

export interface ChatRequest {
  readonly requestClass: RequestClass;
  readonly messages: readonly ChatMessage[];
  readonly thinking: ThinkingMode;
  /** What the model may call. */
  readonly tools?: readonly Tool[] | undefined;
  readonly toolChoice?: PromptOptions['toolChoice'];
  /** What the answer must be. */
  readonly responseFormat?: PromptOptions['responseFormat'];
  /** Thinking ends after as many tokens. */
  readonly thinkingTokens?: number | undefined;
  /** Aborted: thinking ends now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Absent: until the context is full. */
  readonly maxTokens?: number | undefined;
  readonly stopStrings: readonly string[];
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** `tokens`: generated so far. */
  readonly onPiece: (piece: OutputPiece, tokens: number) => void;
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
  const { format, contextTokens } = model;
  const { thinking, tools, toolChoice, responseFormat, thinkingTokens, answerNow, onPiece, ...common } = request;
  for (const { parameters } of tools ?? []) checkSchemaBounds(parameters);
  if (responseFormat?.kind === 'json-schema') checkSchemaBounds(responseFormat.schema);
  const options = { thinking, tools, toolChoice, responseFormat, now: model.now() };
  // Room for an answer, whatever it will need: without a limit, a quarter of the context.
  const reserved = Math.min(request.maxTokens ?? contextTokens, Math.floor(contextTokens / 4));
  const count = (messages: readonly ChatMessage[]): number => format.render(messages, options).ids.length;
  const { messages, droppedMessages } = fitHistory(request.messages, count, contextTokens - reserved);
  const prompt = format.render(messages, options);
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
  const generated = await planned(
    plan,
    generate(model.scheduler, {
      ...common,
      prompt: prompt.ids,
      boundaries: prompt.boundaries,
      maxTokens: request.maxTokens ?? contextTokens,
      stopIds: prompt.stops,
      stopStrings: [...prompt.stopStrings, ...request.stopStrings],
      parser,
      processors: [limit, plan],
      onPiece: (piece, tokens) => {
        onPiece(piece, tokens);
        return 'continue';
      },
    }),
  );
  return { ...generated, droppedMessages };
}

/** @throws HearthError `unavailable` for an answer that breaks what of its schema could not be enforced. */
async function planned(plan: PlanSteer, answer: Promise<Generated>): Promise<Generated> {
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
