/** Jinja's tests: `x is defined`. */
import { TemplateError } from './errors.ts';
import { isSequence } from './itemFilters.ts';
import { str } from './printing.ts';
import type { Runtime } from './runtime.ts';
import {
  Callable,
  compare,
  Dict,
  equals,
  Float,
  Generator,
  iterate,
  numberOf,
  Undefined,
  type Value,
} from './values.ts';

type Test = (value: Value, args: readonly Value[], runtime: Runtime) => boolean;

export function applyTest(name: string, value: Value, args: readonly Value[], runtime: Runtime): boolean {
  const test = Object.hasOwn(tests, name) ? tests[name] : undefined;
  if (test === undefined) throw new TemplateError(`No test named '${name}'.`);
  return test(value, args, runtime);
}

/** `item in container` */
export function contains(container: Value, item: Value, { budget }: Runtime): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item);
    throw new TemplateError("'in <string>' requires string as left operand");
  }
  if (container instanceof Dict) return container.entries.has(item);
  if (container === null) throw new TemplateError("argument of type 'NoneType' is not iterable");
  return iterate(container).some((one) => equals(one, item, budget));
}

const ordered =
  (holds: (order: number) => boolean): Test =>
  (value, [other = null], { budget }) =>
    holds(compare(value, other, budget));
const equal: Test = (value, [other = null], { budget }) => equals(value, other, budget);
const unequal: Test = (...given) => !equal(...given);
const [above, below] = [ordered((order) => order > 0), ordered((order) => order < 0)];
const [least, most] = [ordered((order) => order >= 0), ordered((order) => order <= 0)];

function remainder(value: Value, by: Value): number {
  const [a, b] = [numberOf(value), numberOf(by)];
  if (a === undefined || b === undefined) throw new TemplateError('a number is wanted');
  return Math.abs(a % b);
}

const isInteger: Test = (value) => typeof value === 'number';
const tests: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === 'boolean',
  callable: (value) => value instanceof Callable,
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, [by = 0]) => remainder(value, by) === 0,
  even: (value) => remainder(value, 2) === 0,
  odd: (value) => remainder(value, 2) === 1,
  escaped: () => false,
  false: (value) => value === false,
  true: (value) => value === true,
  float: (value) => value instanceof Float,
  integer: isInteger,
  number: (value) => numberOf(value) !== undefined,
  in: (value, [container = null], runtime) => contains(container, value, runtime),
  iterable: (value) => value instanceof Undefined || value instanceof Generator || isSequence(value),
  lower: (value, _args, { budget }) => isCased(str(value, budget), (text) => text.toLowerCase()),
  upper: (value, _args, { budget }) => isCased(str(value, budget), (text) => text.toUpperCase()),
  mapping: (value) => value instanceof Dict,
  none: (value) => value === null,
  sameas: (value, [other = null]) => value === other,
  sequence: (value) => value instanceof Undefined || isSequence(value),
  string: (value) => typeof value === 'string',
  undefined: (value) => value instanceof Undefined,
  ...{ '==': equal, eq: equal, equalto: equal },
  ...{ '!=': unequal, ne: unequal },
  ...{ '>': above, gt: above, greaterthan: above, '<': below, lt: below, lessthan: below },
  ...{ '>=': least, ge: least, '<=': most, le: most },
};

const isCased = (text: string, change: (text: string) => string): boolean =>
  text === change(text) && text.toLowerCase() !== text.toUpperCase();
