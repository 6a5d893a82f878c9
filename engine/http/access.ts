/**
 * Who may ask. A page in a browser reaches loopback too, so each request shows three things: it names this server as its
 * host (a rebound domain name does not), it comes from no page (browsers send `Origin`), and it knows the token.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { ApiError } from './errors.ts';

export class Access {
  readonly #hosts: ReadonlySet<string>;
  readonly #digest: Buffer;

  constructor(port: number, token: string) {
    // RFC 9110, section 7.2: a client leaves out the port that the scheme implies.
    const named = ['127.0.0.1', 'localhost'];
    this.#hosts = new Set(named.flatMap((host) => (port === 80 ? [host, `${host}:80`] : [`${host}:${port}`])));
    this.#digest = digestOf(token);
  }

  /** @throws ApiError 403 or 401 */
  check({ headersDistinct }: Pick<IncomingMessage, 'headersDistinct'>): void {
    const host = only(headersDistinct['host'])?.toLowerCase();
    if (host === undefined || !this.#hosts.has(host)) {
      throw new ApiError(403, 'This server answers to its own address on this machine only.', { code: 'wrong_host' });
    }
    if (headersDistinct['origin'] !== undefined) {
      throw new ApiError(403, 'This server does not answer to web pages.', { code: 'wrong_origin' });
    }
    const [, token] = /^Bearer +(\S+)$/i.exec(only(headersDistinct['authorization']) ?? '') ?? [];
    // Digests have one length, so that the comparison takes the same time for every token.
    if (token === undefined || !timingSafeEqual(digestOf(token), this.#digest)) {
      throw new ApiError(401, "The token is missing or wrong: send it as 'Authorization: Bearer TOKEN'.", {
        code: 'invalid_api_key',
        headers: { 'www-authenticate': 'Bearer' },
      });
    }
  }
}

/** A header that is sent twice is a trick. */
const only = (values: readonly string[] | undefined): string | undefined =>
  values?.length === 1 ? values[0] : undefined;

const digestOf = (token: string): Buffer => createHash('sha256').update(token).digest();
