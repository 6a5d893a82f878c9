/** What filters and tests are to the interpreter, and it to them. */
import type { Bound } from './arguments.ts';
import type { Budget } from './budget.ts';
import type { Value } from './values.ts';

/** What filters need of the interpreter. */
export interface Runtime {
  readonly budget: Budget;
  /** `object.name`, and `object[name]` where `isItem` */
  lookUp(object: Value, name: Value, isItem: boolean): Value;
  filter(name: string, value: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value;
  test(name: string, value: Value, positional: readonly Value[]): boolean;
}

/** `parameters`: by which arguments are bound; undefined: the filter takes them as they are. */
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
