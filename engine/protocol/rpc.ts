/**
 * A protocol as data: tables of requests and notifications. One end serves a table with an implementation; the other end
 * calls it through a client of the same type. Both ends validate what they receive. `$/cancelRequest` cancels a request. A
 * HearthError keeps its code across the channel (engine/errors.ts).
 */
import { randomUUID } from 'node:crypto';
import { type CancellationToken, ErrorCodes, type MessageConnection, ResponseError } from 'vscode-jsonrpc';
import * as z from 'zod';
import { HearthError, isErrorCode } from '../errors.ts';

/** Environment variable with the file descriptor to which a child process writes a byte twice a second. */
export const heartbeatVariable = 'HEARTH_HEARTBEAT_FD';

export interface Request {
  readonly params: z.ZodType;
  readonly result: z.ZodType;
}
/** Request schemas by method name. */
export type Requests = Readonly<Record<string, Request>>;
/** Notification schemas by method name. A notification has no response. */
export type Notices = Readonly<Record<string, z.ZodType>>;

/** Params of a request without params. */
export const none = z.object({});
/** Result of a request without a result. */
export const done = z.null();

type Params<Of extends Request> = z.input<Of['params']>;
type Result<Of extends Request> = z.output<Of['result']>;
type Arguments<Of extends Request, Token> =
  Record<never, never> extends Params<Of> ? [params?: Params<Of>, token?: Token] : [params: Params<Of>, token?: Token];

/** The calling end. `Token` cancels a request: an `AbortSignal` or VS Code's `CancellationToken`. */
export type Client<Table extends Requests, Token> = {
  readonly [Name in keyof Table]: (...args: Arguments<Table[Name], Token>) => Promise<Result<Table[Name]>>;
};

/** The serving end. */
export type Implementation<Table extends Requests> = {
  readonly [Name in keyof Table]: (
    params: z.output<Table[Name]['params']>,
    signal: AbortSignal,
  ) => Promise<Result<Table[Name]>> | Result<Table[Name]>;
};

/**
 * @param send sends one request and returns the response, not yet validated.
 * @param refuse creates the error for a response that does not match the table.
 */
export function proxy<Table extends Requests, Token>(
  table: Table,
  send: (method: string, params: unknown, token: Token | undefined) => Promise<unknown>,
  refuse: (method: string, problem: string) => Error,
): Client<Table, Token> {
  const call =
    (method: string, { result }: Request) =>
    async (params: unknown = {}, token?: Token): Promise<unknown> => {
      const parsed = result.safeParse(await send(method, params, token));
      if (parsed.success) return parsed.data;
      throw refuse(method, z.prettifyError(parsed.error));
    };
  const calls = Object.entries(table).map(([method, request]) => [method, call(method, request)]);
  return Object.fromEntries(calls) as Client<Table, Token>;
}

/**
 * Serves `table` on a connection that is not listening yet. Logs errors outside of `errorCodes` with their stack. Requests end
 * with the connection.
 */
export function serve<Table extends Requests>(
  connection: MessageConnection,
  table: Table,
  implementation: Implementation<Table>,
  log: (line: string) => void,
): void {
  const running = new Set<AbortController>();
  connection.onClose(() => {
    for (const controller of running) controller.abort();
  });
  const answer = async <Name extends keyof Table & string>(
    name: Name,
    schema: Table[Name]['params'],
    params: unknown,
    token: CancellationToken,
  ): Promise<Result<Table[Name]>> => {
    const controller = controllerOf(token);
    running.add(controller);
    try {
      return await implementation[name](parse(schema, params, name), controller.signal);
    } catch (error) {
      if (!(error instanceof HearthError)) log(`'${name}' failed: ${error instanceof Error ? error.stack : error}`);
      throw responseOf(error);
    } finally {
      running.delete(controller);
    }
  };
  for (const [name, { params: schema }] of Object.entries(table)) {
    connection.onRequest(name, (params: unknown, token: CancellationToken) => answer(name, schema, params, token));
  }
}

