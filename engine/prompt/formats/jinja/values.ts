/** Python's values as templates see them. Integers are JavaScript numbers, lists are arrays. */
import { type HearthError, invalidInput } from '../../../errors.ts';
import { limits } from '../../../limits.ts';

// Limits of a rendering. Templates come with a checkpoint and are untrusted: one may loop forever, double a string until
// memory runs out, or call itself. Steps count work; every value adds its size. Operations that expand (`range`, `*`,
// `replace`, indents) are charged before they allocate. The limits grow with the template's input and don't depend on
// the machine.

/** The template isn't valid Jinja, or Python would raise an exception. The message is shown to the user. */
export class TemplateError extends Error {}

const { templateSteps, templateStepsOfMessage, templateDepth, templateOutputChars, templateItems } = limits.text;
/** Characters or items per step. */
const sizeOfStep = 64;

export function tooMuch(what: string): HearthError {
  return invalidInput(`The model's chat template takes ${what}, so it was stopped.`);
}

export class Budget {
  readonly #maxChars: number;
  #stepsLeft: number;
  #depth = 0;

  /** `givenChars`: characters of the whole input, `messages` included. */
  constructor(givenChars: number, messages = 0) {
    this.#stepsLeft = templateSteps + messages * templateStepsOfMessage + givenChars;
    this.#maxChars = templateOutputChars + 2 * givenChars;
  }

