/**
 * Errors that a caller is expected to handle. Any other thrown value is a broken invariant; it fails only the request that it
 * occurred in.
 *
 * A message says what happened, what was kept and what to do next.
 */

const errorCodes = [
  /** Input from outside (model file, configuration, template, request) is malformed. */
  'invalid-input',
  /** The input is valid, but Hearth does not implement it (tensor type, architecture, operator). */
  'unsupported',
  /** The named model, file or tensor does not exist. */
  'not-found',
  /** Host or device memory is too small for the request. */
  'out-of-memory',
  /** Prompt and answer don't fit in the context window. */
  'context-overflow',
  /** The GPU driver reset the device. */
  'device-lost',
  /** A download, disk or process failed; a retry may help. */
  'unavailable',
  /** The request queue is full; retry later. */
  'busy',
  /** The request missed its deadline. */
  'timeout',
  /** The caller cancelled. */
  'cancelled',
] as const;
export type ErrorCode = (typeof errorCodes)[number];

export const isErrorCode = (code: string): code is ErrorCode => errorCodes.some((known) => known === code);

/** A message quotes names from files, which may have a megabyte; what to do next stands at its end. */
const maxMessageChars = 2000;
const endChars = 500;

function short(message: string): string {
  if (message.length <= maxMessageChars) return message;
  return `${message.slice(0, maxMessageChars - endChars - 3)} … ${message.slice(-endChars)}`;
}

export class HearthError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(short(message), options);
    this.name = 'HearthError';
    this.code = code;
  }
}

export const invalidInput = (message: string): HearthError => new HearthError('invalid-input', message);
export const unsupported = (message: string): HearthError => new HearthError('unsupported', message);
export const notFound = (message: string): HearthError => new HearthError('not-found', message);
export const cancelled = (message = 'The request was cancelled.'): HearthError => new HearthError('cancelled', message);

/** The first issue of a failed zod check, in one line: `added_tokens.1.id is missing`. */
export function firstIssue(
  issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[],
): string {
  const [{ path, message } = { path: [], message: 'invalid' }] = issues;
  const place = path.map(String).join('.').slice(0, 200) || 'the top level';
  return message.endsWith('received undefined') ? `${place} is missing` : `${place}: ${message}`;
}

/** @throws HearthError `cancelled` if `signal` is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}
