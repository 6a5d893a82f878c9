/**
 * Follows a grammar byte by byte: a pushdown automaton whose states are created on first use and cached. Several
 * threads run while several alternatives are open. Every state leads to an end, so no prefix is a dead end.
 */
import {
  liveEdges,
  mark,
  type Of,
  type Place,
  type PropertyName,
  placeKey,
  type Read,
  readOn,
  readPlain,
  readQuoted,
  type Thread,
  textPlace,
  widened,
} from './characters.ts';
import type { Dfa } from './dfa.ts';
import { TextSet, textWithout } from './dfa.ts';
import { countSteps } from './schemaDocument.ts';
import { type NextNames, SchemaShapes, unknownName } from './schemaShapes.ts';
import type { ArrayShape, Node, ObjectShape } from './shapes.ts';

// Parts of a grammar: literal texts, JSON by a schema, and text up to a tag.

export type Part =
  /** A framing token is written as its name after a carriage return, which no other text of a grammar contains. */
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'json'; readonly schema: unknown }
  /** Any text without the tag. */
  | { readonly kind: 'without'; readonly tag: string };

/** Alternatives; each is a sequence of parts. */
export type Form = readonly (readonly Part[])[];

export interface State {
  readonly id: number;
  readonly threads: readonly Thread[];
  /** By byte; `null`: not allowed. */
  readonly next: (State | null | undefined)[];
  readonly mayEnd: boolean;
  /** This many characters of a JSON string may be anything, except those with a special meaning. */
  readonly room: number;
}

/** Above this, all states are discarded and rebuilt. */
const maxStates = 6000;

export class Machine {
  readonly sources: readonly SchemaShapes[];
  readonly start: readonly Thread[];
  readonly #threads = new Map<string, Thread>();
  readonly #states = new Map<string, State>();
  #made = 0;
  /** Keeps undeclared names. Needed for accepted text, not for masks. */
  #exact = false;

