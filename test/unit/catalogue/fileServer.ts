/** An HTTP server on loopback that serves files, with the faults that a test requests. */
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';

export interface Request {
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
}

export type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface FileServer {
  readonly origin: string;
  readonly requests: Request[];
  /** Replaces the request handler. */
  handle: Handler;
  /** Body bytes sent. */
  bytesSent: number;
  close(): Promise<void>;
}

export async function startServer(handle: Handler): Promise<FileServer> {
  const http = createServer((request, response) => {
    server.requests.push({ path: request.url ?? '', headers: request.headers });
    Promise.resolve(server.handle(request, response)).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const { port } = http.address() as AddressInfo;
  const server: FileServer = {
    origin: `http://127.0.0.1:${port}`,
    requests: [],
    handle,
    bytesSent: 0,
    close: () => {
      http.closeAllConnections();
      return new Promise((resolve) => http.close(() => resolve()));
    },
  };
  return server;
}

export interface FileOptions {
  readonly etag?: string;
  readonly ignoreRanges?: boolean;
  /** Breaks the connection after this many body bytes. */
  readonly cutAfter?: number;
  /** The client's file. The cut waits until the file has the bytes, because a client drops unread bytes when a connection breaks. */
  readonly landsIn?: (() => string) | undefined;
  /** Stops sending after this many body bytes, but leaves the connection open. */
  readonly stallAfter?: number | undefined;
  readonly chunkBytes?: number;
  readonly chunkPauseMs?: number;
  readonly headers?: Record<string, string>;
  /** Omits content-length. */
  readonly chunked?: boolean;
}

/** Sends a correct response, except for the faults in `options`. */
export async function sendFile(
  server: FileServer,
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  options: FileOptions = {},
): Promise<void> {
  const { start, end, satisfiable } = requestedRange(request, content.length, options);
  const headers: Record<string, string> = { ...(options.etag && { etag: options.etag }), ...options.headers };
  if (!satisfiable) {
    response.writeHead(416, { ...headers, 'content-range': `bytes */${content.length}` }).end();
    return;
  }
  const body = content.subarray(start ?? 0, end);
  if (!options.chunked) headers['content-length'] = String(body.length);
  if (start !== undefined) headers['content-range'] = `bytes ${start}-${start + body.length - 1}/${content.length}`;
  response.writeHead(start === undefined ? 200 : 206, headers);
  response.flushHeaders();
  await sendBody(server, response, body, start ?? 0, options);
}

function requestedRange(request: IncomingMessage, bytes: number, options: FileOptions) {
  const [, start, last = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  const condition = request.headers['if-range'];
  if (start === undefined || options.ignoreRanges || (condition !== undefined && condition !== options.etag)) {
    return { start: undefined, end: undefined, satisfiable: true };
  }
  return { start: Number(start), end: last === '' ? bytes : Number(last) + 1, satisfiable: Number(start) < bytes };
}

async function sendBody(
  server: FileServer,
  response: ServerResponse,
  body: Buffer,
  start: number,
  options: FileOptions,
) {
  const chunkBytes = options.chunkBytes ?? 1 << 16;
  const end = Math.min(body.length, options.cutAfter ?? body.length);
  for (let sent = 0; sent < end; ) {
    const chunk = body.subarray(sent, Math.min(sent + chunkBytes, end));
    if (response.destroyed) return;
    await new Promise<void>((resolve) => response.write(chunk, () => resolve()));
    sent += chunk.length;
    server.bytesSent += chunk.length;
    if (options.stallAfter !== undefined && sent >= options.stallAfter) await once(response, 'close');
    if (options.chunkPauseMs !== undefined) await wait(options.chunkPauseMs);
  }
  if (options.cutAfter !== undefined && options.cutAfter < body.length) {
    if (options.landsIn) await untilFileHas(options.landsIn(), start + end);
    response.destroy();
    return;
  }
  response.end();
}

async function untilFileHas(path: string, bytes: number): Promise<void> {
  for (let tries = 0; tries < 1000; tries++) {
    const size = await stat(path)
      .then((status) => status.size)
      .catch(() => 0);
    if (size >= bytes) return;
    await wait(5);
  }
}

/** Behaves like the hub: redirects to the CDN and announces digest and size in the redirect. */
export function sendHubFile(
  server: FileServer,
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  sha256: string,
  options: FileOptions = {},
): Promise<void> {
  if (request.url?.startsWith('/cdn/')) return sendFile(server, request, response, content, options);
  response
    .writeHead(302, {
      location: `/cdn${request.url ?? ''}?signature=secret`,
      'x-linked-etag': `"${sha256}"`,
      'x-linked-size': String(content.length),
      'content-length': '0',
    })
    .end();
  return Promise.resolve();
}
