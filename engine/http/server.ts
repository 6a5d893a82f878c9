/**
 * An OpenAI-compatible server on loopback, off by default. It checks access first, then the route, then a bounded queue,
 * then the body.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open, readFile, rm, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type OpenAI from 'openai';
import type { z } from 'zod';
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import type { DeltaStreams, ServerAddress, startServerParams } from '../protocol/engineProtocol.ts';
import type { ModelCard } from '../protocol/models.ts';
import type { Engine } from '../runtime/service.ts';
import { chatCompletions } from './chatCompletions.ts';
import { completions, embeddings } from './completions.ts';
import { ApiError, apiError, Exchange, loadedCard, type Serving, tooManyRequests } from './exchange.ts';
import { checkModel, servedName } from './fields.ts';
import { responses } from './responses.ts';

interface HttpServerOptions extends Serving {
  /** 0: any free port. */
  readonly port: number;
  readonly token: string;
  readonly log: (line: string) => void;
}

export interface HttpServer {
  /** The base URL for clients, without `/v1`. */
  readonly address: string;
  close(): Promise<void>;
}

type Endpoint = (serving: Serving, exchange: Exchange) => Promise<void>;

/** Generating endpoints wait in a queue; the list of models doesn't. */
const generating: Readonly<Record<string, Endpoint>> = {
  '/v1/chat/completions': chatCompletions,
  '/v1/completions': completions,
  '/v1/responses': responses,
  '/v1/embeddings': embeddings,
};

/** @throws HearthError `unavailable` if the port is in use. */
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
    // Interval at which both time limits are checked.
    connectionsCheckingInterval: 1000,
  });
  limitConnections(server, connections);
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

/**
 * A connection over the limit replaces one that waits for no answer: the oldest that never sent a request's headers,
 * else the oldest whose requests were answered. So slow senders don't lock others out.
 */
function limitConnections(server: Server, most: number): void {
  const [silent, idle] = [new Set<Socket>(), new Set<Socket>()];
  /** Requests that are being answered. */
  const running = new Map<Socket, number>();
  let count = 0;
  // Replaced connections are closed in this turn of the event loop or the next, so allow more for a moment.
  server.maxConnections = 2 * most;
  server.on('connection', (socket: Socket) => {
    count++;
    silent.add(socket);
    socket.once('close', () => {
      count--;
      silent.delete(socket);
      idle.delete(socket);
      running.delete(socket);
    });
    if (count > most) [...silent, ...idle][0]?.destroy();
  });
  const begin = ({ socket }: IncomingMessage, response: ServerResponse): void => {
    silent.delete(socket);
    idle.delete(socket);
    running.set(socket, (running.get(socket) ?? 0) + 1);
    response.once('close', () => {
      if (socket.destroyed) return;
      const left = (running.get(socket) ?? 1) - 1;
      running.set(socket, left);
      if (left === 0) idle.add(socket);
    });
  };
  server.on('request', begin);
  server.on('checkContinue', begin);
}

async function listen(server: Server, port: number): Promise<number> {
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
      // The client has disconnected.
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
  throw new ApiError(405, `This address accepts only ${allowed}.`, { headers: { allow: allowed } });
}

