/** Binds the arguments of filters, tests and methods to parameters like Python. */

import { str } from './printing.ts';
import { type Budget, numberOf, TemplateError, truth, Undefined, type Value } from './values.ts';

export class Bound {
  readonly #values: ReadonlyMap<string, Value>;
  readonly #budget: Budget;

  constructor(values: ReadonlyMap<string, Value>, budget: Budget) {
    this.#values = values;
    this.#budget = budget;
  }

  /** Undefined if the argument is absent or none. */
  get(name: string): Value | undefined {
    const value = this.#values.get(name);
    return value === null ? undefined : value;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string, fallback = ''): string {
    const value = this.get(name);
    return value === undefined ? fallback : str(value, this.#budget);
  }

  /** @throws TemplateError if the argument isn't a string, which Python's methods require. */
  pureText(name: string): string {
    const value = this.#values.get(name);
    if (typeof value !== 'string')
      throw value instanceof Undefined ? value.error : new TemplateError(`${name} must be str`);
    return value;
  }

  integer(name: string, fallback: number): number {
    const value = this.get(name);
    if (value === undefined) return fallback;
    const number = numberOf(value);
    if (number === undefined || !Number.isInteger(number)) throw new TemplateError(`${name} must be an integer`);
    return number;
  }

  flag(name: string, fallback = false): boolean {
    const value = this.#values.get(name);
    return value === undefined ? fallback : truth(value);
  }
}

/** @throws TemplateError for arguments without a parameter. */
export function bind(
  what: string,
  parameters: readonly string[],
  positional: readonly Value[],
  named: ReadonlyMap<string, Value>,
  budget: Budget,
): Bound {
  if (positional.length > parameters.length) {
    throw new TemplateError(`${what}() takes ${parameters.length} arguments but ${positional.length} were given`);
  }
  const values = new Map<string, Value>();
  for (const [index, value] of positional.entries()) values.set(parameters[index] ?? '', value);
  for (const [name, value] of named) {
    if (!parameters.includes(name) || values.has(name)) {
      throw new TemplateError(`${what}() got an unexpected keyword argument '${name}'`);
    }
    values.set(name, value);
  }
  return new Bound(values, budget);
}

// The interface between the interpreter and its filters and tests.

/** The part of the interpreter that filters use. */
export interface Runtime {
  readonly budget: Budget;
  /** `object.name`, or `object[name]` if `isItem` */
  lookUp(object: Value, name: Value, isItem: boolean): Value;
  filter(name: string, value: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value;
  test(name: string, value: Value, positional: readonly Value[]): boolean;
}

/** `parameters`: names to bind arguments to; undefined: the filter takes them unbound. */
export interface Filter {
  readonly parameters: readonly string[] | undefined;
  readonly run: (value: Value, args: Bound, runtime: Runtime, given: Given) => Value;
}
export interface Given {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

export const filter = (parameters: string | undefined, run: Filter['run']): Filter => ({
  parameters: parameters?.split(' ').filter((name) => name !== ''),
  run,
});
