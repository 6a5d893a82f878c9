/** Chooses the turns of a conversation that go into the prompt if the context can't hold all of them. */
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { ChatMessage } from '../prompt/conversation.ts';

/** The measured size of a prompt. */
export interface Measured {
  readonly tokens: number;
}

export interface FittedHistory<Prompt extends Measured> {
  readonly messages: readonly ChatMessage[];
  readonly droppedMessages: number;
  /** Of `messages`. */
  readonly prompt: Prompt;
}

export interface HistoryRoom {
  readonly budgetTokens: number;
  /** Characters that every prompt of the conversation contains besides its messages: tool descriptions. */
  readonly fixedChars?: number;
}

/**
 * Drops the earliest turns until the prompt has at most `budgetTokens`; leading system messages and the last turn stay. It
 * drops a quarter of the budget at a time, so that the prompts of later turns keep the same prefix and hit the cache. A
 * conversation whose characters can't fit is first cut by characters in the same way. About log n of n turns are measured,
 * on the assumption that fewer turns never take more tokens.
 * @throws HearthError `context-overflow` when the last turn alone is too long.
 */
export async function fitHistory<Prompt extends Measured>(
  messages: readonly ChatMessage[],
  measure: (messages: readonly ChatMessage[]) => Prompt | Promise<Prompt>,
  room: HistoryRoom,
): Promise<FittedHistory<Prompt>> {
  const { budgetTokens } = room;
  const turns = new Turns(messages, room.fixedChars ?? 0);
  const first = await turns.startWithin((start) => turns.charsFrom(start), 0, mostChars(budgetTokens));
  const last = turns.starts.length - 1;
  if (first === undefined) throw turns.overflow(`${turns.charsFrom(last)} characters`, budgetTokens);
  const prompts = new Map<number, Prompt>();
  const tokensFrom = async (start: number): Promise<number> => {
    const prompt = prompts.get(start) ?? (await measure(turns.from(start)));
    prompts.set(start, prompt);
    return prompt.tokens;
  };
  const start = await turns.startWithin(tokensFrom, first, budgetTokens);
  if (start === undefined) throw turns.overflow(`${await tokensFrom(last)} tokens`, budgetTokens);
  const kept = turns.from(start);
  const prompt = prompts.get(start) ?? (await measure(kept));
  return { messages: kept, droppedMessages: messages.length - kept.length, prompt };
}

const mostChars = (budgetTokens: number): number =>
  Math.max(budgetTokens * limits.generation.charsPerToken, limits.generation.historyChars);

class Turns {
  /** Indexes at which the conversation may start: its first message and each later user message, so that roles stay in order. */
  readonly starts: readonly number[];
  readonly #messages: readonly ChatMessage[];
  readonly #system: readonly ChatMessage[];
  readonly #fixedChars: number;
  readonly #systemChars: number;
  /** Characters from each message to the end. */
  readonly #chars: Float64Array;

  constructor(messages: readonly ChatMessage[], fixedChars: number) {
    const found = messages.findIndex(({ role }) => role !== 'system');
    const firstTurn = found < 0 ? messages.length : found;
    const later = messages.flatMap(({ role }, i) => (role === 'user' && i > firstTurn ? [i] : []));
    this.starts = [firstTurn, ...later];
    this.#messages = messages;
    this.#system = messages.slice(0, firstTurn);
    this.#fixedChars = fixedChars;
    this.#systemChars = this.#system.reduce((sum, message) => sum + charsOf(message), 0);
    this.#chars = new Float64Array(messages.length + 1);
    for (let i = messages.length - 1; i >= firstTurn; i--) {
      const message = messages[i];
      this.#chars[i] = (this.#chars[i + 1] ?? 0) + (message ? charsOf(message) : 0);
    }
  }

  from(start: number): readonly ChatMessage[] {
    return start === 0 ? this.#messages : [...this.#system, ...this.#messages.slice(this.starts[start])];
  }

  charsFrom(start: number): number {
    return this.#fixedChars + this.#systemChars + this.#turnChars(start);
  }

  /** The earliest fitting start that is not before `first`. @returns undefined if none fits. */
  async startWithin(
    sizeFrom: (start: number) => number | Promise<number>,
    first: number,
    budget: number,
  ): Promise<number | undefined> {
    const total = await sizeFrom(first);
    if (total <= budget) return first;
    const step = Math.max(1, Math.floor(budget / 4));
    const goal = total - Math.ceil((total - budget) / step) * step;
    return (await this.#earliest(sizeFrom, first + 1, goal)) ?? (await this.#earliest(sizeFrom, first + 1, budget));
  }

  overflow(size: string, budgetTokens: number): HearthError {
    const last = this.starts.length - 1;
    const parts: readonly (readonly [string, number])[] = [
      ['The last message', this.#turnChars(last)],
      ['The system message', this.#systemChars],
      ['The descriptions of the tools', this.#fixedChars],
    ];
    const [longest] = parts.reduce((a, b) => (b[1] > a[1] ? b : a));
    const isLast = longest === 'The last message';
    const found = isLast
      ? `The last message has ${size} with its framing`
      : `${longest} and the last message have ${size} together, most of them the former`;
    const advice = isLast ? 'it' : longest.toLowerCase();
    return new HearthError(
      'context-overflow',
      `${found}; ${budgetTokens} tokens fit beside the answer. Shorten ${advice} or load the model with a longer context.`,
    );
  }

  async #earliest(
    sizeFrom: (start: number) => number | Promise<number>,
    first: number,
    most: number,
  ): Promise<number | undefined> {
    let low = first;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((await sizeFrom(middle)) <= most) high = middle;
      else low = middle + 1;
    }
    return low < this.starts.length ? low : undefined;
  }

  #turnChars(start: number): number {
    return this.#chars[this.starts[start] ?? this.#messages.length] ?? 0;
  }
}

/** Without thinking, which most formats omit from earlier turns. */
function charsOf(message: ChatMessage): number {
  const calls = message.role === 'assistant' ? (message.toolCalls ?? []) : [];
  const called = calls.reduce((sum, call) => sum + call.name.length + call.arguments.length, 0);
  const { content } = message;
  const thought = message.role === 'assistant' && /^\s*<think>/.test(content) ? content.indexOf('</think>') : -1;
  return limits.generation.messageChars + called + content.length - Math.max(0, thought);
}
