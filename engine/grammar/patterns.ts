/**
 * ECMAScript patterns as automata: a text matches if the pattern is found anywhere in it. refa parses them (classes,
 * flags, Unicode's properties). Assertions are handled here, because refa's automata don't support them.
 */
import {
  type CharSet,
  JS,
  type NoParent,
  type Concatenation as RefaConcatenation,
  type Element as RefaElement,
} from 'refa';
import { Dfa, type Edge } from './dfa.ts';
import { countSteps, GrammarLimit } from './schemaDocument.ts';

type Concatenation = NoParent<RefaConcatenation>;
type Element = NoParent<RefaElement>;

const bounds = { nodes: 20_000, states: 5000, steps: 1_000_000 } as const;

/** @throws SyntaxError if it is not a pattern, GrammarLimit if its automaton is too large. */
export function patternDfa(source: string): Dfa {
  const { alternatives, maxCharacter } = parse(source);
  const work = { steps: 0, nodes: 0 };
  const atoms = new Atoms(maxCharacter);
  const behind: Machine[] = [];
  collectClasses(alternatives, atoms);
  const machine = new Machine(alternatives, 'anywhere', { atoms, behind, work });
  return machine.determinised();
}

function parse(source: string): { alternatives: readonly Concatenation[]; maxCharacter: number } {
  // Inline flags as in Python and PCRE; ECMAScript has flags outside the pattern.
  const [, letters = ''] = /^\(\?([ims]+)\)/.exec(source) ?? [];
  const plain = (letters === '' ? source : source.slice(letters.length + 3)).replaceAll('(?P<', '(?<');
  let failure: unknown;
  for (const unicode of ['u', '']) {
    try {
      const parser = JS.Parser.fromLiteral({ source: plain, flags: unicode + letters });
      const { expression, maxCharacter } = parser.parse({
        assertions: 'parse',
        backreferences: 'throw',
        maxNodes: bounds.nodes,
      });
      return { alternatives: expression.alternatives, maxCharacter };
    } catch (error) {
      failure ??= error;
    }
  }
  throw new SyntaxError(failure instanceof Error ? failure.message : String(failure));
}

/** Classes of characters that the pattern does not distinguish. */
class Atoms {
  readonly #sets = new Map<string, CharSet>();
  readonly #maxCharacter: number;
  #members: ReadonlyMap<string, ReadonlySet<number>> | undefined;
  #ranges: { lo: number; hi: number }[][] = [];

  constructor(maxCharacter: number) {
    this.#maxCharacter = maxCharacter;
  }

  add(set: CharSet): void {
    this.#sets.set(set.toRangesString(), set);
  }

  /** The ranges of each class. */
  get ranges(): readonly (readonly { lo: number; hi: number }[])[] {
    this.#cut();
    return this.#ranges;
  }

  of(set: CharSet): ReadonlySet<number> {
    return this.#cut().get(set.toRangesString()) ?? new Set();
  }

  #cut(): ReadonlyMap<string, ReadonlySet<number>> {
    if (this.#members) return this.#members;
    const sets = [...this.#sets];
    // Borders of each set. Surrogates are not characters of a text.
    const changes = new Map<number, number[]>([0, 0xd800, 0xe000, 0x110000].map((at) => [at, []]));
    for (const [index, [, set]] of sets.entries()) {
      for (const { min, max } of set.ranges) {
        // Without the u flag, the last code unit represents everything after it.
        const end = max === this.#maxCharacter ? 0x110000 : max + 1;
        for (const at of [min, end]) changes.set(at, [...(changes.get(at) ?? []), index]);
      }
    }
    const points = [...changes.keys()].sort((a, b) => a - b);
    const inside = new Set<number>();
    const classes = new Map<string, number>();
    const members = sets.map(() => new Set<number>());
    for (const [i, lo] of points.entries()) {
      for (const index of changes.get(lo) ?? []) if (!inside.delete(index)) inside.add(index);
      const hi = (points[i + 1] ?? 0) - 1;
      if (hi < lo || lo === 0xd800) continue;
      if (lo > 0xd800 && lo < 0xe000) continue;
      const key = [...inside].sort((a, b) => a - b).join();
      const known = classes.get(key) ?? this.#ranges.push([]) - 1;
      classes.set(key, known);
      this.#ranges[known]?.push({ lo, hi });
      for (const index of inside) members[index]?.add(known);
    }
    this.#members = new Map(sets.map(([key], index) => [key, members[index] ?? new Set()]));
    return this.#members;
  }
}

function collectClasses(alternatives: readonly Concatenation[], atoms: Atoms): void {
  for (const { elements } of alternatives) {
    for (const element of elements) {
      if (element.type === 'CharacterClass') atoms.add(element.characters);
      else if (element.type !== 'Unknown') collectClasses(element.alternatives, atoms);
    }
  }
}

interface Context {
  readonly atoms: Atoms;
  /** The look-behinds of the whole pattern. Each one reads the text from its beginning. */
  readonly behind: Machine[];
  readonly work: { steps: number; nodes: number };
}

interface Assertion {
  readonly kind: 'ahead' | 'behind';
  readonly negate: boolean;
  readonly machine: Machine;
  /** Index of a look-behind. */
  readonly index: number;
  readonly to: number;
}

interface PatternNode {
  readonly empty: number[];
  readonly characters: { readonly atoms: ReadonlySet<number>; readonly to: number }[];
  readonly assertions: Assertion[];
}

/** A condition on the rest of the text. */
interface Obligation {
  readonly machine: Machine;
  readonly state: MachineState;
  readonly negate: boolean;
}

interface Thread {
  readonly node: number;
  readonly obligations: readonly Obligation[];
}

interface MachineState {
  readonly id: number;
  readonly threads: readonly Thread[];
  /** State of each look-behind, if this machine tracks them. */
  readonly behind: readonly MachineState[];
  readonly next: (MachineState | undefined)[];
}

/** Nondeterministic: a state is a set of positions in the pattern, each with its conditions on the rest of the text. */
class Machine {
  static #made = 0;
  readonly #id = ++Machine.#made;
  readonly #nodes: PatternNode[] = [];
  readonly #context: Context;
  readonly #start: number;
  readonly #end: number;
  readonly #states = new Map<string, MachineState>();
  /** Anything may follow the end. */
  readonly #open: boolean;

