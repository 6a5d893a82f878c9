/**
 * Measures prefill and decode speed with requests to the engine's scheduler, so that chunked prefill and device sampling work
 * as in a chat. Draft tokens are off, because random prompts repeat themselves more than real text does.
 */
import type { Decoder } from '../backend/backend.ts';
import { throwIfAborted } from '../errors.ts';
import { PrefixCache } from '../kv/prefixCache.ts';
import type { OutputParser } from '../prompt/conversation.ts';
import { seededRandom } from '../sampling/random.ts';
import { greedy } from '../sampling/sampler.ts';
import { engineScheduler, type Scheduler } from '../scheduler/scheduler.ts';
import { generate } from '../tasks/generate.ts';

export interface Work {
  /** Tokens in the KV cache before the prompt. */
  readonly depthTokens: number;
  readonly promptTokens: number;
  /** Answer tokens after the first one, which prefill produces. */
  readonly tokens: number;
  readonly signal?: AbortSignal;
}

export interface Speeds {
  readonly prefillTokensPerSecond: number;
  /** 0 if no tokens were requested. */
  readonly decodeTokensPerSecond: number;
}

/** Discards the output, because random ids have no meaningful text. */
const silent: OutputParser = { isThinking: false, push: () => [], end: () => [] };

export class SpeedMeter {
  readonly scheduler: Scheduler;
  readonly #random = seededRandom(1);
  readonly #context: number[] = [];

  constructor(decoder: Decoder) {
    this.scheduler = engineScheduler({ decoder, cache: new PrefixCache({ decoder, maxIdle: () => 1 }) });
  }

  /** Share of answer tokens that the device sampled. The first token of each answer comes from prefill logits. */
  get deviceShare(): number {
    const { deviceTokens, generatedTokens } = this.scheduler.statistics().classes.chat;
    return generatedTokens > 0 ? deviceTokens / generatedTokens : 0;
  }

  /** Measures one request. Prompts of equal depth share the context but differ after it, so only the context is cached. */
  async measure({ depthTokens, promptTokens, tokens, signal }: Work): Promise<Speeds> {
    this.#context.push(...this.#ids(depthTokens - this.#context.length));
    const context = this.#context.slice(0, depthTokens);
    if (depthTokens > 0) await this.#ask(context, 0, [depthTokens], signal);
    const prompt = [...context, ...this.#ids(promptTokens)];
    const { statistics } = await this.#ask(prompt, tokens + 1, [depthTokens], signal);
    throwIfAborted(signal);
    return {
      prefillTokensPerSecond: (1000 * (prompt.length - statistics.cachedTokens)) / statistics.timeToFirstTokenMs,
      decodeTokensPerSecond: statistics.tokensPerSecond,
    };
  }

  #ask(prompt: readonly number[], maxTokens: number, boundaries: readonly number[], signal: AbortSignal | undefined) {
    return generate(this.scheduler, {
      requestClass: 'chat',
      prompt,
      boundaries,
      maxTokens,
      sampling: greedy,
      random: this.#random,
      stopIds: new Set(),
      stopStrings: [],
      parser: silent,
      onPiece: () => 'continue',
      signal,
    });
  }

  #ids(count: number): number[] {
    const { vocabularySize } = this.scheduler.decoder.spec;
    return Array.from({ length: Math.max(0, count) }, () => Math.floor(this.#random() * vocabularySize));
  }
}
