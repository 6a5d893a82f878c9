/** Requests to the server that the user named and to no other: same-origin redirects, proxies, bounded answers. */
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';

export interface Target {
  /** Without credentials, query and the `/` at the end. */
  readonly url: string;
  readonly host: string;
  /** Of the base address, with its `?`; goes with every request. */
  readonly query: string;
  /** Of the address's user and password. */
  readonly authorization: string | undefined;
  readonly hasToken: boolean;
}

type Fetch = (url: string | URL | Request, init?: RequestInit) => Promise<Response>;

/** Reads the environment anew: a changed certificate file counts from the next connection on. @throws HearthError */
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

/** Where to ask again; undefined for an answer, and for a redirect to another origin, which the caller explains. */
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

/** Of the bytes on the wire, which undici has unpacked. */
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
  new HearthError('unavailable', `${host} sent more than an answer can be, so Hearth hung up. What came is kept.`);
