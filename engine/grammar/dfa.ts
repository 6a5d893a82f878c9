/** Deterministic automata over code points: sets of allowed texts for patterns, numbers and property names. */
import { countSteps, GrammarLimit, invalidSchema } from './schemaDocument.ts';

export interface Edge {
  readonly lo: number;
  readonly hi: number;
  readonly to: number;
}

const lastCodePoint = 0x10ffff;
const maxStates = 20_000;
/** For Unicode classes, which have hundreds of ranges. */
const maxEdges = 500_000;

/** State 0 is the start. Every other state is reachable and leads to an accepting one, so there are no dead ends. */
export class Dfa {
  static #made = 0;
  /** Edges of each state, sorted and disjoint. */
  readonly edges: readonly (readonly Edge[])[];
  readonly accepts: readonly boolean[];
  readonly id = ++Dfa.#made;
  /** Cached products with other automata; schemas need the same ones repeatedly. */
  readonly #joined = new Map<string, Dfa>();

  private constructor(edges: readonly (readonly Edge[])[], accepts: readonly boolean[]) {
    this.edges = edges;
    this.accepts = accepts;
  }

  /**
   * @param step sorted, disjoint edges.
   * @throws GrammarLimit beyond 20,000 states.
   */
  static explore<State>(automaton: {
    readonly start: State;
    readonly key: (state: State) => string | number;
    readonly step: (state: State) => readonly { readonly lo: number; readonly hi: number; readonly to: State }[];
    readonly accepts: (state: State) => boolean;
  }): Dfa {
    const states = [automaton.start];
    const numbers = new Map([[automaton.key(automaton.start), 0]]);
    const edges: Edge[][] = [];
    let count = 0;
    for (let at = 0; at < states.length; at++) {
      const own = automaton.step(states[at] as State).map(({ lo, hi, to }) => {
        const key = automaton.key(to);
        const known = numbers.get(key) ?? states.push(to) - 1;
        numbers.set(key, known);
        return { lo, hi, to: known };
      });
      countSteps(1 + own.length);
      if (states.length > maxStates) throw new GrammarLimit('states of an automaton', maxStates);
      const kept = joined(own);
      count += kept.length;
      if (count > maxEdges) throw new GrammarLimit('ranges of characters', maxEdges);
      edges.push(kept);
    }
    return Dfa.#trimmed(edges, states.map(automaton.accepts));
  }

  static readonly never = new Dfa([[]], [false]);
  /** Any text. A surrogate is not a code point of a text. */
  static readonly always = new Dfa(
    [
      [
        { lo: 0, hi: 0xd7ff, to: 0 },
        { lo: 0xe000, hi: lastCodePoint, to: 0 },
      ],
    ],
    [true],
  );

