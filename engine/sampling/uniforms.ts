/** Random numbers that may be looked at before they are used: the same ones in the same order as without looking. */
export class Uniforms {
  readonly #random: () => number;
  #ahead: number[] = [];

  /** `random`: uniform in [0, 1). */
  constructor(random: () => number) {
    this.#random = random;
  }

  next(): number {
    return this.#ahead.shift() ?? this.#random();
  }

  peek(count: number): number[] {
    while (this.#ahead.length < count) this.#ahead.push(this.#random());
    return this.#ahead.slice(0, count);
  }

  skip(count: number): void {
    this.#ahead.splice(0, count);
  }
}