  /** @param where `anywhere` in the text; `ahead`: from its start; `behind`: up to its end. */
  constructor(alternatives: readonly Concatenation[], where: 'anywhere' | 'ahead' | 'behind', context: Context) {
    this.#context = context;
    this.#open = where !== 'behind';
    this.#start = this.#node();
    this.#end = this.#node();
    const first = where === 'ahead' ? this.#start : this.#node();
    if (first !== this.#start) {
      this.#nodes[this.#start]?.empty.push(first);
      this.#nodes[this.#start]?.characters.push({ atoms: this.#all, to: this.#start });
    }
    this.#alternatives(alternatives, first, this.#end);
  }

  get #all(): ReadonlySet<number> {
    return new Set(this.#context.atoms.ranges.keys());
  }

  #node(): number {
    if (++this.#context.work.nodes > bounds.nodes) throw new GrammarLimit('parts of a pattern', bounds.nodes);
    return this.#nodes.push({ empty: [], characters: [], assertions: [] }) - 1;
  }

  #alternatives(alternatives: readonly Concatenation[], from: number, to: number): void {
    for (const { elements } of alternatives) {
      let at = from;
      for (const element of elements) {
        const next = this.#node();
        this.#element(element, at, next);
        at = next;
      }
      this.#nodes[at]?.empty.push(to);
    }
  }

