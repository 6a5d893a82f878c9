/**
 * xoshiro128** 1.1 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021,
 * https://prng.di.unimi.it/xoshiro128starstar.c). Its authors advise to seed it with splitmix64.
 */

const mask64 = (1n << 64n) - 1n;

/** Vigna's splitmix64 (https://prng.di.unimi.it/splitmix64.c). */
export function splitmix64(seed: bigint): () => bigint {
  let state = seed & mask64;
  return () => {
    state = (state + 0x9e3779b97f4a7c15n) & mask64;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask64;
    return z ^ (z >> 31n);
  };
}

const rotateLeft = (x: number, bits: number): number => (x << bits) | (x >>> (32 - bits));

/** Successive 32-bit outputs from a state that is not all zero. */
export function xoshiro128StarStar(state: readonly [number, number, number, number]): () => number {
  let [s0, s1, s2, s3] = state;
  return () => {
    const result = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0;
    const t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = rotateLeft(s3, 11);
    return result;
  };
}

/** Uniform numbers in [0, 1) with 53 bits, deterministic for a seed. */
export function seededRandom(seed: number): () => number {
  const words = splitmix64(BigInt(Math.trunc(seed)));
  const [low, high] = [words(), words()];
  const next = xoshiro128StarStar([
    Number(low & 0xffffffffn),
    Number(low >> 32n),
    Number(high & 0xffffffffn),
    Number(high >> 32n),
  ]);
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) * 2 ** -53;
}

/** Random numbers with a look-ahead that changes neither their values nor their order. */
export class Uniforms {
  readonly #random: () => number;
  #ahead: number[] = [];

  /** @param random uniform in [0, 1). */
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
