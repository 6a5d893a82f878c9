/** HTTP for downloads: which addresses may be asked, bounded redirects, proxies, dead connections. */
import type { Headers, Response } from 'undici';
import { cancelled, HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { isLoopback } from './loopback.ts';
import { certificateProblem } from './networkHelp.ts';

/** A request that failed. `retry`: the same request may succeed later. */
export class HttpFailure extends HearthError {
  readonly retry: 'never' | 'later' | 'if-it-worked-before';
  /** What the server asked to wait, if it did. */
  readonly waitMs: number | undefined;

  constructor(message: string, retry: HttpFailure['retry'], options: ErrorOptions & { waitMs?: number } = {}) {
    super('unavailable', message, options);
    this.name = 'HttpFailure';
    this.retry = retry;
    this.waitMs = options.waitMs;
  }
}

export interface Hop {
  readonly url: URL;
  readonly headers: Headers;
}

export interface HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly headers: Headers;
  /** Every response on the way, redirects first, this one last. */
  readonly hops: readonly Hop[];
  /** Chunks as they arrive; throws `HttpFailure` when the connection dies or falls silent. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Closes the connection. */
  readonly close: () => void;
}

export interface HttpOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Silence for so long ends the request. */
  readonly idleMs?: number;
}

/** `https` anywhere; plain `http` on this machine alone (a local mirror), and never because a remote server said so. */
export function checkAddress(url: URL, from?: URL): void {
  const shown = `${url.protocol}//${url.host}`;
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url))) {
    throw new HttpFailure(`${shown} is refused: downloads use https.`, 'never');
  }
  if (from && isLoopback(url) && !isLoopback(from)) {
    throw new HttpFailure(`${from.host} redirects to this machine (${shown}), which is refused.`, 'never');
  }
}

/** An address for messages: without credentials and signatures. */
export const showAddress = (url: URL): string => `${url.protocol}//${url.host}${url.pathname}`;

/** Opens `address` with GET, following at most `limits.store.redirects` redirects. Any status but a redirect is returned. */
export async function get(address: URL, options: HttpOptions = {}): Promise<HttpResponse> {
  const hops: Hop[] = [];
  let url = withoutCredentials(address);
  const authorization = basicAuthorization(address);
  checkAddress(url);
  for (let redirects = 0; redirects <= limits.store.redirects; redirects++) {
    // Credentials of an index never travel to another host.
    const secret = authorization && url.origin === address.origin ? { authorization } : {};
    const exchange = await open(url, { ...options, headers: { ...options.headers, ...secret } });
    hops.push({ url, headers: exchange.response.headers });
    const location = exchange.response.headers.get('location');
    if (exchange.response.status < 300 || exchange.response.status > 399 || location === null) {
      return toResponse(exchange, url, hops);
    }
    exchange.close();
    if (!URL.canParse(location, url.href)) {
      throw new HttpFailure(`${showAddress(url)} redirects to an address that is none.`, 'never');
    }
    const next = new URL(location, url.href);
    checkAddress(next, url);
    url = withoutCredentials(next);
  }
  throw new HttpFailure(`${showAddress(address)} redirects more than ${limits.store.redirects} times.`, 'never');
}

/** Reads a small answer whole. */
export async function getText(address: URL, maxBytes: number, options: HttpOptions = {}) {
  const response = await get(address, options);
  try {
    if (response.status !== 200) throw statusFailure(response);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      bytes += chunk.byteLength;
      if (bytes > maxBytes) {
        throw new HttpFailure(`${showAddress(response.url)} is larger than ${maxBytes} bytes.`, 'never');
      }
      chunks.push(chunk);
    }
    return { response, text: Buffer.concat(chunks).toString('utf8') };
  } finally {
    response.close();
  }
}

/** The failure that a status other than 2xx stands for. */
export function statusFailure(response: Pick<HttpResponse, 'status' | 'url' | 'headers'>): HttpFailure {
  const { status } = response;
  const later = status === 408 || status === 425 || status === 429 || status >= 500;
  const waitMs = requestedWaitMs(response.headers);
  const wait = waitMs === undefined ? {} : { waitMs: Math.min(Math.max(0, waitMs), limits.store.retryMs) };
  const hint = hints[status];
  const message = `${showAddress(response.url)} answered ${status}${hint === undefined ? '.' : `: ${hint}`}`;
  return new HttpFailure(message, later ? 'later' : 'never', wait);
}

const byHand = 'Otherwise, download the file in a browser and run `hearth models add FILE`.';
const hints: Readonly<Record<number, string>> = {
  401: `it wants credentials. HF_ENDPOINT and PIP_INDEX_URL may hold them (https://USER:PASSWORD@HOST). ${byHand}`,
  403: `it refuses this download. A company's proxy or firewall may block it; HF_ENDPOINT or PIP_INDEX_URL can name a mirror. ${byHand}`,
};

