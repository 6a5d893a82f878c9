/** Reads an answer as server-sent events, and handles what servers send instead. */
import { createParser, type EventSourceMessage, type ParseError } from 'eventsource-parser';
import { APIError } from 'openai';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';

export const done = Symbol('[DONE]');

/**
 * The JSON values of a stream, then `done` if the server sent [DONE].
 * @throws HearthError `unavailable` if it is not an event stream. @throws APIError for an error within the stream.
 */
export async function* eventsOf(host: string, response: Response): AsyncGenerator<unknown> {
  const found: Found[] = [];
  const parser = createParser({
    onEvent: (event) => void found.push(event),
    onError: (error) => void found.push(error),
    maxBufferSize: limits.remote.pieceChars,
  });
  let events = 0;
  let begin = '';
  const decoder = new TextDecoder();
  const chunks: AsyncIterable<Uint8Array> = response.body ?? ReadableStream.from([]);
  for await (const chunk of chunks) {
    const text = decoder.decode(chunk, { stream: true });
    if (events === 0 && begin.length < sniffedChars) begin += text.slice(0, sniffedChars);
    parser.feed(text);
    for (const value of values(host, found)) {
      events++;
      yield value;
      if (value === done) return;
    }
  }
  // The last event may lack its blank line, and an error its line feed.
  parser.feed(`${decoder.decode()}\n\n`);
  for (const value of values(host, found, events > 0)) {
    events++;
    yield value;
  }
  if (events === 0) throw noStream(host, response, begin);
}

type Found = EventSourceMessage | ParseError;

/** Enough to distinguish a web page or a whole document from a stream. */
const sniffedChars = 64 * 1024;

