/** Python's values, as far as templates see them. Whole numbers are JavaScript's numbers, lists its arrays. */
import { type HearthError, invalidInput } from '../../../errors.ts';
import { limits } from '../../../limits.ts';

// What a rendering may take. Templates come with a checkpoint and are as trustworthy as it is: one may loop for ever,
// double a text until memory ends, or call itself. Steps count work, to which every value adds by its size; what makes
// much of little (`range`, `*`, `replace`, indents) asks for its length before it is made. All of it grows with what
// the template is given, and none of it depends on the machine.

/** The template is no Jinja, or does what Python would raise an exception for. The message is shown to the user. */
export class TemplateError extends Error {}

const { templateSteps, templateStepsOfMessage, templateDepth, templateOutputChars, templateItems } = limits.text;
/** A step is worth so many characters or items. */
const sizeOfStep = 64;

export function tooMuch(what: string): HearthError {
  return invalidInput(`The model's chat template takes ${what}, so it was stopped.`);
}

export class Budget {
  readonly #maxChars: number;
  #stepsLeft: number;
  #depth = 0;

  /** `givenChars`: of all that the template is given, `messages` among it. */
  constructor(givenChars: number, messages = 0) {
    this.#stepsLeft = templateSteps + messages * templateStepsOfMessage + givenChars;
    this.#maxChars = templateOutputChars + 2 * givenChars;
  }

  spend(steps: number): void {
    this.#stepsLeft -= steps;
    if (!(this.#stepsLeft >= 0)) throw tooMuch('too many steps');
  }

  /** For a text of so many characters that is about to be made or read through. */
  spendChars(characters: number): void {
    if (!(characters <= this.#maxChars)) throw tooMuch(`more than ${this.#maxChars} characters`);
    this.spend(characters / sizeOfStep);
  }

  /** For a list of so many items. */
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

/** Keys are compared as Python does for what templates use: texts, whole numbers, none, booleans. */
export class Dict {
  readonly entries: ReadonlyMap<Value, Value>;
  constructor(entries: ReadonlyMap<Value, Value>) {
    this.entries = entries;
  }
}

/** What `range`, `d.keys()`, `d.items()` give: it has a length, and may be gone through again. */
export class View {
  readonly label: string;
  readonly items: readonly Value[];
  constructor(label: 'range' | 'dict_keys' | 'dict_values' | 'dict_items', items: readonly Value[]) {
    this.label = label;
    this.items = items;
  }
}

/** What filters as `map` give: it is true even if empty, has no length, and is gone through once. */
export class Generator {
  readonly #items: readonly Value[];
  #at = 0;
  constructor(items: readonly Value[]) {
    this.#items = items;
  }
  /** What is left. */
  take(): readonly Value[] {
    const items = this.#items.slice(this.#at);
    this.#at = this.#items.length;
    return items;
  }
  next(): Value | undefined {
    return this.#items[this.#at++];
  }
}

/** What has members that change: `namespace()`, and a loop's `loop`. */
export class Namespace {
  #members: Map<string, Value> | undefined;
  readonly #make: () => Map<string, Value>;
  readonly label: 'Namespace' | 'LoopContext';
  /** `loop(items)`, in a recursive loop. */
  readonly call: Callable | undefined;
  /** `make`: called once, when a member is asked for; most loops ask for none. */
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

/** What is not there. It prints as nothing, is empty, and fails when it is used for more. */
export class Undefined {
  readonly what: string;
  constructor(what: string) {
    this.what = what;
  }
  get error(): TemplateError {
    return new TemplateError(this.what);
  }
}

/** Values from outside; a number with a fraction is a float. `undefined` members are left out. */
export function toValue(value: unknown): Value {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isInteger(value) ? value : new Float(value);
  if (Array.isArray(value)) return value.map(toValue);
  if (typeof value !== 'object') return new Undefined('a value of no kind that templates know');
  if (value instanceof Callable) return value;
  const entries = Object.entries(value).filter(([, member]) => member !== undefined);
  return new Dict(new Map(entries.map(([name, member]) => [name, toValue(member)])));
}

/** `??` would take none, which is a value, for nothing. */
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

/** Of lists, tuples and views. */
export function itemsOf(value: Value): readonly Value[] | undefined {
  if (value instanceof Tuple || value instanceof View) return value.items;
  return isList(value) ? value : undefined;
}

export const isList = (value: Value): value is readonly Value[] => Array.isArray(value);

/** What a loop goes through, texts by code points. None is taken for empty, which Python refuses. */
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

/** A text as its code points; without pairs of surrogates it is that itself. */
export const characters = (text: string): string | readonly string[] => (surrogates.test(text) ? [...text] : text);

/** The number in booleans, whole numbers and floats. */
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

/** Below 0: `left` comes first. Texts by code points. @throws TemplateError for what Python does not order. */
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

/** JavaScript compares UTF-16, in which the rare planes come before U+E000. */
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