  /** @throws HearthError for a schema that cannot be enforced. */
  constructor(form: Form) {
    const sources = new Map<unknown, SchemaShapes>();
    const end = this.#thread({ kind: 'end' }, undefined);
    this.start = form.map((parts) => parts.reduceRight((below, part) => this.#part(part, below, sources), end));
    this.sources = [...sources.values()];
  }

  /** Keywords that are only partly enforced. */
  get loose(): readonly string[] {
    return [...new Set(this.sources.flatMap(({ loose }) => [...loose]))];
  }

  state(threads: readonly Thread[]): State {
    const distinct = [...new Set(threads)].sort((a, b) => a.id - b.id);
    const key = distinct.map(({ id }) => id).join();
    const known = this.#states.get(key);
    if (known) return known;
    if (this.#states.size >= maxStates) this.forget();
    const mayEnd = distinct.some(endsWith);
    const room = Math.max(0, ...distinct.map(roomOf));
    const state = { id: ++this.#made, threads: distinct, next: [], mayEnd, room };
    this.#states.set(key, state);
    return state;
  }

  /** The state after the chosen bytes; `null` if the grammar does not allow them. */
  take(state: State, bytes: Uint8Array): State | null {
    let threads = state.threads;
    this.#exact = true;
    try {
      for (const byte of bytes) {
        const next: Thread[] = [];
        for (const thread of threads) this.#step(thread, byte, next);
        threads = next;
      }
    } finally {
      this.#exact = false;
    }
    return threads.length === 0 ? null : this.state(threads);
  }

  /** The state with all undeclared names merged, so that few states are computed. */
  abstracted(state: State): State {
    return this.state(
      state.threads.map((thread) => {
        const { place, below } = thread;
        if (place.kind !== 'text' || !place.names?.value) return thread;
        return this.#thread({ ...place, names: { ...place.names, written: undefined } }, below);
      }),
    );
  }

  /** @param state an abstracted one. */
  step(state: State, byte: number): State | null {
    const known = state.next[byte];
    if (known !== undefined) return known;
    const threads: Thread[] = [];
    for (const thread of state.threads) this.#step(thread, byte, threads);
    const next = threads.length === 0 ? null : this.state(threads);
    state.next[byte] = next;
    return next;
  }

  /** Discards all states; they are rebuilt when they are reached. */
  forget(): void {
    for (const state of this.#states.values()) state.next.length = 0;
    this.#states.clear();
    this.#threads.clear();
  }

  #part(part: Part, below: Thread, sources: Map<unknown, SchemaShapes>): Thread {
    switch (part.kind) {
      case 'literal':
        return part.text === '' ? below : this.#literal(part.text, below);
      case 'json': {
        const source = sources.get(part.schema) ?? new SchemaShapes(part.schema);
        sources.set(part.schema, source);
        return this.#thread({ kind: 'value', node: source.root, source, maySpace: false }, below);
      }
      case 'without':
        return this.#thread(textPlace(TextSet.of(textWithout(part.tag)), false), below);
    }
  }

  #literal(text: string, below: Thread): Thread {
    return this.#thread({ kind: 'literal', bytes: new TextEncoder().encode(text), at: 0 }, below);
  }

  #thread(place: Place, below: Thread | undefined): Thread {
    const key = `${placeKey(place)}^${below?.id ?? ''}`;
    const known = this.#threads.get(key) ?? { id: ++this.#made, place, below };
    this.#threads.set(key, known);
    return known;
  }

  #step(thread: Thread, byte: number, out: Thread[]): void {
    countSteps(1);
    const { place } = thread;
    switch (place.kind) {
      case 'end':
        return;
      case 'literal':
        this.#stepLiteral(thread, place, byte, out);
        return;
      case 'value':
        this.#stepValue(thread, place, byte, out);
        return;
      case 'number':
        this.#stepNumber(thread, place, byte, out);
        return;
      case 'text':
        this.#stepText(thread, place, byte, out);
        return;
      case 'array':
        this.#stepArray(thread, place, byte, out);
        return;
      case 'object':
        this.#stepObject(thread, place, byte, out);
    }
  }

  #below(thread: Thread): Thread {
    if (!thread.below) throw new Error('A part of a grammar has no continuation.');
    return thread.below;
  }

  #stepLiteral(thread: Thread, { bytes, at }: Of<'literal'>, byte: number, out: Thread[]): void {
    if (bytes[at] !== byte) return;
    const below = this.#below(thread);
    out.push(at + 1 === bytes.length ? below : this.#thread({ kind: 'literal', bytes, at: at + 1 }, below));
  }

