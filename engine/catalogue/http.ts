/** HTTP for downloads: allowed addresses, bounded redirects, proxies, idle timeouts. */
import type { Headers, Response } from 'undici';
import { cancelled, certificateProblem, HearthError, places, throwIfAborted } from '../errors.ts';
import { isLoopback, limits } from '../limits.ts';

/** A failed request. `retry` says whether the same request may succeed later. */
export class HttpFailure extends HearthError {
  readonly retry: 'never' | 'later' | 'if-it-worked-before';
  /** Wait requested by the server (`Retry-After`). */
  readonly waitMs: number | undefined;
  /** HTTP status, if the server answered. */
  readonly status: number | undefined;
  /** The hub's `X-Error-Code`, such as `GatedRepo`. */
  readonly reason: string | undefined;

  constructor(
    message: string,
    retry: HttpFailure['retry'],
    options: ErrorOptions & { waitMs?: number; status?: number; reason?: string | undefined } = {},
  ) {
    super('unavailable', message, options);
    this.name = 'HttpFailure';
    this.retry = retry;
    this.waitMs = options.waitMs;
    this.status = options.status;
    this.reason = options.reason;
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
  /** All responses in order: the redirects, then this one. */
  readonly hops: readonly Hop[];
  /** Yields chunks as they arrive. Throws `HttpFailure` if the connection breaks or is idle for too long. */
  readonly body: AsyncIterable<Uint8Array>;
  readonly close: () => void;
}

export interface HttpOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** A bearer token for the address's own host; redirects to other hosts go without it. */
  readonly token?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Ends the request after this long without data. */
  readonly idleMs?: number;
}

/** Allows `https` anywhere, and `http` only to loopback (a local mirror). A remote server must not redirect to loopback. */
export function checkAddress(url: URL, from?: URL): void {
  const shown = `${url.protocol}//${url.host}`;
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url))) {
    throw new HttpFailure(`${shown} was refused: downloads must use https.`, 'never');
  }
  if (from && isLoopback(url) && !isLoopback(from)) {
    throw new HttpFailure(`${from.host} redirects to this machine (${shown}), which is not allowed.`, 'never');
  }
}

/** The address without credentials and query, for messages. */
export const showAddress = (url: URL): string => `${url.protocol}//${url.host}${url.pathname}`;

/** Sends GET and follows at most `limits.store.redirects` redirects. Returns any status other than a redirect. */
export async function get(address: URL, options: HttpOptions = {}): Promise<HttpResponse> {
  const hops: Hop[] = [];
  let url = withoutCredentials(address);
  const bearer = options.token === undefined ? undefined : `Bearer ${options.token}`;
  const authorization = basicAuthorization(address) ?? bearer;
  checkAddress(url);
  for (let redirects = 0; redirects <= limits.store.redirects; redirects++) {
    // Credentials are never sent to another host.
    const secret = authorization && url.origin === address.origin ? { authorization } : {};
    const exchange = await open(url, { ...options, headers: { ...options.headers, ...secret } });
    hops.push({ url, headers: exchange.response.headers });
    const location = exchange.response.headers.get('location');
    if (exchange.response.status < 300 || exchange.response.status > 399 || location === null) {
      return toResponse(exchange, url, hops);
    }
    exchange.close();
    if (!URL.canParse(location, url.href)) {
      throw new HttpFailure(`${showAddress(url)} redirects to an invalid address.`, 'never');
    }
    const next = new URL(location, url.href);
    checkAddress(next, url);
    url = withoutCredentials(next);
  }
  throw new HttpFailure(`${showAddress(address)} redirects more than ${limits.store.redirects} times.`, 'never');
}

/** Reads a small response into memory. */
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

/** Converts a status other than 2xx into an error. */
export function statusFailure(response: Pick<HttpResponse, 'status' | 'url' | 'headers'>): HttpFailure {
  const { status } = response;
  const later = status === 408 || status === 425 || status === 429 || status >= 500;
  const waitMs = requestedWaitMs(response.headers);
  const wait = waitMs === undefined ? {} : { waitMs: Math.min(Math.max(0, waitMs), limits.store.retryMs) };
  const hint = hintFor(status);
  const message = `${showAddress(response.url)} answered ${status}${hint === undefined ? '.' : `: ${hint}`}`;
  const reason = response.headers.get('x-error-code') ?? undefined;
  return new HttpFailure(message, later ? 'later' : 'never', { ...wait, status, reason });
}

function hintFor(status: number): string | undefined {
  const { byFile, credentials, mirror } = places();
  const byHand = `Or download the file in a browser and ${byFile}.`;
  if (status === 401) return `it needs credentials. ${credentials} ${byHand}`;
  if (status === 403) return `it refused the download. A proxy or firewall may block it.${mirror} ${byHand}`;
  return undefined;
}

/** `Retry-After` is in seconds, or a date of the server's clock: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after */
function requestedWaitMs(headers: Headers): number | undefined {
  const text = headers.get('retry-after')?.trim() ?? '';
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const at = parseHttpDate(text);
  return at === undefined ? undefined : at - (parseHttpDate(headers.get('date') ?? '') ?? Date.now());
}

/** All three date formats of RFC 9110 start with the weekday. The oldest, C's `asctime`, omits `GMT`. */
function parseHttpDate(text: string): number | undefined {
  if (!/^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)) return undefined;
  const ms = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(ms) ? undefined : ms;
}

interface Exchange {
  readonly response: Response;
  readonly close: () => void;
  /** Restarts the idle timeout. */
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
      // Ranges and digests need the file's own bytes, so a content encoding is refused.
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
    throw new HttpFailure(`${showAddress(url)} was sent in ${encoding}, which was not requested.`, 'never');
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

/** Connection errors. A host that was never reached is retried only if an earlier connection worked. */
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
    return new HttpFailure(`Could not reach ${url.host} (${reason}).`, 'if-it-worked-before', { cause: error });
  }
  return new HttpFailure(`The connection to ${url.host} broke (${reason}).`, 'later', { cause: error });
}

function rootCause(error: unknown): unknown {
  let cause = error;
  for (let depth = 0; depth < 8 && cause instanceof Error && cause.cause !== undefined; depth++) cause = cause.cause;
  // Node wraps the errors of a host's several addresses in an AggregateError.
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
