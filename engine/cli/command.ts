/** What a command is, and how its arguments are read. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { HearthError, invalidInput } from '../errors.ts';
import { type CachePrecision, cachePrecisions } from '../protocol/engineProtocol.ts';
import { type BackendChoice, backendChoices } from '../runtime/backends.ts';
import type { Terminal } from './terminal.ts';

export interface Command {
  readonly name: string;
  /** After the name, for the help. */
  readonly usage: string;
  readonly summary: string;
  /** What the options mean, in the order shown. */
  readonly options: readonly Option[];
  readonly run: (values: Values, terminal: Terminal) => Promise<void>;
}

export interface Option {
  readonly name: string;
  /** What stands for the value in the help; absent: a switch. */
  readonly value?: string;
  readonly help: string;
}

export const commonOptions: readonly Option[] = [
  { name: 'model', value: 'M', help: 'catalogue id, GGUF file or folder with safetensors (the default model)' },
  { name: 'backend', value: 'B', help: `who computes: ${backendChoices.join(', ')} (auto)` },
  { name: 'threads', value: 'N', help: 'threads of the processor to use' },
  { name: 'context', value: 'N', help: 'longest context in tokens' },
  {
    name: 'cache-precision',
    value: 'P',
    help: `how keys and values are kept: ${cachePrecisions.join(', ')} (f16; q8 on a GPU alone)`,
  },
  { name: 'json', help: 'one JSON value on stdout, for machines' },
];

/** The arguments of one call. Every reader throws a typed error that names the option. */
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
      throw invalidInput(`--${name} takes a${integer ? ' whole' : ''} number of at least ${least}, not '${text}'.`);
    return value;
  }

  count(name: string): number | undefined {
    return this.number(name, { least: 1, integer: true });
  }

  oneOf<const Choice extends string>(name: string, choices: readonly Choice[]): Choice | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const choice = choices.find((known) => known === text);
    if (choice === undefined) throw invalidInput(`--${name} takes ${choices.join(', ')}; not '${text}'.`);
    return choice;
  }

  backend(): BackendChoice {
    return this.oneOf('backend', backendChoices) ?? 'auto';
  }

  cachePrecision(): CachePrecision | undefined {
    return this.oneOf('cache-precision', cachePrecisions);
  }

  /** The only positional argument. */
  only(what: string): string {
    const [first, second] = this.positionals;
    if (first === undefined) throw invalidInput(`${what} is missing.`);
    if (second !== undefined) throw invalidInput(`'${second}' is one argument too many.`);
    return first;
  }

  none(): void {
    const [first] = this.positionals;
    if (first !== undefined) throw invalidInput(`'${first}' is one argument too many.`);
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
    // parseArgs says which option is wrong; its advice on escaping would be a second line.
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
