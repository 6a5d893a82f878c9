/** Python's operators, subscripts and slices. */
import type { Runtime } from './arguments.ts';
import type { Expression } from './expressions.ts';
import { isSequence } from './filters.ts';
import { percentFormat, str } from './printing.ts';
import {
  type Budget,
  Callable,
  characters,
  codePoints,
  compare,
  Dict,
  equals,
  Float,
  Generator,
  isList,
  itemsOf,
  iterate,
  numberOf,
  TemplateError,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

type Arithmetic = Exclude<Extract<Expression, { kind: 'binary' }>['operator'], 'and' | 'or'>;

export function arithmetic(operator: Arithmetic, left: Value, right: Value, budget: Budget): Value {
  for (const value of [left, right]) if (value instanceof Undefined) throw value.error;
  const [a, b] = [numberOf(left), numberOf(right)];
  if (a !== undefined && b !== undefined) {
    const result = compute(operator, a, b);
    const isFloat = left instanceof Float || right instanceof Float || operator === '/' || !Number.isInteger(result);
    return isFloat ? new Float(result) : result;
  }
  if (operator === '%' && typeof left === 'string') return percentFormat(left, right, budget);
  const made =
    operator === '+' ? joined(left, right, budget) : operator === '*' ? multiplied(left, right, budget) : undefined;
  if (made !== undefined) return made;
  throw new TemplateError(`unsupported operand types for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
}

function compute(operator: Arithmetic, a: number, b: number): number {
  if (b === 0 && (operator === '/' || operator === '//' || operator === '%'))
    throw new TemplateError('division by zero');
  switch (operator) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
      return a / b;
    case '//':
      return Math.floor(a / b);
    case '%':
      return a - b * Math.floor(a / b);
    case '**': {
      const power = a ** b;
      if (!Number.isFinite(power)) throw new TemplateError('the result of ** is too large');
      return power;
    }
  }
}

function joined(left: Value, right: Value, budget: Budget): Value | undefined {
  if (typeof left === 'string' && typeof right === 'string') {
    budget.spendChars(left.length + right.length);
    return left + right;
  }
  if (left instanceof Tuple && right instanceof Tuple) {
    budget.spendItems(left.items.length + right.items.length);
    return new Tuple([...left.items, ...right.items]);
  }
  if (!isList(left) || !isList(right)) return undefined;
  budget.spendItems(left.length + right.length);
  return [...left, ...right];
}

function multiplied(left: Value, right: Value, budget: Budget): Value | undefined {
  const [what, times] = typeof right === 'number' || typeof right === 'boolean' ? [left, right] : [right, left];
  if (typeof times !== 'number' && typeof times !== 'boolean') return undefined;
  const count = Math.max(0, Number(times));
  if (typeof what === 'string') {
    budget.spendChars(what.length * count);
    return what.repeat(count);
  }
  const items = what instanceof Tuple ? what.items : isList(what) ? what : undefined;
  if (items === undefined) return undefined;
  budget.spendItems(items.length * count);
  const repeated = Array.from({ length: count }, () => items).flat();
  return what instanceof Tuple ? new Tuple(repeated) : repeated;
}

/** `value[index]` of a string or list; undefined if out of range. */
export function itemAt(value: Value, index: number): Value | undefined {
  if (typeof value !== 'string') return itemsOf(value)?.at(index);
  const all = characters(value);
  return typeof all === 'string' ? all.at(index) : all.at(index);
}

/** `value[start:stop:step]` */
export function slice(value: Value, bounds: readonly (Value | undefined)[], budget: Budget): Value {
  if (value instanceof Undefined) throw value.error;
  const items = typeof value === 'string' ? characters(value) : itemsOf(value);
  if (items === undefined) throw new TemplateError(`'${typeName(value)}' object is not subscriptable`);
  const length = typeof value === 'string' ? codePoints(value) : items.length;
  const [start, stop, step = 1] = bounds.map(boundOf);
  if (step === 0) throw new TemplateError('slice step cannot be zero');
  const clamp = (at: number): number => {
    const from = at < 0 ? at + length : at;
    return step > 0 ? Math.min(length, Math.max(0, from)) : Math.min(length - 1, Math.max(-1, from));
  };
  const first = start === undefined ? (step > 0 ? 0 : length - 1) : clamp(start);
  const end = stop === undefined ? (step > 0 ? length : -1) : clamp(stop);
  budget.spend(Math.max(0, (end - first) / step) / 8);
  if (step === 1 && typeof items === 'string') return items.slice(first, Math.max(first, end));
  const taken: Value[] = [];
  for (let at = first; step > 0 ? at < end : at > end; at += step) taken.push(items[at] ?? null);
  if (typeof value === 'string') return taken.join('');
  return value instanceof Tuple ? new Tuple(taken) : taken;
}

function boundOf(bound: Value | undefined): number | undefined {
  if (bound === undefined || bound === null) return undefined;
  if (typeof bound === 'number') return bound;
  throw bound instanceof Undefined ? bound.error : new TemplateError('slice indices must be integers or None');
}

// Jinja's tests: `x is defined`.

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
