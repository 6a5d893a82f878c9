/** Texts of a length, in code points, that an automaton takes. Lengths are counted beside it, which keeps it small. */
import { Dfa } from './dfa.ts';
import { countSteps, GrammarLimit, invalidSchema } from './refusals.ts';

const maxTable = 8_000_000;
/** Cells that take as long as one step elsewhere. */
const cellsPerStep = 16;

export class TextSet {
  readonly dfa: Dfa;
  readonly min: number;
  readonly max: number;
  /** `[count][state]`: a text of the set begins so. Made when it is first needed. */
  #alive: Uint8Array | undefined;

  private constructor(dfa: Dfa, min: number, max: number) {
    this.dfa = dfa;
    this.min = min;
    this.max = max;
  }

  static readonly any = new TextSet(Dfa.always, 0, Number.POSITIVE_INFINITY);

  static of(dfa: Dfa, min = 0, max = Number.POSITIVE_INFINITY): TextSet {
    return dfa.isAll && min === 0 && max === Number.POSITIVE_INFINITY ? TextSet.any : new TextSet(dfa, min, max);
  }

  get key(): string {
    return `${this.dfa.id},${this.min},${this.max}`;
  }

  get isAll(): boolean {
    return this === TextSet.any;
  }

  and(other: TextSet): TextSet {
    return TextSet.of(this.dfa.and(other.dfa), Math.max(this.min, other.min), Math.min(this.max, other.max));
  }

  /** What is in none of these, as sets whose union it is. */
  complement(): readonly TextSet[] {
    const others = Dfa.always.without(this.dfa);
    return [
      ...(others.isEmpty ? [] : [TextSet.of(others)]),
      ...(this.min > 0 ? [TextSet.of(Dfa.always, 0, this.min - 1)] : []),
      ...(this.max < Number.POSITIVE_INFINITY ? [TextSet.of(Dfa.always, this.max + 1)] : []),
    ];
  }

  /** Counts beyond are all alike. */
  get #counted(): number {
    return this.max < Number.POSITIVE_INFINITY ? this.max : this.min;
  }

  /** One more code point was written. */
  counted(count: number): number {
    return this.max < Number.POSITIVE_INFINITY ? count + 1 : Math.min(count + 1, this.min);
  }

  ends(state: number, count: number): boolean {
    return this.dfa.accepts[state] === true && count >= this.min && count <= this.max;
  }

  /** A text of the set begins with `count` code points that lead to `state`. */
  leads(state: number, count: number): boolean {
    if (count > this.max || this.min > this.max || this.dfa.isEmpty) return false;
    if (this.dfa.isAll || (this.min === 0 && this.max === Number.POSITIVE_INFINITY)) return true;
    this.#alive ??= this.#table();
    return this.#alive[Math.max(0, count - this.#spare) * this.dfa.edges.length + state] === 1;
  }

  /** Counts from 0 on that are alike: with as many code points left as there are states, every state can still end. */
  get #spare(): number {
    const isLong = this.min === 0 && this.max < Number.POSITIVE_INFINITY;
    return isLong ? Math.max(0, this.max - this.dfa.edges.length) : 0;
  }

  get isEmpty(): boolean {
    return !this.leads(0, 0);
  }

  /** Its texts as an automaton alone. */
  toDfa(): Dfa {
    if (this.min === 0 && this.max === Number.POSITIVE_INFINITY) return this.dfa;
    return Dfa.explore<readonly [number, number]>({
      start: [0, 0],
      key: ([state, count]) => state * (this.#counted + 2) + count,
      accepts: ([state, count]) => this.ends(state, count),
      step: ([state, count]) =>
        count >= this.max
          ? []
          : (this.dfa.edges[state] ?? []).map(({ lo, hi, to }) => ({ lo, hi, to: [to, this.counted(count)] as const })),
    });
  }

  #table(): Uint8Array {
    const { edges, accepts } = this.dfa;
    const last = this.#counted - this.#spare;
    if ((last + 1) * edges.length > maxTable)
      throw new GrammarLimit('steps for a pattern beside minLength or maxLength', maxTable);
    countSteps(((last + 1) * edges.length) / cellsPerStep);
    const alive = new Uint8Array((last + 1) * edges.length);
    const infinite = this.max === Number.POSITIVE_INFINITY;
    for (let count = last; count >= 0; count--) {
      const further = Math.min(count + 1, last);
      for (const [state, own] of edges.entries()) {
        const ends = accepts[state] === true && count >= this.min;
        // With no end to the length, every state leads on from the least length.
        const lives =
          (infinite && count === last) ||
          ends ||
          (count < last && own.some(({ to }) => alive[further * edges.length + to] === 1));
        alive[count * edges.length + state] = lives ? 1 : 0;
      }
    }
    return alive;
  }
}

/** Texts that do not hold the tag, nor a carriage return, which could pretend to be a framing token. */
export function textWithout(tag: string): Dfa {
  const characters = [...tag];
  const codes = [...new Set(characters)].map((character) => character.codePointAt(0) ?? 0).sort((a, b) => a - b);
  if (characters.length === 0) throw invalidSchema('', 'a tag is empty');
  const after = (read: number, code: number): number => {
    const written = [...characters.slice(0, read), String.fromCodePoint(code)].join('');
    for (let length = Math.min(read + 1, characters.length); length > 0; length--)
      if (written.endsWith(characters.slice(0, length).join(''))) return length;
    return 0;
  };
  return Dfa.explore<number>({
    start: 0,
    key: (read) => read,
    accepts: () => true,
    step: (read) => {
      const edges: { lo: number; hi: number; to: number }[] = [];
      let from = 0;
      for (const code of [...codes, 0x0d, 0xd800].sort((a, b) => a - b)) {
        if (from < code) edges.push({ lo: from, hi: code - 1, to: 0 });
        const to = after(read, code);
        if (code < 0xd800 && code !== 0x0d && to < characters.length) edges.push({ lo: code, hi: code, to });
        from = code === 0xd800 ? 0xe000 : code + 1;
      }
      return [...edges, { lo: from, hi: 0x10ffff, to: 0 }];
    },
  });
}
