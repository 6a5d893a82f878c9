/**
 * How fast a model reads and writes, by requests to the engine's own scheduler: the same chunks of a prompt, and the same choice of who
 * samples, as any chat. Draft tokens are off, since random prompts repeat themselves more than people do.
 */
import type { Decoder } from '../backend/backend.ts';
import { throwIfAborted } from '../errors.ts';
import { PrefixCache } from '../kv/prefixCache.ts';
import type { OutputParser } from '../prompt/output.ts';
import { seededRandom } from '../sampling/random.ts';
import { greedy } from '../sampling/sampler.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import { engineScheduler } from '../scheduler/scheduler.ts';
import { generate } from '../tasks/generate.ts';

export interface Work {
  /** In the cache before the prompt. */
  readonly depthTokens: number;
  readonly promptTokens: number;
  /** Of the answer, after its first, which comes with the prompt. */
  readonly tokens: number;
  readonly signal?: AbortSignal;
}

export interface Speeds {
  readonly prefillTokensPerSecond: number;
  /** 0: no tokens were asked for. */
  readonly decodeTokensPerSecond: number;
}

/** The ids are random: there is no text to make of them. */
const silent: OutputParser = { isThinking: false, push: () => [], end: () => [] };

export class SpeedMeter {
  readonly scheduler: Scheduler;
  readonly #random = seededRandom(1);
  readonly #context: number[] = [];

  constructor(decoder: Decoder) {
    this.scheduler = engineScheduler({ decoder, cache: new PrefixCache({ decoder, maxIdle: () => 1 }) });
  }

  /** Of the answers' tokens, how many the device sampled itself; the first of each comes from a prompt's logits. */
  get deviceShare(): number {
    const { deviceTokens, generatedTokens } = this.scheduler.statistics().classes.chat;
    return generatedTokens > 0 ? deviceTokens / generatedTokens : 0;
  }

  /** One request. Prompts of equal depth begin alike, and go on differently, so that no prompt itself is in the cache. */
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
