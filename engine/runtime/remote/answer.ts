/** A streamed answer of OpenAI's API, piece by piece into the protocol's. */
import { z } from 'zod';
import type { ChatResult, Delta, Statistics, ToolCall } from '../../protocol/engineProtocol.ts';

export const usage = z.object({
  prompt_tokens: z.number(),
  completion_tokens: z.number(),
  prompt_tokens_details: z.object({ cached_tokens: z.number().nullish() }).nullish(),
});

const toolCallPiece = z.object({
  index: z.number().int().min(0).max(1000),
  id: z.string().nullish(),
  function: z.object({ name: z.string().nullish(), arguments: z.string().nullish() }),
});

/** As much of a streamed piece as is used; vLLM calls thinking `reasoning`, the others `reasoning_content`. */
export const chatChunk = z.object({
  choices: z.array(
    z.object({
      delta: z.object({
        content: z.string().nullish(),
        reasoning_content: z.string().nullish(),
        reasoning: z.string().nullish(),
        tool_calls: z.array(toolCallPiece).nullish(),
      }),
      finish_reason: z.string().nullish(),
    }),
  ),
  usage: usage.nullish(),
});

/** The statistics of an answer, from the server's count where it says one, else from the pieces that came. */
export class Meter {
  readonly #askedMs = performance.now();
  #firstMs: number | undefined;
  #pieces = 0;
  #usage: z.output<typeof usage> | undefined;

  piece(): void {
    this.#firstMs ??= performance.now();
    this.#pieces++;
  }

  counted(counts: z.output<typeof usage> | null | undefined): void {
    this.#usage = counts ?? this.#usage;
  }

  statistics(): Statistics {
    const generatedTokens = this.#usage?.completion_tokens ?? this.#pieces;
    const firstMs = this.#firstMs ?? performance.now();
    const decodeMs = performance.now() - firstMs;
    return {
      promptTokens: this.#usage?.prompt_tokens ?? 0,
      cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens ?? 0,
      generatedTokens,
      timeToFirstTokenMs: firstMs - this.#askedMs,
      tokensPerSecond: decodeMs > 0 ? (1000 * Math.max(0, generatedTokens - 1)) / decodeMs : 0,
    };
  }
}

export class Answer {
  readonly #stream: string;
  readonly #onDelta: (delta: Delta) => void;
  readonly #meter = new Meter();
  readonly #calls: ToolCall[] = [];
  #text = '';
  #thinking = '';
  #finish: string | undefined;

  constructor(stream: string, onDelta: (delta: Delta) => void) {
    this.#stream = stream;
    this.#onDelta = onDelta;
  }

  take({ choices, usage: counts }: z.output<typeof chatChunk>): void {
    this.#meter.counted(counts);
    const [choice] = choices;
    if (choice === undefined) return;
    this.#finish = choice.finish_reason ?? this.#finish;
    const { content, reasoning_content, reasoning, tool_calls } = choice.delta;
    const thinking = reasoning_content ?? reasoning ?? '';
    if (thinking !== '' || content || tool_calls) this.#meter.piece();
    if (thinking !== '') {
      this.#thinking += thinking;
      this.#onDelta({ stream: this.#stream, kind: 'thinking', text: thinking });
    }
    if (content) {
      this.#text += content;
      this.#onDelta({ stream: this.#stream, kind: 'text', text: content });
    }
    for (const call of tool_calls ?? []) this.#takeCall(call);
  }

  result(cancelled: boolean, droppedMessages: number): ChatResult {
    const finishes = { length: 'length', tool_calls: 'tool-calls' } as const;
    const ended = this.#finish === 'length' || this.#finish === 'tool_calls' ? finishes[this.#finish] : 'stop';
    return {
      text: this.#text,
      thinking: this.#thinking,
      toolCalls: this.#calls,
      finish: cancelled ? 'cancelled' : ended,
      statistics: this.#meter.statistics(),
      droppedMessages,
    };
  }

  #takeCall({ index, id, function: called }: z.output<typeof toolCallPiece>): void {
    const known = this.#calls[index];
    const call = known ?? { id: id ?? `call_${index}`, name: called.name ?? '', arguments: '' };
    if (known === undefined) this.#calls.push(call);
    const text = called.arguments ?? '';
    call.arguments += text;
    this.#onDelta({ stream: this.#stream, kind: 'tool-call', index, id: call.id, name: call.name, text });
  }
}
