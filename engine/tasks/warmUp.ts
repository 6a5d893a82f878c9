/** Computes a prompt ahead, while nobody waits: whoever asks with the same beginning finds it in the cache. */
import { limits } from '../limits.ts';
import type { TokenOutcome, TokenRequest } from '../scheduler/job.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  type CompletionPrompt,
  type CompletionSource,
  completionPrompt,
  promptBudgetTokens,
} from './completionPrompt.ts';

/** How much was read; a warm-up that a key stopped keeps what it read until then. */
export interface Warmed {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly finish: TokenOutcome['finish'];
}

/** Without a deadline of its own it ends when what is read ahead is no more likely to be asked for. */
export async function warmUp(
  scheduler: Scheduler,
  prompt: readonly number[],
  options: Pick<TokenRequest, 'boundaries' | 'timeoutMs' | 'signal'> = {},
): Promise<Warmed> {
  const promptTokens = prompt.length;
  if (promptTokens === 0) return { promptTokens, cachedTokens: 0, finish: 'length' };
  const nothing = (): never => {
    throw new Error('A warm-up samples nothing.');
  };
  const { cachedTokens, finish } = await scheduler.submit({
    requestClass: 'warm-up',
    prompt,
    maxTokens: 0,
    choose: nothing,
    deliver: nothing,
    ...options,
    timeoutMs: options.timeoutMs ?? limits.generation.warmUpMs,
  });
  return { promptTokens, cachedTokens, finish };
}

/** The prompt of a completion at this place, as `complete` will ask it. */
export function completionToWarm(
  tokenizer: Tokenizer,
  contextTokens: number,
  source: CompletionSource,
  maxTokens: number,
): CompletionPrompt {
  const answerTokens = Math.min(maxTokens, Math.floor(contextTokens / 2));
  return completionPrompt(tokenizer, source, promptBudgetTokens(contextTokens, answerTokens));
}
