/** Converts a streamed answer of OpenAI's API to the protocol's, chunk by chunk. */
import { z } from 'zod';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { type OutputPiece, piece } from '../../prompt/conversation.ts';
import { ThinkingSplitter } from '../../prompt/thinking.ts';
import type { ChatResult, Delta, Statistics, ToolCall } from '../../protocol/engineProtocol.ts';
import { done, tooLong } from './events.ts';
import { cutOff } from './server.ts';

const count = z.number().nullish().catch(undefined);
/** Servers send some of these fields, or none. */
export const usage = z
  .object({
    prompt_tokens: count,
    completion_tokens: count,
    prompt_tokens_details: z.object({ cached_tokens: count }).nullish().catch(undefined),
  })
  .nullish()
  .catch(undefined);

const part = z.object({ type: z.string().nullish(), text: z.unknown().optional(), thinking: z.unknown().optional() });
/** A string, or parts as in a user message; Mistral's parts include the thinking. */
const content = z.union([z.string(), z.array(z.union([z.string(), part]))]).nullish();

const callPiece = z.object({
  index: z.number().nullish().catch(undefined),
  id: z.string().max(limits.remote.nameChars).nullish(),
  function: z
    .object({
      name: z.string().max(limits.remote.nameChars).nullish(),
      // Ollama sends an object.
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
    })
    .nullish(),
});
type CallPiece = z.output<typeof callPiece>;

const delta = z.object({
  content,
  refusal: z.string().nullish(),
  reasoning_content: content,
  reasoning: content.catch(undefined),
  tool_calls: z.union([z.array(callPiece), callPiece.transform((call) => [call])]).nullish(),
  function_call: callPiece.shape.function,
});

/** The fields of a streamed chunk that are used. vLLM calls thinking `reasoning`, the others `reasoning_content`. */
const chatChunk = z.object({
  choices: z
    .array(z.object({ delta: delta.nullish(), message: delta.nullish(), finish_reason: z.string().nullish() }))
    .nullish(),
  usage,
});

/** The statistics of an answer: from the server's counts if it sends them, else from the received chunks. */
export class Meter {
  readonly #askedMs = performance.now();
  #firstMs: number | undefined;
  #pieces = 0;
  #usage: z.output<typeof usage>;

  piece(): void {
    this.#firstMs ??= performance.now();
    this.#pieces++;
  }

