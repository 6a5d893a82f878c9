/** Defines a command, parses its arguments and reads the source files that they name. */
import { readFile, stat } from 'node:fs/promises';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { type CachePrecision, cachePrecisions } from '../protocol/models.ts';
import { type BackendChoice, backendChoices } from '../runtime/backends.ts';

export interface Command {
  readonly name: string;
  /** Arguments after the name, for the help text. */
  readonly usage: string;
  readonly summary: string;
  /** In the order of the help text. */
  readonly options: readonly Option[];
  readonly run: (values: Values, terminal: Terminal) => Promise<void>;
}

interface Option {
  readonly name: string;
  /** Placeholder for the value in the help text. Absent for a switch. */
  readonly value?: string;
  readonly help: string;
}

export const commonOptions: readonly Option[] = [
  { name: 'model', value: 'M', help: 'catalogue id, GGUF file or safetensors folder (the default model)' },
  { name: 'backend', value: 'B', help: `compute backend: ${backendChoices.join(', ')} (auto)` },
  { name: 'threads', value: 'N', help: 'number of CPU threads' },
  { name: 'context', value: 'N', help: 'longest context in tokens' },
  {
    name: 'cache-precision',
    value: 'P',
    help: `KV-cache precision: ${cachePrecisions.join(', ')} (f16; q8 only on a GPU)`,
  },
  { name: 'json', help: 'print one JSON value to stdout' },
];

/** The parsed arguments. Each method throws a HearthError that names the invalid option. */
export class Values {
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>, positionals: readonly string[]) {
    this.#values = values;
    this.positionals = positionals;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === 'string' ? value : undefined;
  }

  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw invalidInput(`--${name} is missing.`);
    return value;
  }

  switch(name: string): boolean {
    return this.#values[name] === true;
  }

  number(name: string, { least, integer }: { readonly least: number; readonly integer: boolean }): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    const valid =
      text.trim() !== '' && Number.isFinite(value) && value >= least && (!integer || Number.isSafeInteger(value));
    if (!valid)
      throw invalidInput(`--${name} must be a${integer ? ' whole' : ''} number of at least ${least}, not '${text}'.`);
    return value;
  }

  count(name: string): number | undefined {
    return this.number(name, { least: 1, integer: true });
  }

  oneOf<const Choice extends string>(name: string, choices: readonly Choice[]): Choice | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const choice = choices.find((known) => known === text);
    if (choice === undefined) throw invalidInput(`--${name} must be one of ${choices.join(', ')}, not '${text}'.`);
    return choice;
  }

  backend(): BackendChoice {
    return this.oneOf('backend', backendChoices) ?? 'auto';
  }

  cachePrecision(): CachePrecision | undefined {
    return this.oneOf('cache-precision', cachePrecisions);
  }

  /** Returns the only positional argument. */
  only(what: string): string {
    const [first, second] = this.positionals;
    if (first === undefined) throw invalidInput(`${what} is missing.`);
    if (second !== undefined) throw invalidInput(`Unexpected argument '${second}'.`);
    return first;
  }

  none(): void {
    const [first] = this.positionals;
    if (first !== undefined) throw invalidInput(`Unexpected argument '${first}'.`);
  }
}

export function readArguments(command: Command, args: readonly string[]): Values {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const { name, value } of [...command.options, ...commonOptions]) {
    options[name] = { type: value === undefined ? 'boolean' : 'string' };
  }
  try {
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    return new Values(values, positionals);
  } catch (error) {
    // Keeps the first sentence of parseArgs's message, which names the option; the rest is advice on escaping.
    const [message] = (error instanceof Error ? error.message : String(error)).split(/\.\s/);
    throw new HearthError('invalid-input', `${message?.replace(/\.$/, '')}. See \`hearth ${command.name} --help\`.`);
  }
}

export function commandHelp({ name, usage, summary, options }: Command): string {
  return [`hearth ${name} ${usage}`.trimEnd(), '', summary, '', optionTable([...options, ...commonOptions]), ''].join(
    '\n',
  );
}

export function optionTable(options: readonly Option[]): string {
  const left = options.map(({ name, value }) => `  --${name}${value === undefined ? '' : ` ${value}`}`);
  const width = Math.max(...left.map(({ length }) => length));
  return options.map(({ help }, i) => `${left[i]?.padEnd(width)}  ${help}`).join('\n');
}

