/** One request and its response: a bounded body, JSON or an event stream, and a signal for a client that disconnects. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { z } from 'zod';
import { cancelled, type ErrorCode, HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import {
  type ChatParams,
  type ChatResult,
  chatParams,
  type Delta,
  type DeltaStreams,
  type FinishReason,
  type Statistics,
} from '../protocol/engineProtocol.ts';
import type { ModelCard } from '../protocol/models.ts';
import type { Engine } from '../runtime/service.ts';

// Errors in the shape of OpenAI's API: a status, and `{ error: { message, type, param, code } }`.

export class ApiError extends Error {
  readonly status: number;
  readonly code: string | null;
  /** The invalid field of the request. */
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    details: { code?: string; param?: string; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = details.code ?? null;
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
  }

  get body() {
    const { message, param, code } = this;
    return { error: { message, type: errorType(this.status), param, code } };
  }
}

export const badRequest = (message: string, param?: string): ApiError =>
  new ApiError(400, message, param === undefined ? {} : { param });

export const tooManyRequests = (): ApiError =>
  new ApiError(429, 'Too many requests are waiting, so this one was not started. Try again later.', {
    code: 'rate_limit_exceeded',
    headers: retryLater,
  });

const retryLater = { 'retry-after': String(limits.server.retryAfterSeconds) };

function errorType(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}

const statuses: Readonly<Record<ErrorCode, number>> = {
  'invalid-input': 400,
  unsupported: 400,
  'not-found': 404,
  'out-of-memory': 503,
  'context-overflow': 400,
  'device-lost': 503,
  unavailable: 503,
  busy: 429,
  timeout: 503,
  // Not cancelled by the client, which would be gone: the model was unloaded or replaced.
  cancelled: 503,
};

/** Maps any thrown value to a response. Internal errors go to the log only. */
export function apiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof z.ZodError) return invalidField(error);
  if (!(error instanceof HearthError)) return new ApiError(500, "Internal error; see the engine's log.");
  const status = statuses[error.code];
  const code = error.code === 'context-overflow' ? 'context_length_exceeded' : error.code;
  return new ApiError(status, error.message, { code, ...([429, 503].includes(status) && { headers: retryLater }) });
}

function invalidField({ issues }: z.ZodError): ApiError {
  const [issue] = issues;
  const param = issue?.path.join('.') ?? '';
  const message = issue?.message ?? 'Invalid request';
  return param === '' ? badRequest(message) : badRequest(`${param}: ${message}`, param);
}

/** How long a refused client may continue to send. */
const lingerMs = 1000;

export class Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #controller = new AbortController();

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
    response.once('close', () => this.#controller.abort());
  }

  /** Aborted when the client disconnects. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The body as JSON. */
  async body(): Promise<unknown> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    // If a body is refused half-way, the connection stays open for the response.
    const pieces: AsyncIterable<Uint8Array> = this.#request.iterator({ destroyOnReturn: false });
    for await (const chunk of pieces) {
      bytes += chunk.byteLength;
      if (bytes > limits.server.bodyBytes) {
        throw new ApiError(413, `The request is larger than ${limits.server.bodyBytes} bytes.`);
      }
      chunks.push(chunk);
    }
    // Some clients send a byte-order mark, which JSON.parse refuses.
    return parseJson(new TextDecoder().decode(Buffer.concat(chunks)));
  }

  json(value: unknown): void {
    this.#write(200, value);
    this.#response.end();
  }

  fail(error: ApiError): void {
    if (this.#response.destroyed || this.#response.writableEnded) return;
    if (this.#response.headersSent) {
      const { message, code, param } = error;
      // One event that carries the error both in the chat API's format and in the Responses API's.
      this.event({ type: 'error', message, code, param, ...error.body }, 'error');
      this.#response.end();
      return;
    }
    const isWriting = !this.#request.complete;
    if (isWriting) this.#response.setHeader('connection', 'close');
    this.#write(error.status, error.body, error.headers);
    if (isWriting) this.#linger();
    else this.#response.end();
  }

  /** Discards the rest of the body for a while: closing earlier would reset the connection and lose the response. */
  #linger(): void {
    const end = (): void => {
      clearTimeout(timer);
      this.#response.end();
    };
    const timer = setTimeout(end, lingerMs);
    this.#request.once('close', end).once('end', end).resume();
  }

  /** The first event sends the headers, so that an earlier error can still set the status. */
  event(data: unknown, name?: string): void {
    if (!this.#response.headersSent) {
      this.#response.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
      });
    }
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    this.#response.write(`${name === undefined ? '' : `event: ${name}\n`}data: ${text}\n\n`);
  }

  endEvents(): void {
    this.#response.end();
  }

  /** Writes head and body; the caller ends the response. */
  #write(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
    const text = JSON.stringify(value);
    this.#response.writeHead(status, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...headers,
    });
    this.#response.write(text);
  }
}

