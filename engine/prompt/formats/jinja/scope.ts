import type { Value } from './values.ts';

/** Names and what they stand for; what an inner scope sets, an outer one does not see. */
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
