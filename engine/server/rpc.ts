/** The engine's end of the channel: JSON-RPC requests to calls of the engine, validated, cancellable, with typed errors. */
import {
  type CancellationToken,
  ErrorCodes,
  type MessageConnection,
  type RequestType,
  type RequestType0,
  ResponseError,
} from 'vscode-jsonrpc/node';
import { z } from 'zod';
import { HearthError } from '../errors.ts';
import {
  chatParams,
  completeParams,
  type errorData,
  generateParams,
  loadParams,
  messages,
  modelName,
  summariseParams,
} from './protocol.ts';
import type { Engine } from './service.ts';

type ErrorData = z.infer<typeof errorData>;

/** Serves `engine` on a connection that does not listen yet. */
export function serve(connection: MessageConnection, engine: Engine, log: (line: string) => void): void {
  const handle = <Schema extends z.ZodType, Params, Result>(
    type: RequestType<Params, Result, ErrorData>,
    schema: Schema,
    run: (params: z.output<Schema>, signal: AbortSignal) => Promise<Result>,
  ): void => {
    const untyped: RequestType<unknown, unknown, ErrorData> = type;
    connection.onRequest(untyped, (params, token) =>
      answer(log, type.method, () => run(parse(schema, params, type.method), signalOf(token))),
    );
  };
  const handle0 = <Result>(type: RequestType0<Result, ErrorData>, run: () => Promise<Result>): void => {
    const untyped: RequestType0<unknown, ErrorData> = type;
    connection.onRequest(untyped, () => answer(log, type.method, run));
  };
  handle(messages.load, loadParams, (params, signal) => engine.load(params, signal));
  handle0(messages.unload, async () => {
    await engine.unload();
    return null;
  });
  handle0(messages.status, async () => engine.status());
  handle(messages.complete, completeParams, (params, signal) => engine.complete(params, signal));
  handle(messages.chat, chatParams, (params, signal) => engine.chat(params, signal));
  handle(messages.generate, generateParams, (params, signal) => engine.generate(params, signal));
  handle(messages.summarise, summariseParams, (params, signal) => engine.summarise(params, signal));
  handle0(messages.models.list, () => engine.models.list());
  handle(messages.models.pull, modelName, ({ model }, signal) => engine.models.pull(model, signal));
  handle(messages.models.verify, modelName, ({ model }, signal) => engine.models.verify(model, signal));
  handle(messages.models.remove, modelName, ({ model }) => engine.models.remove(model));
}

function parse<Schema extends z.ZodType>(schema: Schema, params: unknown, method: string): z.output<Schema> {
  const parsed = schema.safeParse(params);
  if (parsed.success) return parsed.data;
  throw new HearthError('invalid-input', `Invalid parameters of '${method}': ${z.prettifyError(parsed.error)}`);
}

function signalOf(token: CancellationToken): AbortSignal {
  const controller = new AbortController();
  if (token.isCancellationRequested) controller.abort();
  else token.onCancellationRequested(() => controller.abort());
  return controller.signal;
}

async function answer(log: (line: string) => void, method: string, run: () => Promise<unknown>): Promise<unknown> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof HearthError)) log(`'${method}' failed: ${error instanceof Error ? error.stack : error}`);
    throw responseError(error);
  }
}

/** The Language Server Protocol's numbers for what JSON-RPC itself does not name. */
const requestCancelled = -32800;
const requestFailed = -32803;

function responseError(error: unknown): ResponseError<ErrorData> {
  if (!(error instanceof HearthError)) {
    const message = error instanceof Error ? error.message : String(error);
    return new ResponseError(ErrorCodes.InternalError, `Internal error: ${message}`, { code: 'internal' });
  }
  const numbers: Partial<Record<HearthError['code'], number>> = {
    cancelled: requestCancelled,
    'invalid-input': ErrorCodes.InvalidParams,
  };
  return new ResponseError(numbers[error.code] ?? requestFailed, error.message, { code: error.code });
}
