/** The engine functions that the endpoints use. */
import type { z } from 'zod';
import { cancelled, HearthError } from '../errors.ts';
import {
  type ChatParams,
  type ChatResult,
  chatParams,
  type Delta,
  type DeltaStreams,
  type FinishReason,
  type ModelCard,
  type Statistics,
} from '../protocol/engineProtocol.ts';
import type { Engine } from '../runtime/service.ts';

export interface Serving {
  readonly engine: Pick<Engine, 'status' | 'chat' | 'complete' | 'generate' | 'embed' | 'countTokens'>;
  readonly streams: DeltaStreams;
}

export function loadedCard({ engine }: Serving): ModelCard {
  const { model } = engine.status();
  if (model) return model;
  throw new HearthError('unavailable', 'No model is loaded. Try again once one is loaded.');
}

type ChatRequest = Omit<z.output<typeof chatParams>, 'stream'>;

/** Validates everything except the stream id against the protocol before any computation. */
export function chatRequest(params: Omit<ChatParams, 'stream'>): ChatRequest {
  return chatParams.omit({ stream: true }).parse(params);
}

/** @throws HearthError also if the engine ended the answer early, because a partial answer is not a result. */
export async function ask(
  { engine, streams }: Serving,
  request: ChatRequest,
  signal: AbortSignal,
  onDelta: (delta: Delta) => void,
): Promise<ChatResult> {
  return whole(await streams.with(onDelta, (stream) => engine.chat({ ...request, stream }, signal)));
}

export function whole<Result extends { readonly finish: string }>(result: Result): Result {
  if (result.finish === 'cancelled')
    throw cancelled('The model was unloaded or replaced before the answer was complete.');
  return result;
}

/** OpenAI's finish reason; a full context is `length` too. */
export function finishOf(finish: FinishReason | 'tool-calls'): 'stop' | 'length' | 'tool_calls' {
  if (finish === 'tool-calls') return 'tool_calls';
  return finish === 'length' || finish === 'context' ? 'length' : 'stop';
}

/** Tokens of all choices; their common prompt counts once. */
export function usageOf(answers: readonly { readonly statistics: Statistics }[]) {
  const promptTokens = Math.max(0, ...answers.map(({ statistics }) => statistics.promptTokens));
  const cachedTokens = Math.max(0, ...answers.map(({ statistics }) => statistics.cachedTokens));
  const completionTokens = answers.reduce((sum, { statistics }) => sum + statistics.generatedTokens, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** Waits until all have ended, then throws the first failure, so that none continues for a failed request. */
export async function allOf<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** Usage of several prompts with their answers. */
export function totalUsage(groups: readonly (readonly { readonly statistics: Statistics }[])[]) {
  const usages = groups.map(usageOf);
  const sum = (count: (usage: ReturnType<typeof usageOf>) => number): number =>
    usages.reduce((total, usage) => total + count(usage), 0);
  return {
    prompt_tokens: sum((usage) => usage.prompt_tokens),
    completion_tokens: sum((usage) => usage.completion_tokens),
    total_tokens: sum((usage) => usage.total_tokens),
    prompt_tokens_details: { cached_tokens: sum((usage) => usage.prompt_tokens_details.cached_tokens) },
  };
}

/** Thinking tokens of the answers, recounted from their text. */
export async function thinkingTokensOf(
  { engine }: Serving,
  answers: readonly { readonly thinking: string }[],
): Promise<number> {
  const texts = answers.flatMap(({ thinking }) => (thinking === '' ? [] : [thinking]));
  const counts = texts.length === 0 ? [] : await engine.countTokens({ texts });
  return counts.reduce((sum, tokens) => sum + tokens, 0);
}

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);
