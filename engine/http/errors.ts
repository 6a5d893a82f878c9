/** Errors in the shape of OpenAI's API: a status, and `{ error: { message, type, param, code } }`. */
import { z } from 'zod';
import { type ErrorCode, HearthError } from '../errors.ts';
import { limits } from '../limits.ts';

export class ApiError extends Error {
  readonly status: number;
  readonly code: string | null;
  /** The invalid field of the request. */
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    details: { code?: string; param?: string; headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = details.code ?? null;
    this.param = details.param ?? null;
    this.headers = details.headers ?? {};
  }

  get body() {
    const { message, param, code } = this;
    return { error: { message, type: errorType(this.status), param, code } };
  }
}

export const badRequest = (message: string, param?: string): ApiError =>
  new ApiError(400, message, param === undefined ? {} : { param });

export const tooManyRequests = (): ApiError =>
  new ApiError(429, 'Too many requests are waiting, so this one was not started. Try again later.', {
    code: 'rate_limit_exceeded',
    headers: retryLater,
  });

const retryLater = { 'retry-after': String(limits.server.retryAfterSeconds) };

function errorType(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}

const statuses: Readonly<Record<ErrorCode, number>> = {
  'invalid-input': 400,
  unsupported: 400,
  'not-found': 404,
  'out-of-memory': 503,
  'context-overflow': 400,
  'device-lost': 503,
  unavailable: 503,
  busy: 429,
  timeout: 503,
  // Not cancelled by the client, which would be gone: the model was unloaded or replaced.
  cancelled: 503,
};

/** Maps any thrown value to a response. Internal errors go to the log only. */
export function apiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof z.ZodError) return invalidField(error);
  if (!(error instanceof HearthError)) return new ApiError(500, "Internal error; see the engine's log.");
  const status = statuses[error.code];
  const code = error.code === 'context-overflow' ? 'context_length_exceeded' : error.code;
  return new ApiError(status, error.message, { code, ...([429, 503].includes(status) && { headers: retryLater }) });
}

function invalidField({ issues }: z.ZodError): ApiError {
  const [issue] = issues;
  const param = issue?.path.join('.') ?? '';
  const message = issue?.message ?? 'Invalid request';
  return param === '' ? badRequest(message) : badRequest(`${param}: ${message}`, param);
}
