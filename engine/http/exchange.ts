/** One request and its response: a bounded body, JSON or an event stream, and a signal for a client that disconnects. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { limits } from '../limits.ts';
import { ApiError, badRequest } from './errors.ts';

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
      // The error both as events of the chat API carry it and as those of the Responses API do.
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

  /** Head and body whole; ending the response is left to the caller. */
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

/** Of brackets outside strings; what walks the value later does so by recursion. */
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