function parseJson(text: string): unknown {
  if (nestingOf(text) > limits.server.jsonDepth) {
    throw badRequest(`The request nests deeper than ${limits.server.jsonDepth} levels.`);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw badRequest('The request is not valid JSON.');
  }
}

/** Depth of brackets outside strings. Later traversal is recursive. */
function nestingOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') quoted = !quoted;
    else if (quoted && character === '\\') i++;
    else if (quoted) continue;
    else if (character === '[' || character === '{') deepest = Math.max(deepest, ++depth);
    else if (character === ']' || character === '}') depth--;
  }
  return deepest;
}

// The engine functions that the endpoints use.

export interface Serving {
  readonly engine: Pick<Engine, 'status' | 'chat' | 'complete' | 'generate' | 'embed' | 'countTokens'>;
  readonly streams: DeltaStreams;
}

export function loadedCard({ engine }: Serving): ModelCard {
  const { model } = engine.status();
  if (model) return model;
  throw new HearthError('unavailable', 'No model is loaded. Try again once one is loaded.');
}

type ChatRequest = Omit<z.output<typeof chatParams>, 'stream'>;

/** Validates everything except the stream id against the protocol before any computation. */
export function chatRequest(params: Omit<ChatParams, 'stream'>): ChatRequest {
  return chatParams.omit({ stream: true }).parse(params);
}

/** @throws HearthError also if the engine ended the answer early, because a partial answer is not a result. */
export async function ask(
  { engine, streams }: Serving,
  request: ChatRequest,
  signal: AbortSignal,
  onDelta: (delta: Delta) => void,
): Promise<ChatResult> {
  return whole(await streams.with(onDelta, (stream) => engine.chat({ ...request, stream }, signal)));
}

export function whole<Result extends { readonly finish: string }>(result: Result): Result {
  if (result.finish === 'cancelled')
    throw cancelled('The model was unloaded or replaced before the answer was complete.');
  return result;
}

/** OpenAI's finish reason; a full context is `length` too. */
export function finishOf(finish: FinishReason | 'tool-calls'): 'stop' | 'length' | 'tool_calls' {
  if (finish === 'tool-calls') return 'tool_calls';
  return finish === 'length' || finish === 'context' ? 'length' : 'stop';
}

/** Tokens of all choices; their common prompt counts once. */
export function usageOf(answers: readonly { readonly statistics: Statistics }[]) {
  const promptTokens = Math.max(0, ...answers.map(({ statistics }) => statistics.promptTokens));
  const cachedTokens = Math.max(0, ...answers.map(({ statistics }) => statistics.cachedTokens));
  const completionTokens = answers.reduce((sum, { statistics }) => sum + statistics.generatedTokens, 0);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** Waits until all have ended, then throws the first failure, so that none continues for a failed request. */
export async function allOf<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** Usage of several prompts with their answers. */
export function totalUsage(groups: readonly (readonly { readonly statistics: Statistics }[])[]) {
  const usages = groups.map(usageOf);
  const sum = (count: (usage: ReturnType<typeof usageOf>) => number): number =>
    usages.reduce((total, usage) => total + count(usage), 0);
  return {
    prompt_tokens: sum((usage) => usage.prompt_tokens),
    completion_tokens: sum((usage) => usage.completion_tokens),
    total_tokens: sum((usage) => usage.total_tokens),
    prompt_tokens_details: { cached_tokens: sum((usage) => usage.prompt_tokens_details.cached_tokens) },
  };
}

/** Thinking tokens of the answers, recounted from their text. */
export async function thinkingTokensOf(
  { engine }: Serving,
  answers: readonly { readonly thinking: string }[],
): Promise<number> {
  const texts = answers.flatMap(({ thinking }) => (thinking === '' ? [] : [thinking]));
  const counts = texts.length === 0 ? [] : await engine.countTokens({ texts });
  return counts.reduce((sum, tokens) => sum + tokens, 0);
}

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);
