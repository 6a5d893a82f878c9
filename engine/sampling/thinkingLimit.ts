/** Ends thinking after a token limit or on request, by forcing the tokens with which the model ends it. */
import type { OutputParser } from '../prompt/output.ts';
import { free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

export interface ThinkingLimitOptions {
  /** Knows whether the model is thinking; it gets each token before `take`. */
  readonly parser: OutputParser;
  /** Tokens that end thinking and begin the answer. */
  readonly close: readonly number[];
  /** Absent: no limit. */
  readonly maxTokens?: number | undefined;
  /** Abort it to end thinking now. */
  readonly answerNow?: AbortSignal | undefined;
  /** Whether the token ends a sentence or a line. */
  readonly endsSentence: (token: number) => boolean;
}

/** Within this many tokens of the limit (at most a quarter of it), thinking already ends at the end of a sentence. */
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
