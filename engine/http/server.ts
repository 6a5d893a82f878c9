/**
 * An OpenAI-compatible server on loopback, off unless it is asked for: access first, then the route, then a place in a
 * bounded queue, then the body.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import { Access } from './access.ts';
import { chatCompletions } from './chatCompletions.ts';
import { completions } from './completions.ts';
import { embeddings } from './embeddings.ts';
import { ApiError, apiError, tooManyRequests } from './errors.ts';
import { Exchange } from './exchange.ts';
import { listModels, oneModel } from './models.ts';
import { responses } from './responses.ts';
import type { Serving } from './serving.ts';

export interface HttpServerOptions extends Serving {
  /** 0: any that is free. */
  readonly port: number;
  readonly token: string;
  readonly log: (line: string) => void;
}

export interface HttpServer {
  /** What clients take as their base address, without `/v1`. */
  readonly address: string;
  close(): Promise<void>;
}

type Endpoint = (serving: Serving, exchange: Exchange) => Promise<void>;

/** What generates waits in a queue; a list of models does not. */
const generating: Readonly<Record<string, Endpoint>> = {
  '/v1/chat/completions': chatCompletions,
  '/v1/completions': completions,
  '/v1/responses': responses,
  '/v1/embeddings': embeddings,
};

/** @throws HearthError `unavailable` when the port is taken. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  if (options.token.length < limits.server.tokenChars) {
    throw invalidInput(`The token is too short: at least ${limits.server.tokenChars} characters are needed.`);
  }
  const { headerBytes, headersMs, requestMs, keepAliveMs, connections } = limits.server;
  const server = createServer({
    maxHeaderSize: headerBytes,
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: keepAliveMs,
    // How often the two time limits are looked at.
    connectionsCheckingInterval: 1000,
  });
  server.maxConnections = connections;
  const port = await listen(server, options.port);
  const desk = new Desk(options, new Access(port, options.token));
  const receive = (request: IncomingMessage, response: ServerResponse): void => void desk.receive(request, response);
  server.on('request', receive);
  server.on('checkContinue', receive);
  return {
    address: `http://127.0.0.1:${port}`,
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: ReturnType<typeof createServer>, port: number): Promise<number> {
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  } catch (error) {
    const taken = error instanceof Error && Reflect.get(error, 'code') === 'EADDRINUSE';
    const reason = taken
      ? `Port ${port} is taken, perhaps by Hearth in another window; choose another port.`
      : `Port ${port} cannot be listened on: ${error instanceof Error ? error.message : error}`;
    throw new HearthError('unavailable', reason, { cause: error });
  }
}

class Desk {
  readonly #options: HttpServerOptions;
  readonly #access: Access;
  #pending = 0;

  constructor(options: HttpServerOptions, access: Access) {
    this.#options = options;
    this.#access = access;
  }

  async receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = new Exchange(request, response);
    try {
      this.#access.check(request);
      if (request.headers.expect !== undefined) response.writeContinue();
      await this.#answer(request, exchange);
    } catch (error) {
      // Nobody is left to read it.
      if (exchange.signal.aborted) return;
      const failure = apiError(error);
      if (failure.status === 500) this.#options.log(`HTTP: ${error instanceof Error ? error.stack : error}`);
      exchange.fail(failure);
    }
  }

  async #answer(request: IncomingMessage, exchange: Exchange): Promise<void> {
    const path = (request.url?.split('?', 1)[0] ?? '').replace(/(?<=.)\/$/, '');
    const [, model] = /^\/v1\/models\/(.+)$/.exec(path) ?? [];
    if (path === '/v1/models' || model !== undefined) {
      allow(request, 'GET');
      return model === undefined
        ? listModels(this.#options, exchange)
        : oneModel(this.#options, exchange, decodePath(model));
    }
    const endpoint = Object.hasOwn(generating, path) ? generating[path] : undefined;
    if (endpoint === undefined) throw new ApiError(404, `There is no ${path.slice(0, 200)} here.`);
    allow(request, 'POST');
    if (this.#pending >= limits.server.pendingRequests) throw tooManyRequests();
    this.#pending++;
    try {
      await endpoint(this.#options, exchange);
    } finally {
      this.#pending--;
    }
  }
}

function allow({ method }: IncomingMessage, allowed: 'GET' | 'POST'): void {
  if (method === allowed) return;
  throw new ApiError(405, `This address takes ${allowed} alone.`, { headers: { allow: allowed } });
}

function decodePath(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