/** Reads a source file as text. @throws HearthError `not-found`, or `invalid-input` for a folder, binary or huge file. */
export async function readSource(path: string): Promise<string> {
  const bytes = await readBytes(path);
  // The same test for binary files as Git's.
  if (bytes.subarray(0, 8000).includes(0)) throw invalidInput(`${path} is a binary file.`);
  return bytes.toString('utf8').replace(/^\ufeff/, '');
}

async function readBytes(path: string): Promise<Buffer> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw notFound(`${path}: not found`);
  if (!found.isFile()) throw invalidInput(`${path} is not a file.`);
  if (found.size > limits.cli.sourceBytes) {
    throw invalidInput(`${path} is too large: ${found.size} bytes, at most ${limits.cli.sourceBytes} are allowed.`);
  }
  try {
    return await readFile(path);
  } catch (error) {
    throw new HearthError('unavailable', `Could not read ${path}. Check its permissions.`, { cause: error });
  }
}

/** VS Code's language identifiers that differ from the file extension. */
const languages: Readonly<Record<string, string>> = {
  cc: 'cpp',
  cjs: 'javascript',
  cs: 'csharp',
  h: 'c',
  hpp: 'cpp',
  hs: 'haskell',
  js: 'javascript',
  jsx: 'javascriptreact',
  kt: 'kotlin',
  md: 'markdown',
  mjs: 'javascript',
  ml: 'ocaml',
  pl: 'perl',
  ps1: 'powershell',
  py: 'python',
  rb: 'ruby',
  rs: 'rust',
  sh: 'shellscript',
  ts: 'typescript',
  tsx: 'typescriptreact',
  yml: 'yaml',
};

/** @param extension with its dot, as `extname` returns it */
export function languageOf(extension: string): string {
  const name = extension.slice(1).toLowerCase();
  return languages[name] ?? name;
}

/** Output of a command. Answers go to stdout; progress, thinking and errors go to stderr. */

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** True if stderr is a terminal, where a line can be rewritten. */
  readonly interactive: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/**
 * Replaces control characters by their escapes, which JSON reads as the same characters. File names, model metadata and
 * answers could otherwise rewrite what a terminal shows, or worse. Tabs and line ends stay.
 */
export const printable = (text: string): string => text.replaceAll(controls, escaped);

/** The same for stderr, but keeps the carriage returns of progress lines and the grey colour of thinking. */
export const printableStatus = (text: string): string =>
  text.replaceAll(controls, (found, at) =>
    // biome-ignore lint/suspicious/noControlCharactersInRegex: Hearth's own.
    /^\u001b\[(?:90|39)m$/.test(found) || (found === '\r' && (at === 0 || at === text.length - 1))
      ? found
      : escaped(found),
  );

// biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern searches for them.
const controls = /\r\n|\u001b\[(?:90|39)m|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

function escaped(found: string): string {
  if (found === '\r\n') return found;
  return `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}${found.slice(1)}`;
}

/** Shorter work shows no progress. */
const delayMs = 1000;

/** Shows progress in one rewritten line on a terminal, or as a line for every 10 % otherwise. */
export class ProgressLine {
  readonly #terminal: Terminal;
  #startedMs: number | undefined;
  #shown = '';
  #lastTenth = -1;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(message: string, done: number, total: number, unit: 'bytes' | 'parts'): void {
    const now = performance.now();
    this.#startedMs ??= now;
    if (now - this.#startedMs < delayMs) return;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const amount = unit === 'bytes' ? `${megabytes(done)} of ${megabytes(total)}` : `${done} of ${total}`;
    const line = `${message}: ${Math.floor(share * 100)} % (${amount})`;
    if (this.#terminal.interactive) {
      if (line === this.#shown) return;
      this.#terminal.err(`\r${line.padEnd(this.#shown.length)}`);
      this.#shown = line;
      return;
    }
    const tenth = Math.floor(share * 10);
    if (tenth === this.#lastTenth) return;
    this.#lastTenth = tenth;
    this.#terminal.err(`${line}\n`);
  }

  /** Clears the progress line. */
  end(): void {
    if (this.#shown !== '') this.#terminal.err(`\r${' '.repeat(this.#shown.length)}\r`);
    this.#shown = '';
    this.#lastTenth = -1;
    this.#startedMs = undefined;
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
