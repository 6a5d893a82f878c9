/** Answers to requests of a JSON-RPC connection: validated, cancellable, with typed errors. */
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

interface ErrorData {
  code: string;
}

export interface Answering {
  readonly handle: <Schema extends z.ZodType, Params, Result>(
    type: RequestType<Params, Result, ErrorData>,
    schema: Schema,
    run: (params: z.output<Schema>, signal: AbortSignal) => Promise<Result>,
  ) => void;
  readonly handle0: <Result>(type: RequestType0<Result, ErrorData>, run: () => Promise<Result>) => void;
}

/** For a connection that does not listen yet. */
export function answering(connection: MessageConnection, log: (line: string) => void): Answering {
  return {
    handle(type, schema, run) {
      const untyped: RequestType<unknown, unknown, ErrorData> = type;
      connection.onRequest(untyped, (params, token) =>
        answer(log, type.method, () => run(parse(schema, params, type.method), signalOf(token))),
      );
    },
    handle0(type, run) {
      const untyped: RequestType0<unknown, ErrorData> = type;
      connection.onRequest(untyped, () => answer(log, type.method, run));
    },
  };
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