  static literals(texts: Iterable<string>): Dfa {
    const nodes: { next: Map<number, number>; end: boolean }[] = [{ next: new Map(), end: false }];
    for (const text of texts) {
      let at = 0;
      for (const character of text) {
        const code = character.codePointAt(0) ?? 0;
        const known = nodes[at]?.next.get(code) ?? nodes.push({ next: new Map(), end: false }) - 1;
        nodes[at]?.next.set(code, known);
        at = known;
      }
      const node = nodes[at];
      if (node) node.end = true;
    }
    if (nodes.length > maxStates * 10) throw new GrammarLimit('characters of an enumeration', maxStates * 10);
    const edges = nodes.map(({ next }) =>
      [...next].sort(([a], [b]) => a - b).map(([code, to]) => ({ lo: code, hi: code, to })),
    );
    return Dfa.#trimmed(
      edges,
      nodes.map(({ end }) => end),
    );
  }

  static #trimmed(edges: readonly (readonly Edge[])[], accepts: readonly boolean[]): Dfa {
    const from: number[][] = edges.map(() => []);
    for (const [state, own] of edges.entries()) for (const { to } of own) from[to]?.push(state);
    const live = new Set<number>();
    const open = accepts.flatMap((accepting, state) => (accepting ? [state] : []));
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (live.has(state)) continue;
      live.add(state);
      open.push(...(from[state] ?? []));
    }
    if (!live.has(0)) return Dfa.never;
    const order = [...live].sort((a, b) => a - b);
    const numbers = new Map(order.map((state, number) => [state, number]));
    return new Dfa(
      order.map((state) =>
        (edges[state] ?? []).flatMap(({ lo, hi, to }) => {
          const number = numbers.get(to);
          return number === undefined ? [] : [{ lo, hi, to: number }];
        }),
      ),
      order.map((state) => accepts[state] === true),
    );
  }

  get isEmpty(): boolean {
    return this === Dfa.never;
  }

  get isAll(): boolean {
    return this === Dfa.always;
  }

  and(other: Dfa): Dfa {
    if (this.isAll || other.isEmpty) return other;
    if (other.isAll || this.isEmpty || this === other) return this;
    return this.#combined(other, (own, its) => own && its, 'both');
  }

  or(other: Dfa): Dfa {
    if (this.isAll || other.isEmpty || this === other) return this;
    if (other.isAll || this.isEmpty) return other;
    return this.#combined(other, (own, its) => own || its, 'either');
  }

  without(other: Dfa): Dfa {
    if (this.isEmpty || other.isEmpty) return this;
    if (other.isAll || this === other) return Dfa.never;
    return this.#combined(other, (own, its) => own && !its, 'first');
  }

  /** The state after `code`; `undefined` if no text continues with it. */
  next(state: number, code: number): number | undefined {
    const own = this.edges[state] ?? [];
    let low = 0;
    let high = own.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const edge = own[middle] as Edge;
      if (code < edge.lo) high = middle - 1;
      else if (code > edge.hi) low = middle + 1;
      else return edge.to;
    }
    return undefined;
  }

  /** Whether every character keeps this state. */
  staysAt(state: number): boolean {
    const [first, second, ...more] = this.edges[state] ?? [];
    if (first?.lo !== 0 || first.hi !== 0xd7ff || second?.lo !== 0xe000 || second.hi !== lastCodePoint) return false;
    return more.length === 0 && first.to === state && second.to === state;
  }

  has(text: string): boolean {
    let state: number | undefined = 0;
    for (const character of text) {
      state = this.next(state, character.codePointAt(0) ?? 0);
      if (state === undefined) return false;
    }
    return this.accepts[state] === true;
  }

  /** The number of texts, counted up to `limit`. */
  count(limit: number): number {
    const known = new Map<number, number>();
    const count = (state: number, depth: number): number => {
      // A path longer than the number of states has a cycle; no name reaches the other bound.
      if (depth > Math.min(this.edges.length, 2000)) return limit;
      const before = known.get(state);
      if (before !== undefined) return before;
      let texts = this.accepts[state] ? 1 : 0;
      for (const { lo, hi, to } of this.edges[state] ?? []) {
        texts = Math.min(limit, texts + (hi - lo + 1) * count(to, depth + 1));
        if (texts >= limit) break;
      }
      known.set(state, texts);
      return texts;
    };
    return count(0, 0);
  }

  #combined(other: Dfa, accepts: (own: boolean, its: boolean) => boolean, needs: 'both' | 'either' | 'first'): Dfa {
    const key = `${needs}${other.id}`;
    const known = this.#joined.get(key) ?? this.#product(other, accepts, needs);
    this.#joined.set(key, known);
    return known;
  }

  #product(other: Dfa, accepts: (own: boolean, its: boolean) => boolean, needs: 'both' | 'either' | 'first'): Dfa {
    const dead = -1;
    return Dfa.explore<readonly [number, number]>({
      start: [0, 0],
      key: ([own, its]) => (own + 1) * (other.edges.length + 1) + its + 1,
      accepts: ([own, its]) => accepts(this.accepts[own] === true, other.accepts[its] === true),
      step: ([own, its]) =>
        pairs(this.edges[own] ?? [], other.edges[its] ?? []).flatMap(({ lo, hi, first, second }) =>
          (needs === 'both' && (first === dead || second === dead)) || (needs === 'first' && first === dead)
            ? []
            : [{ lo, hi, to: [first, second] as const }],
        ),
    });
  }
}