/** @param cutOff the last chunk may be cut off, which the caller reports. */
function* values(host: string, found: Found[], cutOff = false): Generator<unknown> {
  for (const item of found.splice(0)) {
    if (item instanceof Error) {
      if (item.type === 'max-buffer-size-exceeded') throw tooLong(host);
      // `error: {…}` instead of `data: {"error": …}`: older versions of llama-server send this.
      if (item.field === 'error') throw inStream(parsed(item.value ?? '') ?? item.value);
      continue;
    }
    if (item.data.startsWith('[DONE]')) {
      yield done;
      return;
    }
    if (item.data.trim() === '') continue;
    const value = parsed(item.data);
    if (value === undefined && cutOff) return;
    const error = item.event === 'error' ? (value ?? item.data) : errorIn(value);
    if (error) throw inStream(error);
    if (value === undefined)
      throw new HearthError('unavailable', `${host} sent a chunk that does not follow OpenAI's API.`);
    yield value;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

/** OpenAI's `error`; vLLM's and SGLang's `"object": "error"`. */
function errorIn(value: unknown): unknown {
  if (!isObject(value)) return undefined;
  return Reflect.get(value, 'object') === 'error' ? value : Reflect.get(value, 'error');
}

function inStream(error: unknown): APIError {
  const inner: unknown = isObject(error) ? (Reflect.get(error, 'error') ?? error) : error;
  return new APIError(undefined, isObject(inner) ? inner : { message: String(inner) }, undefined, undefined);
}

function noStream(host: string, response: Response, begin: string): HearthError | APIError {
  if (begin.trim() === '') return new HearthError('unavailable', `${host} sent an empty answer; ask again.`);
  const error = errorIn(parsed(begin));
  if (error) return inStream(error);
  return notTheApi(host, begin, response.headers.get('content-type'));
}

/** The error for a response of status 200 that isn't OpenAI's API. */
export function notTheApi(host: string, text: string, contentType: string | null = null): HearthError {
  const isPage = /^\s*<(!doctype|html|\?xml|head|body)/i.test(text) || contentType?.includes('text/html') === true;
  const isDocument = parsed(text) !== undefined || contentType?.includes('json') === true;
  const what = isPage
    ? 'sent a web page (a sign-in or an error, perhaps), which is'
    : isDocument
      ? 'answered in one piece instead of a stream, which is'
      : 'sent something that is';
  const message = `${host} ${what} not OpenAI's API. Check the address; it often ends in /v1.`;
  return new HearthError('unavailable', message);
}

// Sends requests only to the server that the user named: same-origin redirects, proxies, bounded answers.

interface Target {
  /** Without credentials, query and trailing `/`. */
  readonly url: string;
  readonly host: string;
  /** Query of the base address, with its `?`. Added to every request. */
  readonly query: string;
  /** Built from the address's user and password. */
  readonly authorization: string | undefined;
  readonly hasToken: boolean;
}

type Fetch = (url: string | URL | Request, init?: RequestInit) => Promise<Response>;

/**
 * Reads the environment again, so that a changed certificate file applies from the next connection on. @throws
 * HearthError
 */
export async function openTransport(target: Target): Promise<Fetch> {
  const { dispatchers, fetch } = await import('../../catalogue/network.ts');
  const dispatcherOf = dispatchers();
  const send = async (url: URL, init: RequestInit) => {
    const headers = new Headers(init.headers);
    if (!target.hasToken) headers.delete('authorization');
    if (!target.hasToken && target.authorization !== undefined) headers.set('authorization', target.authorization);
    const body = typeof init.body === 'string' ? init.body : null;
    return fetch(url, {
      method: init.method ?? 'GET',
      headers: [...headers.entries()],
      body,
      signal: init.signal ?? null,
      redirect: 'manual',
      dispatcher: dispatcherOf(url),
    });
  };
  return async (address, init = {}) => {
    let url = new URL(address instanceof Request ? address.url : address);
    if (url.search === '') url.search = target.query;
    for (let redirects = 0; ; redirects++) {
      const response = await send(url, init);
      const next = redirectOf(response, url);
      if (next === undefined) {
        const isAnswer = response.ok && init.method?.toUpperCase() === 'POST';
        return bounded(target.host, response, isAnswer ? limits.remote.answerBytes : limits.remote.documentBytes);
      }
      if (redirects === limits.remote.redirects) {
        throw new HearthError('unavailable', `${target.host} redirects in circles; check the address.`);
      }
      await response.body?.cancel();
      url = next;
    }
  };
}

interface Answered {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
}

/** The address to ask again. Undefined for an answer, and for a redirect to another origin, which the caller explains. */
function redirectOf({ status, headers }: Answered, from: URL): URL | undefined {
  const location = headers.get('location');
  if (![301, 302, 307, 308].includes(status) || location === null || !URL.canParse(location, from.href))
    return undefined;
  const next = new URL(location, from);
  return next.origin === from.origin ? withoutCredentials(next) : undefined;
}

export function withoutCredentials(address: URL): URL {
  const url = new URL(address);
  url.username = '';
  url.password = '';
  return url;
}

interface Body extends Answered {
  readonly headers: Iterable<[string, string]> & Answered['headers'];
  readonly body: AsyncIterable<Uint8Array> | null;
}

function bounded(host: string, { status, headers, body }: Body, maxBytes: number): Response {
  const isEmpty = body === null || status === 204 || status === 205 || status === 304;
  const kept = new Headers();
  for (const [name, value] of headers) if (!hopHeaders.has(name)) kept.append(name, value);
  return new Response(isEmpty ? null : ReadableStream.from(pieces(host, body, maxBytes)), { status, headers: kept });
}

/** Headers that describe the bytes on the wire, which undici has already unpacked. */
const hopHeaders = new Set(['content-encoding', 'content-length', 'transfer-encoding']);

async function* pieces(host: string, body: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.byteLength;
    if (bytes > maxBytes) throw tooLong(host);
    yield piece;
  }
}

export const tooLong = (host: string): HearthError =>
  new HearthError(
    'unavailable',
    `${host} sent more than the maximum size of an answer, so Hearth closed the connection. The text received so far is kept.`,
  );