  #element(element: Element, from: number, to: number): void {
    switch (element.type) {
      case 'CharacterClass':
        this.#nodes[from]?.characters.push({ atoms: this.#context.atoms.of(element.characters), to });
        return;
      case 'Alternation':
        this.#alternatives(element.alternatives, from, to);
        return;
      case 'Quantifier':
        this.#repeated(element, from, to);
        return;
      case 'Assertion':
        this.#assertion(element, from, to);
        return;
      case 'Unknown':
        throw new SyntaxError('it has an unknown part');
    }
  }

  #repeated({ alternatives, min, max }: Extract<Element, { type: 'Quantifier' }>, from: number, to: number): void {
    let at = from;
    for (let i = 0; i < min; i++) {
      const next = this.#node();
      this.#alternatives(alternatives, at, next);
      at = next;
    }
    if (max === Number.POSITIVE_INFINITY) {
      const loop = this.#node();
      this.#nodes[at]?.empty.push(loop);
      this.#alternatives(alternatives, loop, loop);
      this.#nodes[loop]?.empty.push(to);
      return;
    }
    for (let i = min; i < max; i++) {
      this.#nodes[at]?.empty.push(to);
      const next = this.#node();
      this.#alternatives(alternatives, at, next);
      at = next;
    }
    this.#nodes[at]?.empty.push(to);
  }

  #assertion({ kind, negate, alternatives }: Extract<Element, { type: 'Assertion' }>, from: number, to: number): void {
    const { behind } = this.#context;
    const machine = new Machine(alternatives, kind, this.#context);
    const index = kind === 'behind' ? behind.push(machine) - 1 : -1;
    if (kind === 'behind' && machine.#nodes.some(({ assertions }) => assertions.length > 0))
      throw new SyntaxError('assertions inside a look-behind are not supported');
    this.#nodes[from]?.assertions.push({ kind, negate, machine, index, to });
  }

  /** @param behind states of the look-behinds. */
  begin(behind: readonly MachineState[]): MachineState {
    return this.#state([{ node: this.#start, obligations: [] }], behind);
  }

  step(state: MachineState, atom: number): MachineState {
    const known = state.next[atom];
    if (known) return known;
    const behind = state.behind.map((own, i) => this.#context.behind[i]?.step(own, atom) ?? own);
    const moved: Thread[] = [];
    for (const { node, obligations } of state.threads) {
      this.#count();
      const kept = obligations.map((own) => ({ ...own, state: own.machine.step(own.state, atom) }));
      if (node === this.#end && this.#open) moved.push({ node, obligations: kept });
      for (const edge of this.#nodes[node]?.characters ?? [])
        if (edge.atoms.has(atom)) moved.push({ node: edge.to, obligations: kept });
    }
    const next = this.#state(moved, behind);
    state.next[atom] = next;
    return next;
  }

  /** Whether the text may end here. */
  accepts(state: MachineState): boolean {
    return state.threads.some(
      ({ node, obligations }) =>
        node === this.#end && obligations.every((own) => own.machine.accepts(own.state) !== own.negate),
    );
  }

  /** `true` or `false`: accepted or rejected regardless of what follows. */
  #certain(state: MachineState): boolean | undefined {
    if (state.threads.length === 0) return false;
    const done = this.#open && state.threads.some(({ node, obligations }) => node === this.#end && !obligations.length);
    return done ? true : undefined;
  }

  #state(seeds: readonly Thread[], behind: readonly MachineState[]): MachineState {
    const threads = new Map<string, Thread>();
    const open = [...seeds];
    for (let thread = open.pop(); thread; thread = open.pop()) {
      const kept = settled(thread, (own) => own.machine.#certain(own.state));
      if (!kept) continue;
      const key = keyOf(kept);
      if (threads.has(key)) continue;
      this.#count();
      threads.set(key, kept);
      const { empty = [], assertions = [] } = this.#nodes[kept.node] ?? {};
      for (const node of empty) open.push({ ...kept, node });
      for (const assertion of assertions) {
        const passed = this.#pass(assertion, kept, behind);
        if (passed) open.push(passed);
      }
    }
    return this.#interned([...threads], behind);
  }

  #pass({ kind, negate, machine, index, to }: Assertion, thread: Thread, behind: readonly MachineState[]) {
    if (kind === 'ahead') {
      const promise = { machine, state: machine.begin(behind), negate };
      return { node: to, obligations: [...thread.obligations, promise] };
    }
    const read = behind[index];
    return read && machine.accepts(read) !== negate ? { ...thread, node: to } : undefined;
  }

  #interned(threads: readonly (readonly [string, Thread])[], behind: readonly MachineState[]): MachineState {
    // Once it is found, open alternatives no longer matter.
    const free = threads.find(([, { node, obligations }]) => this.#open && node === this.#end && !obligations.length);
    const kept = free ? [free] : [...threads].sort(([a], [b]) => (a < b ? -1 : 1));
    const read = free || kept.length === 0 ? [] : behind;
    const key = `${kept.map(([own]) => own).join(';')}|${read.map(({ id }) => id).join()}`;
    const known = this.#states.get(key);
    if (known) return known;
    const state = { id: this.#states.size, threads: kept.map(([, thread]) => thread), behind: read, next: [] };
    if (this.#states.size >= bounds.states) throw new GrammarLimit('states of a pattern', bounds.states);
    this.#states.set(key, state);
    return state;
  }

  #count(): void {
    countSteps(1);
    if (++this.#context.work.steps > bounds.steps) throw new GrammarLimit('steps for a pattern', bounds.steps);
  }

  determinised(): Dfa {
    const { atoms, behind } = this.#context;
    const start = this.begin(behind.map((machine) => machine.begin([])));
    return Dfa.explore<MachineState>({
      start,
      key: ({ id }) => id,
      accepts: (state) => this.accepts(state),
      step: (state) => {
        const edges: (Omit<Edge, 'to'> & { to: MachineState })[] = [];
        for (const [atom, ranges] of atoms.ranges.entries()) {
          const to = this.step(state, atom);
          if (to.threads.length > 0) for (const range of ranges) edges.push({ ...range, to });
        }
        return edges.sort((a, b) => a.lo - b.lo);
      },
    });
  }

  get id(): number {
    return this.#id;
  }
}

/** Drops conditions that always hold; `undefined` if one never holds. */
function settled(thread: Thread, certain: (obligation: Obligation) => boolean | undefined): Thread | undefined {
  if (thread.obligations.length === 0) return thread;
  const open = new Map<string, Obligation>();
  for (const obligation of thread.obligations) {
    const holds = certain(obligation);
    if (holds === obligation.negate) return undefined;
    if (holds === undefined) open.set(keyOfObligation(obligation), obligation);
  }
  return { ...thread, obligations: [...open].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, own]) => own) };
}

const keyOfObligation = ({ machine, state, negate }: Obligation): string =>
  `${machine.id}${negate ? '!' : '.'}${state.id}`;
const keyOf = ({ node, obligations }: Thread): string => `${node}:${obligations.map(keyOfObligation).join()}`;