/** Handles each valid notification. Logs and drops malformed ones. */
export function listen<Table extends Notices>(
  connection: Pick<MessageConnection, 'onNotification'>,
  table: Table,
  handlers: { readonly [Name in keyof Table]?: (value: z.output<Table[Name]>) => void },
  log: (line: string) => void,
): void {
  for (const [name, schema] of Object.entries(table)) {
    const handle: ((value: z.output<Table[string]>) => void) | undefined = handlers[name];
    if (!handle) continue;
    connection.onNotification(name, (raw: unknown) => {
      const parsed = schema.safeParse(raw);
      if (parsed.success) handle(parsed.data as z.output<Table[string]>);
      else log(`Dropped an invalid '${name}' notification: ${z.prettifyError(parsed.error)}`);
    });
  }
}

/** The sending end of notifications. `lost` is called for those that could not be sent. */
export function notifier<Table extends Notices>(
  connection: Pick<MessageConnection, 'sendNotification'>,
  lost: (method: string, error: unknown) => void,
): <Name extends keyof Table & string>(name: Name, value: z.input<Table[Name]>) => void {
  return (name, value) => {
    connection.sendNotification(name, value).catch((error: unknown) => lost(name, error));
  };
}

/** The receivers of running requests' streams, by the stream's name. */
export class Streams<Receiver> {
  readonly #receivers = new Map<string, Receiver>();

  get names(): readonly string[] {
    return [...this.#receivers.keys()];
  }

  receiver(stream: string): Receiver | undefined {
    return this.#receivers.get(stream);
  }

  /** @returns the name of a new stream, which `receiver` receives until it is closed. */
  open(receiver: Receiver): string {
    const stream = randomUUID();
    this.#receivers.set(stream, receiver);
    return stream;
  }

  close(stream: string): void {
    this.#receivers.delete(stream);
  }

  /** Calls `ask` with the name of a stream that stays open until the request ends. */
  async with<Result>(receiver: Receiver, ask: (stream: string) => Promise<Result>): Promise<Result> {
    const stream = this.open(receiver);
    try {
      return await ask(stream);
    } finally {
      this.close(stream);
    }
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, params: unknown, method: string): z.output<Schema> {
  const parsed = schema.safeParse(params);
  if (parsed.success) return parsed.data;
  throw new HearthError('invalid-input', `Invalid parameters of '${method}': ${z.prettifyError(parsed.error)}`);
}

function controllerOf(token: CancellationToken): AbortController {
  const controller = new AbortController();
  if (token.isCancellationRequested) controller.abort();
  else token.onCancellationRequested(() => controller.abort());
  return controller;
}

// ---- Errors on the wire: the error's data is `{ code }` with a code of engine/errors.ts, or `internal` ----

/** Error numbers of the Language Server Protocol that JSON-RPC does not define. */
const requestCancelled = -32800;
const requestFailed = -32803;

function responseOf(error: unknown): ResponseError<{ code: string }> {
  if (!(error instanceof HearthError)) {
    const message = error instanceof Error ? error.message : String(error);
    return new ResponseError(ErrorCodes.InternalError, `Internal error: ${message}`, { code: 'internal' });
  }
  const numbers = { cancelled: requestCancelled, 'invalid-input': ErrorCodes.InvalidParams };
  const number = error.code === 'cancelled' || error.code === 'invalid-input' ? numbers[error.code] : requestFailed;
  return new ResponseError(number, error.message, { code: error.code });
}

const errorData = z.object({ code: z.string() });

/** Restores the HearthError thrown by the other end. Undefined for a broken invariant there. */
export function failureOf(error: ResponseError<unknown>): HearthError | undefined {
  const data = errorData.safeParse(error.data);
  if (data.success && isErrorCode(data.data.code)) return new HearthError(data.data.code, error.message);
  return error.code === requestCancelled ? new HearthError('cancelled', error.message) : undefined;
}