  counted(counts: z.output<typeof usage>): void {
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
  readonly #host: string;
  readonly #stream: string;
  readonly #onDelta: (delta: Delta) => void;
  readonly #meter = new Meter();
  readonly #calls = new Calls();
  /** For servers that leave `<think>` in the content. */
  readonly #splitter = new ThinkingSplitter();
  #text = '';
  #thinking = '';
  #finish: string | undefined;
  #isEmpty = true;
  #chars = 0;

  constructor(host: string, stream: string, onDelta: (delta: Delta) => void) {
    this.#host = host;
    this.#stream = stream;
    this.#onDelta = onDelta;
  }

  /**
   * @throws ZodError if the chunk doesn't follow OpenAI's API. @throws HearthError `unavailable` for an endless answer.
   */
  take(piece: unknown): void {
    if (piece === done) {
      this.#finish ??= 'stop';
      return;
    }
    const { choices, usage: counts } = chatChunk.parse(piece);
    this.#meter.counted(counts);
    const [choice] = choices ?? [];
    if (choice === undefined) return;
    this.#finish = choice.finish_reason || this.#finish;
    // Servers that only pretend to stream send a whole message. Some that do stream repeat their chunks in one.
    const said = choice.delta ?? (this.#isEmpty ? choice.message : undefined);
    if (said) this.#takeDelta(said);
  }

  /** @throws HearthError `unavailable` if the server stopped before the answer's end. */
  end(cancelled: boolean): void {
    this.#tell(this.#splitter.end());
    if (cancelled) return;
    if (this.#finish === undefined || this.#finish === 'error') throw cutOff(this.#host);
    if (this.#finish === 'content_filter') {
      throw new HearthError('unavailable', `${this.#host} withheld the rest of the answer (content_filter).`);
    }
  }

  result(cancelled: boolean, droppedMessages: number): ChatResult {
    const ended = /^(length|max_tokens|model_length)$/i.test(this.#finish ?? '') ? 'length' : 'stop';
    return {
      text: this.#text,
      thinking: this.#thinking,
      toolCalls: cancelled ? [] : this.#calls.result(this.#host),
      finish: cancelled ? 'cancelled' : ended === 'stop' && !this.#calls.isEmpty ? 'tool-calls' : ended,
      statistics: this.#meter.statistics(),
      droppedMessages,
    };
  }

  #takeDelta({ content, refusal, reasoning_content, reasoning, tool_calls, function_call }: z.output<typeof delta>) {
    const said = textsOf(content);
    const thinking = said.thinking || textsOf(reasoning_content).text || textsOf(reasoning).text;
    const text = said.text || (refusal ?? '');
    const calls = tool_calls ?? (function_call ? [{ index: 0, id: undefined, function: function_call }] : []);
    if (thinking === '' && text === '' && calls.length === 0) return;
    this.#isEmpty = false;
    this.#meter.piece();
    this.#count(thinking, text, ...calls.flatMap((call) => [call.function?.name, call.function?.arguments]));
    this.#tell([...piece('thinking', thinking), ...this.#splitter.push(text)]);
    for (const call of calls) {
      const told = this.#calls.take(call);
      if (told) this.#onDelta({ stream: this.#stream, kind: 'tool-call', ...told });
    }
  }

  #count(...said: readonly unknown[]): void {
    for (const text of said)
      this.#chars += typeof text === 'string' ? text.length : text ? JSON.stringify(text).length : 0;
    if (this.#chars > limits.remote.answerChars) throw tooLong(this.#host);
  }

  #tell(pieces: readonly OutputPiece[]): void {
    for (const { kind, text } of pieces) {
      if (kind === 'tool-call') continue;
      if (kind === 'thinking') this.#thinking += text;
      else this.#text += text;
      this.#onDelta({ stream: this.#stream, kind, text });
    }
  }
}

function textsOf(value: z.output<typeof content>): { text: string; thinking: string } {
  if (typeof value === 'string') return { text: value, thinking: '' };
  const texts = { text: '', thinking: '' };
  for (const item of value ?? []) {
    if (typeof item === 'string') texts.text += item;
    else if (item.thinking !== undefined) texts.thinking += plain(item.thinking);
    else texts[item.type === 'reasoning' ? 'thinking' : 'text'] += plain(item.text);
  }
  return texts;
}

/** Mistral's thinking is itself a list of parts. */
function plain(value: unknown): string {
  if (typeof value === 'string') return value;
  const inner = z.array(z.object({ text: z.string() })).safeParse(value);
  return inner.success ? inner.data.map(({ text }) => text).join('') : '';
}

// Assembles tool calls from streamed chunks. Servers omit, repeat or delay index, id and name.

interface Open {
  readonly index: number | undefined;
  id: string | undefined;
  name: string;
  arguments: string;
  /** Characters of the arguments already sent; none before the name is known. */
  told: number;
}

interface CallDelta {
  readonly index: number;
  readonly id: string;
  readonly name: string;
  readonly text: string;
}

class Calls {
  readonly #calls: Open[] = [];

  get isEmpty(): boolean {
    return this.#calls.length === 0;
  }

  take(piece: CallPiece): CallDelta | undefined {
    const name = piece.function?.name ?? '';
    const args = piece.function?.arguments ?? '';
    const text = typeof args === 'string' ? args : JSON.stringify(args);
    const id = piece.id || undefined;
    const index = piece.index ?? undefined;
    const call = this.#continued(index, id, name, text) ?? this.#begin(index, id);
    call.id ??= id;
    // A name comes whole, late, repeated in every chunk, or (without a new id) in parts.
    if (name !== '') call.name = call.arguments !== '' || name.startsWith(call.name) ? name : call.name + name;
    call.arguments += text;
    return this.#told(call);
  }

  /** @throws HearthError `unavailable` for a call without a name, which can't be run. */
  result(host: string): ToolCall[] {
    return this.#calls.map((call, position) => {
      if (call.name === '') throw new HearthError('unavailable', `${host} sent a tool call without a name; ask again.`);
      return { id: this.#idOf(call, position), name: call.name, arguments: call.arguments.trim() || '{}' };
    });
  }

  #begin(index: number | undefined, id: string | undefined): Open {
    if (this.#calls.length >= limits.remote.toolCalls) {
      throw new HearthError('unavailable', `The answer has more than ${limits.remote.toolCalls} tool calls.`);
    }
    const call: Open = { index, id, name: '', arguments: '', told: 0 };
    this.#calls.push(call);
    return call;
  }

  /**
   * The call that a chunk continues; undefined if it begins one. Index and id may both be missing or always the same.
   */
  #continued(index: number | undefined, id: string | undefined, name: string, text: string): Open | undefined {
    const sameIndex = (call: Open): boolean => index === undefined || call.index === undefined || call.index === index;
    const byId = id === undefined ? undefined : this.#calls.find((call) => call.id === id && sameIndex(call));
    if (byId) return byId;
    const last = this.#calls.findLast(sameIndex);
    if (last === undefined || name === '') return last;
    const idIsNew = id !== undefined && last.id !== undefined;
    if (last.name === '') return idIsNew ? undefined : last;
    const isOpen = !isWhole(last.arguments);
    const isSame = name === last.name;
    if (idIsNew) return isSame && isOpen && last.arguments !== '' ? last : undefined;
    if (index === undefined) return isSame && isOpen ? last : undefined;
    return isOpen || (isSame && text === '') ? last : undefined;
  }

  #told(call: Open): CallDelta | undefined {
    if (call.name === '') return undefined;
    const text = call.arguments.slice(call.told);
    call.told = call.arguments.length;
    const index = this.#calls.indexOf(call);
    return { index, id: this.#idOf(call, index), name: call.name, text };
  }

  /** A unique id, because results refer to it. */
  #idOf({ id }: Open, position: number): string {
    const isTaken = this.#calls.slice(0, position).some((call) => call.id === id);
    return id === undefined || isTaken ? `call_${position}` : id;
  }
}

function isWhole(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
