/** Warm-up: computes a prompt into the cache before a request with the same prefix arrives. */
import { limits } from '../limits.ts';
import type { TokenOutcome, TokenRequest } from '../scheduler/job.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  type CompletionPrompt,
  type CompletionSource,
  completionPrompt,
  cutAheadTokens,
  promptBudgetTokens,
} from './completionPrompt.ts';

/** How many tokens are cached; a warm-up stopped by a key keeps the tokens computed so far. */
export interface Warmed {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly finish: TokenOutcome['finish'];
}

/** The default time limit ends warm-ups that are no longer likely to be used. */
export async function warmUp(
  scheduler: Scheduler,
  prompt: readonly number[],
  options: Pick<TokenRequest, 'boundaries' | 'timeoutMs' | 'signal'> = {},
): Promise<Warmed> {
  const promptTokens = prompt.length;
  if (promptTokens === 0) return { promptTokens, cachedTokens: 0, finish: 'length' };
  const nothing = (): never => {
    throw new Error('A warm-up must not sample.');
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

/** The prompt that `complete` would build at this place. */
export function completionToWarm(
  tokenizer: Tokenizer,
  contextTokens: number,
  source: CompletionSource,
  maxTokens: number,
  aheadTokens = 0,
): CompletionPrompt {
  const answerTokens = Math.min(maxTokens, Math.floor(contextTokens / 2));
  return completionPrompt(tokenizer, source, promptBudgetTokens(contextTokens, answerTokens), aheadTokens);
}

/** The prompt after the next cut of a long file. @returns undefined if no cut is near. */
export function promptAfterCut(
  tokenizer: Tokenizer,
  contextTokens: number,
  source: CompletionSource,
  maxTokens: number,
): CompletionPrompt | undefined {
  const { nearsCut } = completionToWarm(tokenizer, contextTokens, source, maxTokens);
  return nearsCut ? completionToWarm(tokenizer, contextTokens, source, maxTokens, cutAheadTokens) : undefined;
}

/** Between keys, reads the prompt after the next cut of a long file, so that the key which moves the cut need not wait. */
export class CutAhead {
  #stop = new AbortController();

  /** A key comes first. What was read stays cached. */
  pause(): void {
    this.#stop.abort();
  }

  read(scheduler: Scheduler, prompt: CompletionPrompt | undefined): void {
    this.pause();
    this.#stop = new AbortController();
    if (!prompt) return;
    const reading = warmUp(scheduler, prompt.ids, { boundaries: prompt.boundaries, signal: this.#stop.signal });
    // A model that is unloaded or a lost device ends it; the next request reports that.
    reading.catch(() => undefined);
  }
}