  spend(steps: number): void {
    this.#stepsLeft -= steps;
    if (!(this.#stepsLeft >= 0)) throw tooMuch('too many steps');
  }

  /** Call before a string of this many characters is created or scanned. */
  spendChars(characters: number): void {
    if (!(characters <= this.#maxChars)) throw tooMuch(`more than ${this.#maxChars} characters`);
    this.spend(characters / sizeOfStep);
  }

  /** Call before a list of this many items is created. */
  spendItems(items: number): void {
    if (!(items <= templateItems)) throw tooMuch(`a list of more than ${templateItems} items`);
    this.spend(items / sizeOfStep);
  }

  nested<Result>(work: () => Result): Result {
    if (++this.#depth > templateDepth) throw tooMuch(`more than ${templateDepth} levels`);
    try {
      return work();
    } finally {
      this.#depth -= 1;
    }
  }
}

export type Value =
  | string
  | number
  | boolean
  | null
  | readonly Value[]
  | Float
  | Tuple
  | Dict
  | View
  | Generator
  | Namespace
  | Callable
  | Undefined;

/** A number that Python would print with a fraction. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** Keys compare like in Python for the types that templates use: strings, integers, none, booleans. */
export class Dict {
  readonly entries: ReadonlyMap<Value, Value>;
  constructor(entries: ReadonlyMap<Value, Value>) {
    this.entries = entries;
  }
}

/** The result of `range`, `d.keys()`, `d.items()`: has a length and can be iterated again. */
export class View {
  readonly label: string;
  readonly items: readonly Value[];
  constructor(label: 'range' | 'dict_keys' | 'dict_values' | 'dict_items', items: readonly Value[]) {
    this.label = label;
    this.items = items;
  }
}

/** The result of filters like `map`: true even if empty, without length, iterated once. */
export class Generator {
  readonly #items: readonly Value[];
  #at = 0;
  constructor(items: readonly Value[]) {
    this.#items = items;
  }
  /** The remaining items. */
  take(): readonly Value[] {
    const items = this.#items.slice(this.#at);
    this.#at = this.#items.length;
    return items;
  }
  next(): Value | undefined {
    return this.#items[this.#at++];
  }
}

/** Objects with mutable members: `namespace()` and `loop`. */
export class Namespace {
  #members: Map<string, Value> | undefined;
  readonly #make: () => Map<string, Value>;
  readonly label: 'Namespace' | 'LoopContext';
  /** `loop(items)`, in a recursive loop. */
  readonly call: Callable | undefined;
  /** `make`: called once, on first access; most loops never access it. */
  constructor(make: () => Map<string, Value>, label: Namespace['label'] = 'Namespace', call?: Callable) {
    this.#make = make;
    this.label = label;
    this.call = call;
  }

  get members(): Map<string, Value> {
    this.#members ??= this.#make();
    return this.#members;
  }
}

export class Callable {
  readonly name: string;
  readonly call: (positional: readonly Value[], named: ReadonlyMap<string, Value>) => Value;
  constructor(name: string, call: Callable['call']) {
    this.name = name;
    this.call = call;
  }
}

/** A missing value. Prints as nothing, is empty, and fails on any other use. */
export class Undefined {
  readonly what: string;
  constructor(what: string) {
    this.what = what;
  }
  get error(): TemplateError {
    return new TemplateError(this.what);
  }
}

/** Converts input values; a number with a fraction is a float. Omits `undefined` members. */
export function toValue(value: unknown): Value {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isInteger(value) ? value : new Float(value);
  if (Array.isArray(value)) return value.map(toValue);
  if (typeof value !== 'object') return new Undefined('a value of no kind that templates know');
  if (value instanceof Callable) return value;
  const entries = Object.entries(value).filter(([, member]) => member !== undefined);
  return new Dict(new Map(entries.map(([name, member]) => [name, toValue(member)])));
}

/** `??` would treat none, which is a value, as missing. */
export const orElse = (value: Value | undefined, instead: () => Value): Value =>
  value === undefined ? instead() : value;

export function truth(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value !== 'object') return Boolean(value);
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Dict) return value.entries.size > 0;
  const items = itemsOf(value);
  return items === undefined || items.length > 0;
}

/** Items of lists, tuples and views. */
export function itemsOf(value: Value): readonly Value[] | undefined {
  if (value instanceof Tuple || value instanceof View) return value.items;
  return isList(value) ? value : undefined;
}

export const isList = (value: Value): value is readonly Value[] => Array.isArray(value);

/** The items that a loop iterates; strings by code points. Treats none as empty, which Python refuses. */
export function iterate(value: Value): readonly Value[] {
  if (value === null || value instanceof Undefined) return [];
  if (typeof value === 'string') return [...value];
  if (value instanceof Dict) return [...value.entries.keys()];
  if (value instanceof Generator) return value.take();
  const items = itemsOf(value);
  if (items === undefined) throw new TemplateError(`'${typeName(value)}' object is not iterable`);
  return items;
}

export function lengthOf(value: Value): number {
  if (value === null || value instanceof Undefined) return 0;
  if (typeof value === 'string') return codePoints(value);
  if (value instanceof Dict) return value.entries.size;
  const items = itemsOf(value);
  if (items === undefined) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return items.length;
}

const surrogates = /[\ud800-\udfff]/;

export function codePoints(text: string): number {
  if (!surrogates.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** The code points of a string; the string itself if it has no surrogate pairs. */
export const characters = (text: string): string | readonly string[] => (surrogates.test(text) ? [...text] : text);

/** The number of a boolean, integer or float. */
export function numberOf(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (value instanceof Float) return 'float';
  if (value instanceof Dict) return 'dict';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof View || value instanceof Namespace) return value.label;
  if (value instanceof Generator) return 'generator';
  if (value instanceof Callable) return 'function';
  return value instanceof Undefined ? 'Undefined' : 'list';
}

export function equals(left: Value, right: Value, budget: Budget): boolean {
  budget.spend(1);
  const [a, b] = [numberOf(left), numberOf(right)];
  if (a !== undefined || b !== undefined) return a === b;
  if (left === right) return true;
  if (left instanceof Undefined) return right instanceof Undefined;
  if (left instanceof Dict && right instanceof Dict) {
    if (left.entries.size !== right.entries.size) return false;
    return [...left.entries].every(([key, item]) => {
      const other = right.entries.get(key);
      return other !== undefined && budget.nested(() => equals(item, other, budget));
    });
  }
  if (typeName(left) !== typeName(right)) return false;
  const [items, others] = [itemsOf(left), itemsOf(right)];
  if (items === undefined || others === undefined || items.length !== others.length) return false;
  return items.every((item, index) => budget.nested(() => equals(item, others[index] ?? null, budget)));
}

/** Negative: `left` comes first. Strings compare by code points. @throws TemplateError if Python can't order them. */
export function compare(left: Value, right: Value, budget: Budget): number {
  budget.spend(1);
  const [a, b] = [numberOf(left), numberOf(right)];
  if (a !== undefined && b !== undefined) return a - b;
  if (typeof left === 'string' && typeof right === 'string') return compareTexts(left, right);
  for (const value of [left, right]) if (value instanceof Undefined) throw value.error;
  const [items, others] = [itemsOf(left), itemsOf(right)];
  if (items === undefined || others === undefined || typeName(left) !== typeName(right)) {
    throw new TemplateError(`'<' not supported between instances of '${typeName(left)}' and '${typeName(right)}'`);
  }
  for (const [index, item] of items.entries()) {
    const other = others[index];
    if (other === undefined) return 1;
    if (!equals(item, other, budget)) return budget.nested(() => compare(item, other, budget));
  }
  return items.length - others.length;
}

/** JavaScript compares UTF-16, where supplementary planes sort before U+E000. */
function compareTexts(left: string, right: string): number {
  if (!surrogates.test(left) && !surrogates.test(right)) return left < right ? -1 : Number(left > right);
  const [a, b] = [[...left], [...right]];
  for (const [index, char] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    if (char !== other) return (char.codePointAt(0) ?? 0) - (other.codePointAt(0) ?? 0);
  }
  return a.length - b.length;
}