/** `Retry-After` in seconds, or as a date by the server's own clock: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after */
function requestedWaitMs(headers: Headers): number | undefined {
  const text = headers.get('retry-after')?.trim() ?? '';
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const at = parseHttpDate(text);
  return at === undefined ? undefined : at - (parseHttpDate(headers.get('date') ?? '') ?? Date.now());
}

/** All three forms of RFC 9110 begin with the day of the week. The oldest, C's `asctime`, leaves out that it is in GMT. */
function parseHttpDate(text: string): number | undefined {
  if (!/^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)) return undefined;
  const ms = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(ms) ? undefined : ms;
}

interface Exchange {
  readonly response: Response;
  readonly close: () => void;
  /** Restarts the clock that watches for silence. */
  readonly alive: () => void;
  readonly explain: (error: unknown) => Error;
}

async function open(url: URL, options: HttpOptions): Promise<Exchange> {
  throwIfAborted(options.signal);
  const { fetch, dispatcherFor } = await import('./network.ts');
  const dispatcher = dispatcherFor(url);
  const idleMs = options.idleMs ?? limits.store.idleMs;
  const controller = new AbortController();
  let silent = false;
  const clock = setTimeout(() => {
    silent = true;
    controller.abort();
  }, idleMs);
  const abort = () => controller.abort();
  options.signal?.addEventListener('abort', abort, { once: true });
  const close = () => {
    clearTimeout(clock);
    options.signal?.removeEventListener('abort', abort);
    controller.abort();
  };
  const explain = (error: unknown): Error => {
    if (options.signal?.aborted) return cancelled('The download was cancelled.');
    if (silent) return new HttpFailure(`${url.host} sent nothing for ${Math.round(idleMs / 1000)} s.`, 'later');
    return networkFailure(url, error);
  };
  try {
    const response = await fetch(url, {
      redirect: 'manual',
      dispatcher,
      // Bytes on the wire are bytes of the file: ranges and digests need that.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'hearth', ...options.headers },
      signal: controller.signal,
    });
    clock.refresh();
    return { response, close, alive: () => clock.refresh(), explain };
  } catch (error) {
    close();
    throw explain(error);
  }
}

function toResponse(exchange: Exchange, url: URL, hops: readonly Hop[]): HttpResponse {
  const { response } = exchange;
  const encoding = response.headers.get('content-encoding');
  if (encoding !== null && encoding !== 'identity') {
    exchange.close();
    throw new HttpFailure(`${showAddress(url)} was sent in ${encoding}, which was not asked for.`, 'never');
  }
  return {
    status: response.status,
    url,
    headers: response.headers,
    hops,
    body: chunks(exchange),
    close: exchange.close,
  };
}

async function* chunks(exchange: Exchange): AsyncGenerator<Uint8Array> {
  try {
    if (exchange.response.body === null) return;
    for await (const chunk of exchange.response.body) {
      exchange.alive();
      yield chunk;
      exchange.alive();
    }
  } catch (error) {
    throw exchange.explain(error);
  } finally {
    exchange.close();
  }
}

/** Never reached at all: retrying is for connections that worked before. */
const unreachable = new Set([
  'ENOTFOUND',
  'EAI_AGAIN',
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

function networkFailure(url: URL, error: unknown): Error {
  const cause = rootCause(error);
  const code = cause instanceof Error ? Reflect.get(cause, 'code') : undefined;
  const reason = typeof code === 'string' ? code : cause instanceof Error ? cause.message : String(cause);
  const certificate = certificateProblem(code);
  if (certificate !== undefined) {
    return new HttpFailure(`${url.host} cannot be reached: ${certificate}`, 'never', { cause: error });
  }
  if (unreachable.has(String(code))) {
    return new HttpFailure(`${url.host} cannot be reached (${reason}).`, 'if-it-worked-before', { cause: error });
  }
  return new HttpFailure(`The connection to ${url.host} broke (${reason}).`, 'later', { cause: error });
}

function rootCause(error: unknown): unknown {
  let cause = error;
  for (let depth = 0; depth < 8 && cause instanceof Error && cause.cause !== undefined; depth++) cause = cause.cause;
  // Node wraps the attempts on several addresses of one host.
  return cause instanceof AggregateError && cause.errors.length > 0 ? cause.errors[0] : cause;
}

function withoutCredentials(url: URL): URL {
  const bare = new URL(url);
  bare.username = '';
  bare.password = '';
  return bare;
}

function basicAuthorization(url: URL): string | undefined {
  if (url.username === '' && url.password === '') return undefined;
  const pair = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  return `Basic ${Buffer.from(pair).toString('base64')}`;
}
