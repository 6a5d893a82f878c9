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

/**
 * Limits a message, which may quote a name of a megabyte from a file. The end is kept, because it says what to do next.
 */
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

// The advice in an error's message, and sizes.

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * How the user changes something: VS Code has settings and commands; the command line has options and environment
 * variables.
 */
export function places(env: Environment = process.env) {
  const editor = env['HEARTH_CLIENT'] === 'vscode';
  return {
    proxy: editor ? "Change VS Code's setting http.proxy." : 'Change HTTPS_PROXY or HTTP_PROXY.',
    certificates: editor
      ? 'Change the setting hearth.remote.certificates.'
      : 'Change HEARTH_CERTIFICATES or NODE_EXTRA_CA_CERTS.',
    token: editor ? 'run the command Hearth: Set the Hugging Face Token.' : 'set HF_TOKEN.',
    trust: editor
      ? 'name its certificate file in the setting hearth.remote.certificates'
      : 'name its certificate file in HEARTH_CERTIFICATES',
    folder: editor
      ? 'choose another folder in the setting hearth.modelsDirectory'
      : 'set HEARTH_HOME to another folder',
    list: editor ? '*Hearth: Models*' : '`hearth models list`',
    /** Uses a model that is already on this computer. */
    byFile: editor ? 'choose *A model file…* under *Hearth: Models*' : 'run `hearth models add PATH`',
    credentials: editor
      ? 'Ask its operator for access.'
      : 'Put them in HF_ENDPOINT or PIP_INDEX_URL (https://USER:PASSWORD@HOST).',
    mirror: editor ? '' : ' Set HF_ENDPOINT or PIP_INDEX_URL to a mirror.',
    pull: (id: string) => (editor ? 'under *Hearth: Models*' : `with \`hearth models pull ${id}\``),
    /** Gets a model that is in no list. */
    pullRepository: editor
      ? '*A model on Hugging Face…* under *Hearth: Models*'
      : '`hearth models pull OWNER/REPOSITORY`',
    withoutImport: editor ? 'choose *A model file…* under *Hearth: Models*' : 'pass `--model PATH`',
  };
}

/** Explains a failed certificate check and what helps; undefined for other failures. */
export function certificateProblem(code: unknown): string | undefined {
  if (typeof code !== 'string') return undefined;
  if (code === 'CERT_HAS_EXPIRED') return 'its certificate has expired. Its owner has to renew it.';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'its certificate is for another host. Check the address, and whether something stands in between.';
  }
  if (!/CERT|SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/.test(code)) return undefined;
  return `this computer does not trust its certificate (${code}). If you do, ${places().trust}.`;
}

/** Formats bytes like `98 MB`: three significant digits, decimal units as on download pages. */
export function showBytes(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${units[unit] ?? ''}`;
}
