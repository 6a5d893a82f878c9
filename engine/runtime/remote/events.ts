/** An answer as a stream of server-sent events, and what servers send in its place. */
import { createParser, type EventSourceMessage, type ParseError } from 'eventsource-parser';
import { APIError } from 'openai';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { tooLong } from './transport.ts';

export const done = Symbol('[DONE]');

/**
 * The JSON values of a stream, then `done` where the server said [DONE].
 * @throws HearthError `unavailable` when it is no stream of events. @throws APIError for an error within the stream.
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

/** Enough to tell a page or a whole document from a stream. */
const sniffedChars = 64 * 1024;

/** @param cutOff the last piece may have been cut, which the caller reports. */
function* values(host: string, found: Found[], cutOff = false): Generator<unknown> {
  for (const item of found.splice(0)) {
    if (item instanceof Error) {
      if (item.type === 'max-buffer-size-exceeded') throw tooLong(host);
      // `error: {…}` where the form demands `data: {"error": …}`, as llama-server wrote it.
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
    if (value === undefined) throw new HearthError('unavailable', `${host} sent a piece that is not OpenAI's API.`);
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

/** An answer of status 200 that is something else. */
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
