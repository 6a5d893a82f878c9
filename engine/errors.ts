/**
 * The failures a caller is expected to handle. Anything else that is thrown is a broken invariant: it ends
 * the request it happened in and nothing else.
 *
 * A message says what happened, what was kept, and what to do next.
 */

export const errorCodes = [
  /** Bytes from outside (model file, configuration, template, request) do not have the form they must have. */
  'invalid-input',
  /** The form is right, but Hearth does not implement it (tensor type, architecture, operator). */
  'unsupported',
  /** A model, file or tensor that was named does not exist. */
  'not-found',
  /** Host or device memory does not hold what was asked for. */
  'out-of-memory',
  /** The prompt and the answer do not fit into the context. */
  'context-overflow',
  /** The compute device went away. */
  'device-lost',
  /** A download, disk or process failed; trying again may help. */
  'unavailable',
  /** Too many requests wait already; trying again later will help. */
  'busy',
  /** The request was not done by its deadline. */
  'timeout',
  /** The caller cancelled. */
  'cancelled',
] as const;
export type ErrorCode = (typeof errorCodes)[number];

export const isErrorCode = (code: string): code is ErrorCode => errorCodes.some((known) => known === code);

export class HearthError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'HearthError';
    this.code = code;
  }
}

export const invalidInput = (message: string): HearthError => new HearthError('invalid-input', message);
export const unsupported = (message: string): HearthError => new HearthError('unsupported', message);
export const notFound = (message: string): HearthError => new HearthError('not-found', message);
export const cancelled = (message = 'The request was cancelled.'): HearthError => new HearthError('cancelled', message);

/** Throws the typed cancellation error once `signal` is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}
