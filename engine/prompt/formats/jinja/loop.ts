/** `for`, and the `loop` variable. */

import type { Statement } from './expressions.ts';
import type { Interpreter, Jump } from './interpreter.ts';
import { Callable, equals, iterate, Namespace, orElse, Tuple, truth, Undefined, type Value } from './values.ts';

/** Variables by name. Assignments in an inner scope are invisible to outer ones. */
export class Scope {
  readonly #parent: Scope | undefined;
  readonly #names: Map<string, Value>;

  constructor(parent: Scope | undefined, names: ReadonlyMap<string, Value> = new Map()) {
    this.#parent = parent;
    this.#names = new Map(names);
  }

  get(name: string): Value | undefined {
    const own = this.#names.get(name);
    return own === undefined ? this.#parent?.get(name) : own;
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

type For = Extract<Statement, { kind: 'for' }>;

/** `captured`: runs work and returns its output. */
export function loopOver(
  interpreter: Interpreter,
  statement: For,
  scope: Scope,
  captured: (loop: () => unknown) => string,
): Jump {
  const runAt = (iterable: Value, depth: number): Jump => {
    const again = new Callable('loop', ([inner = null]) => captured(() => runAt(inner, depth + 1)));
    return new Loop(interpreter, statement, scope, depth, statement.recursive ? again : undefined).run(iterable);
  };
  return runAt(interpreter.evaluate(statement.iterable, scope), 1);
}

class Loop {
  readonly #interpreter: Interpreter;
  readonly #statement: For;
  readonly #scope: Scope;
  readonly #depth: number;
  readonly #again: Callable | undefined;
  /** The last argument of `loop.changed`. */
  #seen: Value | undefined;

  constructor(interpreter: Interpreter, statement: For, scope: Scope, depth: number, again: Callable | undefined) {
    this.#interpreter = interpreter;
    this.#statement = statement;
    this.#scope = scope;
    this.#depth = depth;
    this.#again = again;
  }

  run(iterable: Value): Jump {
    const items = this.#chosen(iterate(iterable));
    for (const [index, item] of items.entries()) {
      this.#interpreter.budget.spend(1);
      const inner = new Scope(this.#scope);
      inner.set('loop', this.#context(items, index));
      this.#interpreter.assign(this.#statement.target, item, inner);
      const jump = this.#interpreter.execute(this.#statement.body, inner);
      if (jump === 'break') break;
    }
    return items.length === 0
      ? this.#interpreter.execute(this.#statement.otherwise, new Scope(this.#scope))
      : undefined;
  }

  #chosen(items: readonly Value[]): readonly Value[] {
    const { test, target } = this.#statement;
    this.#interpreter.budget.spendItems(items.length);
    if (test === undefined) return items;
    return items.filter((item) => {
      const inner = new Scope(this.#scope);
      this.#interpreter.assign(target, item, inner);
      return truth(this.#interpreter.evaluate(test, inner));
    });
  }

  #context(items: readonly Value[], index: number): Namespace {
    return new Namespace(() => this.#members(items, index), 'LoopContext', this.#again);
  }

  #members(items: readonly Value[], index: number): Map<string, Value> {
    const { length } = items;
    const outside = (which: string) => new Undefined(`there is no ${which} item`);
    return new Map<string, Value>([
      ['index', index + 1],
      ['index0', index],
      ['revindex', length - index],
      ['revindex0', length - index - 1],
      ['first', index === 0],
      ['last', index === length - 1],
      ['length', length],
      ['depth', this.#depth],
      ['depth0', this.#depth - 1],
      ['previtem', orElse(items[index - 1], () => outside('previous'))],
      ['nextitem', orElse(items[index + 1], () => outside('next'))],
      ['cycle', new Callable('cycle', (values) => orElse(values[index % values.length], () => outside('such')))],
      ['changed', new Callable('changed', (values) => this.#changed(new Tuple(values)))],
    ]);
  }

  #changed(value: Value): boolean {
    const same = this.#seen !== undefined && equals(this.#seen, value, this.#interpreter.budget);
    this.#seen = value;
    return !same;
  }
}