function decodePath(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// GET /v1/models lists the loaded model.

/** OpenAI's fields, vLLM's field for the context, and the fields that Hearth's remote client needs. */
interface ServedModel extends OpenAI.Model {
  readonly max_model_len: number;
  readonly thinking_modes: readonly string[];
  readonly fill_in_the_middle: boolean;
  /** Vector length of an embedding model. */
  readonly embedding_dimensions?: number;
}

const served = (card: ModelCard, created: number): ServedModel => ({
  id: servedName(card),
  object: 'model',
  created,
  owned_by: 'hearth',
  max_model_len: card.contextTokens,
  thinking_modes: card.thinkingModes,
  fill_in_the_middle: card.fillInTheMiddle,
  ...(card.embeddingDimensions !== undefined && { embedding_dimensions: card.embeddingDimensions }),
});

/** Seconds since 1970; the server's start, because the model's date is unknown. */
const started = Math.floor(Date.now() / 1000);

async function listModels({ engine }: Serving, exchange: Exchange): Promise<void> {
  const { model } = engine.status();
  exchange.json({ object: 'list', data: model ? [served(model, started)] : [] });
}

async function oneModel(serving: Serving, exchange: Exchange, name: string): Promise<void> {
  const card = loadedCard(serving);
  checkModel(name, card);
  exchange.json(served(card, started));
}

// Access control. A web page can reach loopback too, so each request must name this server as its host (against DNS
// rebinding), must not come from a page (browsers send `Origin`), and must know the token.

class Access {
  readonly #hosts: ReadonlySet<string>;
  readonly #digest: Buffer;

  constructor(port: number, token: string) {
    // RFC 9110, section 7.2: a client omits the default port of the scheme.
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
    // Digests have equal length, so the comparison takes constant time.
    if (token === undefined || !timingSafeEqual(digestOf(token), this.#digest)) {
      throw new ApiError(401, "The token is missing or wrong: send it as 'Authorization: Bearer TOKEN'.", {
        code: 'invalid_api_key',
        headers: { 'www-authenticate': 'Bearer' },
      });
    }
  }
}

/** A repeated header is refused as an attack. */
const only = (values: readonly string[] | undefined): string | undefined =>
  values?.length === 1 ? values[0] : undefined;

const digestOf = (token: string): Buffer => createHash('sha256').update(token).digest();

// The server's random token; only its owner can read the file.

/** 256 bits: 43 characters of base64url. */
export const newToken = (): string => randomBytes(32).toString('base64url');

/** Reads the token from `path`, or creates the file with a new token. @throws HearthError `invalid-input` */
export async function tokenInFile(path: string): Promise<string> {
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    if (error instanceof Error && Reflect.get(error, 'code') === 'EEXIST') return undefined;
    throw unwritable(path, error);
  });
  return file ? writeToken(path, file) : readToken(path);
}

async function writeToken(path: string, file: FileHandle): Promise<string> {
  const token = newToken();
  try {
    await file.writeFile(`${token}\n`);
    // A full disk may show only now. A file without its token would be refused at every later start.
    await file.sync();
    return token;
  } catch (error) {
    await rm(path, { force: true });
    throw unwritable(path, error);
  } finally {
    await file.close();
  }
}

function unwritable(path: string, error: unknown): HearthError {
  return invalidInput(`Can't write the token to ${path}: ${error instanceof Error ? error.message : error}`);
}

async function readToken(path: string): Promise<string> {
  // Windows has access lists instead of these bits.
  const { mode } = await stat(path);
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    throw invalidInput(
      `Other users of this machine may read ${path}. Remove the file to get a new token, or run \`chmod 600\` on it if only you could ever read it.`,
    );
  }
  const token = (await readFile(path, 'utf8')).trim();
  if (token.length >= limits.server.tokenChars && !/\s/.test(token)) return token;
  const least = limits.server.tokenChars;
  throw invalidInput(
    `${path} has no token, which is one word of at least ${least} characters. Remove the file to get a new one.`,
  );
}

// The OpenAI-compatible server in the engine process: off by default, at most one.

export class LocalServer {
  readonly #engine: Engine;
  readonly #streams: DeltaStreams;
  readonly #log: (line: string) => void;
  #running: HttpServer | undefined;
  /** Starts and stops are sequential. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(engine: Engine, streams: DeltaStreams, log: (line: string) => void) {
    this.#engine = engine;
    this.#streams = streams;
    this.#log = log;
  }

  /** Replaces a running server. @throws HearthError `unavailable` if the port is in use. */
  start({ port, token }: z.output<typeof startServerParams>): Promise<ServerAddress> {
    return this.#inTurn(async () => {
      await this.#close();
      const parts = { engine: this.#engine, streams: this.#streams, log: this.#log };
      this.#running = await startHttpServer({ ...parts, port, token });
      return { address: `${this.#running.address}/v1` };
    });
  }

  stop(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  async #close(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.close();
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}