  #stepValue(thread: Thread, place: Of<'value'>, byte: number, out: Thread[]): void {
    const { node, source, maySpace } = place;
    const below = this.#below(thread);
    if (byte === mark.space && maySpace) out.push(this.#thread({ ...place, maySpace: false }, below));
    const shapes = source.of(node);
    if (byte === mark.quote) {
      for (const set of shapes.texts) if (!set.isEmpty) out.push(this.#thread(textPlace(set, true), below));
    } else if (byte === mark.openArray) {
      for (const shape of shapes.arrays) this.#openArray(shape, source, below, out);
    } else if (byte === mark.openObject) {
      for (const shape of shapes.objects) this.#openObject(shape, source, below, out);
    } else if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) {
      const state = shapes.numbers.next(0, byte);
      if (state !== undefined) out.push(this.#thread({ kind: 'number', dfa: shapes.numbers, state }, below));
    } else {
      for (const word of shapes.words) if (word.charCodeAt(0) === byte) out.push(this.#literal(word.slice(1), below));
    }
  }

  #stepNumber(thread: Thread, { dfa, state }: Of<'number'>, byte: number, out: Thread[]): void {
    const below = this.#below(thread);
    const next = dfa.next(state, byte);
    if (next !== undefined) out.push(this.#thread({ kind: 'number', dfa, state: next }, below));
    if (dfa.accepts[state]) this.#step(below, byte, out);
  }

  #stepText(thread: Thread, place: Of<'text'>, byte: number, out: Thread[]): void {
    const { set, state, count, partial, quoted, names } = place;
    const below = this.#below(thread);
    if (!partial && set.ends(state, count)) {
      if (!quoted) this.#step(below, byte, out);
      else if (byte === mark.quote) {
        out.push(names ? this.#named(below, names) : below);
        return;
      }
    }
    const after = set.counted(count);
    const live = liveEdges(set.dfa, state, names?.written !== undefined, (to) => set.leads(to, after));
    const read: Read = partial ? readOn(partial, byte, live) : quoted ? readQuoted(byte, live) : readPlain(byte, live);
    if (!read) return;
    if ('partial' in read) out.push(this.#thread({ ...place, partial: read.partial }, below));
    else {
      const to = set.dfa.next(state, read.code) ?? 0;
      const named = names?.written !== undefined && {
        names: { ...names, written: names.written + String.fromCodePoint(read.code) },
      };
      out.push(this.#thread({ ...place, state: to, count: after, partial: undefined, ...named }, below));
    }
  }

  /** A property's value, after its name. */
  #named(object: Thread, { written, value }: PropertyName): Thread {
    const { place } = object;
    if (place.kind !== 'object') throw new Error('A property name is outside an object.');
    const { source, shape, seen } = place;
    const name = written ?? unknownName;
    const after = { ...place, seen: [...seen, name].sort(), phase: 'after', gap: 'none' } as const;
    const node = value ?? source.plan(shape).value(name);
    const begins = this.#thread({ kind: 'value', node, source, maySpace: true }, this.#thread(after, object.below));
    return this.#literal(':', begins);
  }

  #openArray(shape: ArrayShape, source: SchemaShapes, below: Thread, out: Thread[]): void {
    const found = shape.contains.map(() => 0);
    const place = { kind: 'array', source, shape, index: 0, found, phase: 'first', gap: 'none' } as const;
    if (canEndArray(place) || this.#items(place, below).length > 0) out.push(this.#thread(place, below));
  }

  #stepArray(thread: Thread, place: Of<'array'>, byte: number, out: Thread[]): void {
    const below = this.#below(thread);
    const ends = place.phase === 'first' ? place.gap === 'none' : place.phase === 'after';
    if (byte === mark.closeArray && ends && canEndArray(place)) out.push(below);
    const items = this.#items(place, below);
    const gap = widened(place.gap, byte);
    if (place.phase === 'after') {
      if (byte === mark.comma && place.gap === 'none' && items.length > 0)
        out.push(this.#thread({ ...place, phase: 'next' }, below));
      if (gap !== undefined && canEndArray(place)) out.push(this.#thread({ ...place, gap }, below));
    } else if (items.length > 0) {
      if (gap !== undefined) out.push(this.#thread({ ...place, gap }, below));
      for (const item of items) this.#step(item, byte, out);
    }
  }

  /** The values that may come next, by how `contains` counts them. */
  #items(place: Of<'array'>, below: Thread): readonly Thread[] {
    const { source, shape, index, found } = place;
    if (index >= shape.max) return [];
    const has = (node: Node): boolean => source.isSatisfiable(node);
    const item = shape.prefix[index] ?? shape.rest;
    const choices = shape.contains.reduce<readonly (readonly boolean[])[]>(
      (left, own) =>
        left.flatMap((counted) => (index < own.from ? [false] : [true, false]).map((is) => [...counted, is])),
      [[]],
    );
    return choices.flatMap((counted) => {
      const { nodes } = source;
      const conditions = shape.contains.flatMap(({ node, max, from }, i) =>
        counted[i] ? [node] : max < Number.POSITIVE_INFINITY && index >= from ? [nodes.not(node)] : [],
      );
      const node = nodes.and([item, ...conditions]);
      const next = found.map((count, i) => capped(count + (counted[i] ? 1 : 0), shape.contains[i]));
      const fits = shape.contains.every(({ min, max }, i) => {
        const count = next[i] ?? 0;
        return count <= max && (count >= min || count + source.containable(shape, i, index + 1, has) >= min);
      });
      if (!fits || !has(node) || !this.#reaches(place, index + 1)) return [];
      const after = { ...place, index: capIndex(shape, index + 1), found: next, phase: 'after', gap: 'none' } as const;
      return [this.#thread({ kind: 'value', node, source, maySpace: false }, this.#thread(after, below))];
    });
  }

  /** Whether the array can still get as many items as it needs. */
  #reaches({ source, shape }: Of<'array'>, count: number): boolean {
    for (let i = count; i < Math.min(shape.min, shape.prefix.length + 1); i++)
      if (!source.isSatisfiable(shape.prefix[i] ?? shape.rest)) return false;
    return true;
  }

  #openObject(shape: ObjectShape, source: SchemaShapes, below: Thread, out: Thread[]): void {
    if (!source.plan(shape).isPossible((node) => source.isSatisfiable(node))) return;
    out.push(this.#thread({ kind: 'object', source, shape, seen: [], phase: 'first', gap: 'none' }, below));
  }

  #stepObject(thread: Thread, place: Of<'object'>, byte: number, out: Thread[]): void {
    const { source, shape, seen, phase } = place;
    const below = this.#below(thread);
    const plan = source.plan(shape);
    const canEnd = plan.canEnd(seen);
    const ends = phase === 'first' ? place.gap === 'none' : phase === 'after';
    if (byte === mark.closeObject && ends && canEnd) out.push(below);
    const gap = widened(place.gap, byte);
    const goesOn = phase === 'after' ? byte === mark.comma : byte === mark.quote || gap !== undefined;
    if (phase === 'after' && gap !== undefined && canEnd) out.push(this.#thread({ ...place, gap }, below));
    if (!goesOn || (phase === 'after' && place.gap !== 'none')) return;
    const next = plan.next(seen, (node) => source.isSatisfiable(node));
    if (next.declared.isEmpty && next.regions.length === 0) return;
    if (phase === 'after') out.push(this.#thread({ ...place, phase: 'next' }, below));
    else if (gap !== undefined) out.push(this.#thread({ ...place, gap }, below));
    else this.#openNames(next, this.#thread({ ...place, gap: 'none' }, below), out);
  }

  #openNames({ declared, regions }: NextNames, object: Thread, out: Thread[]): void {
    const open = (names: Dfa, written: string | undefined, value: Node | undefined): void => {
      out.push(this.#thread({ ...textPlace(TextSet.of(names), true), names: { written, value } }, object));
    };
    if (!declared.isEmpty) open(declared, '', undefined);
    for (const { names, value } of regions) open(names, this.#exact ? '' : undefined, value);
  }
}

function endsWith({ place, below }: Thread): boolean {
  if (place.kind === 'end') return true;
  const done =
    (place.kind === 'number' && place.dfa.accepts[place.state] === true) ||
    (place.kind === 'text' && !place.quoted && !place.partial && place.set.ends(place.state, place.count));
  return done && below !== undefined && endsWith(below);
}

function roomOf({ place }: Thread): number {
  if (place.kind !== 'text' || !place.quoted || place.partial || typeof place.names?.written === 'string') return 0;
  return place.set.dfa.staysAt(place.state) ? place.set.max - place.count : 0;
}

function canEndArray({ shape, index, found }: Of<'array'>): boolean {
  return index >= shape.min && shape.contains.every(({ min }, i) => (found[i] ?? 0) >= min);
}

const capped = (count: number, own: ArrayShape['contains'][number] | undefined): number =>
  own && own.max === Number.POSITIVE_INFINITY ? Math.min(count, own.min) : count;

/** Higher positions are equivalent. */
function capIndex({ prefix, min, max, contains }: ArrayShape, index: number): number {
  const last = Math.max(prefix.length, min, ...contains.map(({ from }) => from));
  return max === Number.POSITIVE_INFINITY ? Math.min(index, last) : index;
}
