/** Ends thinking after so many tokens, or when it is asked to, by writing what the model would have written to end it. */
import type { OutputParser } from '../prompt/output.ts';
import { free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

export interface ThinkingLimitOptions {
  /** Knows whether the model thinks; it has read each token before `take`. */
  readonly parser: OutputParser;
  /** Tokens that end thinking and begin the answer. */
  readonly close: readonly number[];
  /** Absent: it thinks until it is asked to answer. */
  readonly maxTokens?: number | undefined;
  /** Aborted when the answer is wanted now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Whether a sentence or line ends with a token. */
  readonly endsSentence: (token: number) => boolean;
}

/** Of the limit, the last tokens in which thinking ends at the end of a sentence: a quarter, and at most these. */
const graceTokens = 16;

export class ThinkingLimit implements LogitsProcessor {
  readonly #options: ThinkingLimitOptions;
  #thoughtTokens = 0;
  #last: number | undefined;
  #closing: number[] = [];

  constructor(options: ThinkingLimitOptions) {
    this.#options = options;
  }

  next(): NextTokens {
    if (this.#closing.length === 0 && this.#mustEnd()) this.#closing = [...this.#options.close];
    const [token] = this.#closing;
    if (token !== undefined) return { kind: 'forced', token };
    const { parser, maxTokens } = this.#options;
    return parser.isThinking && maxTokens !== undefined ? { ...free, tokens: maxTokens - this.#thoughtTokens } : free;
  }

  take(token: number): void {
    this.#last = token;
    if (this.#closing.length > 0) this.#closing.shift();
    else if (this.#options.parser.isThinking) this.#thoughtTokens++;
  }

  #mustEnd(): boolean {
    const { parser, maxTokens = Number.POSITIVE_INFINITY, answerNow, endsSentence } = this.#options;
    if (!parser.isThinking) return false;
    if (answerNow?.aborted || this.#thoughtTokens >= maxTokens) return true;
    const grace = Math.min(graceTokens, maxTokens / 4);
    return this.#thoughtTokens >= maxTokens - grace && this.#last !== undefined && endsSentence(this.#last);
  }
}