/** Splits the ranges of two edge lists at each other's borders; -1: no edge. */
function pairs(
  first: readonly Edge[],
  second: readonly Edge[],
): { lo: number; hi: number; first: number; second: number }[] {
  const cut: { lo: number; hi: number; first: number; second: number }[] = [];
  let i = 0;
  let j = 0;
  let at = 0;
  while (i < first.length || j < second.length) {
    const a = first[i];
    const b = second[j];
    const inA = a !== undefined && a.lo <= at;
    const inB = b !== undefined && b.lo <= at;
    const ends = [a && (inA ? a.hi : a.lo - 1), b && (inB ? b.hi : b.lo - 1)].filter((end) => end !== undefined);
    const hi = Math.min(...ends);
    if (inA || inB) cut.push({ lo: at, hi, first: inA ? a.to : -1, second: inB ? b.to : -1 });
    at = hi + 1;
    if (a && a.hi < at) i++;
    if (b && b.hi < at) j++;
  }
  return cut;
}

function joined(edges: readonly Edge[]): Edge[] {
  const kept: Edge[] = [];
  for (const edge of edges) {
    const last = kept.at(-1);
    if (last && last.to === edge.to && last.hi + 1 === edge.lo) kept[kept.length - 1] = { ...last, hi: edge.hi };
    else kept.push(edge);
  }
  return kept;
}

// Texts that an automaton accepts, with bounds on their length in code points. Counting outside the automaton keeps it small.

const maxTable = 8_000_000;
/** Cells that cost as much as one step elsewhere. */
const cellsPerStep = 16;

export class TextSet {
  readonly dfa: Dfa;
  readonly min: number;
  readonly max: number;
  /** `[count][state]`: whether a text of the set begins like this. Computed on first use. */
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

  /** The complement of all of these, as a union of sets. */
  complement(): readonly TextSet[] {
    const others = Dfa.always.without(this.dfa);
    return [
      ...(others.isEmpty ? [] : [TextSet.of(others)]),
      ...(this.min > 0 ? [TextSet.of(Dfa.always, 0, this.min - 1)] : []),
      ...(this.max < Number.POSITIVE_INFINITY ? [TextSet.of(Dfa.always, this.max + 1)] : []),
    ];
  }

  /** Higher counts are equivalent. */
  get #counted(): number {
    return this.max < Number.POSITIVE_INFINITY ? this.max : this.min;
  }

  /** Counts one more code point. */
  counted(count: number): number {
    return this.max < Number.POSITIVE_INFINITY ? count + 1 : Math.min(count + 1, this.min);
  }

  ends(state: number, count: number): boolean {
    return this.dfa.accepts[state] === true && count >= this.min && count <= this.max;
  }

  /** Whether a text of the set begins with `count` code points that lead to `state`. */
  leads(state: number, count: number): boolean {
    if (count > this.max || this.min > this.max || this.dfa.isEmpty) return false;
    if (this.dfa.isAll || (this.min === 0 && this.max === Number.POSITIVE_INFINITY)) return true;
    this.#alive ??= this.#table();
    return this.#alive[Math.max(0, count - this.#spare) * this.dfa.edges.length + state] === 1;
  }

  /**
   * Number of counts, from 0 on, that are equivalent: while at least as many code points are left as there are states,
   * every state can still end.
   */
  get #spare(): number {
    const isLong = this.min === 0 && this.max < Number.POSITIVE_INFINITY;
    return isLong ? Math.max(0, this.max - this.dfa.edges.length) : 0;
  }

  get isEmpty(): boolean {
    return !this.leads(0, 0);
  }

  /** The same texts as an automaton without a length. */
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
        // Without an upper bound, every state can continue from the minimum length.
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

/** Texts without the tag and without carriage returns, which could imitate a framing token. */
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
