/**
 * Which tokens of a sequence the caches hold: all of them, or for layers with a sliding window the last ones. Both the
 * sequence and the thread that holds its caches keep one, and reach the same answers without asking each other.
 */
import type { ExtentState } from './messages.ts';
import type { SpanPlan } from './plan.ts';

/** What lies beyond the length is masked: an eighth of the room or one page. */
const pageTokens = 64;
/** FusedMatMul leaves its output unwritten when there is nothing to sum over. */
const emptyRoom = 1;

/** Columns of a block that holds as many tokens. */
export function roomFor(tokens: number): number {
  return tokens === 0 ? emptyRoom : Math.ceil((tokens + tokens / 8) / pageTokens) * pageTokens;
}

/** Tokens that a sliding window keeps beyond what the next token sees, so that a short way back costs nothing. */
const rewindTokens = 256;

export class CacheExtent {
  readonly spans: readonly SpanPlan[];
  length = 0;
  /** First position held, for each span. */
  readonly starts: number[];

  constructor(spans: readonly SpanPlan[]) {
    this.spans = spans;
    this.starts = spans.map(() => 0);
  }

  /** Appends tokens, and lets go of what no later token of a window sees. */
  append(tokens: number): void {
    this.length += tokens;
    for (const [index, { slidingWindow }] of this.spans.entries()) {
      if (slidingWindow === undefined) continue;
      const kept = slidingWindow - 1 + rewindTokens;
      // Dropped in steps: moving what stays costs more than reading some of what goes.
      if (this.held(index) > kept + rewindTokens) this.starts[index] = this.length - kept;
    }
  }

  truncate(length: number): number {
    this.length = this.reachable(length);
    if (this.length === 0) this.starts.fill(0);
    return this.length;
  }

  /** `length`, or 0 where a window no longer holds what the token at that position sees. */
  reachable(length: number): number {
    if (length >= this.length) return this.length;
    const enough = this.spans.every(
      ({ slidingWindow }, index) =>
        slidingWindow === undefined || this.start(index) <= Math.max(0, length - slidingWindow + 1),
    );
    return enough ? length : 0;
  }

  start(span: number): number {
    return this.starts[span] ?? 0;
  }

  /** Most tokens that a span's block holds while `tokens` are added. */
  mostHeld(span: number, tokens: number): number {
    const window = this.spans[span]?.slidingWindow ?? Number.POSITIVE_INFINITY;
    return Math.min(this.held(span), window - 1 + 2 * rewindTokens) + tokens;
  }

  held(span: number): number {
    return this.length - this.start(span);
  }

  state(): ExtentState {
    return { length: this.length, starts: [...this.starts] };
  }

  restore({ length, starts }: ExtentState): void {
    this.length = length;
    for (const [index, start] of starts.entries()) this.starts[index] = start;
  }

  copy(): CacheExtent {
    const copy = new CacheExtent(this.spans);
    copy.restore(this);
    return copy;
  }
}
