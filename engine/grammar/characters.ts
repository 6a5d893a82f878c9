/** Decodes a code point byte by byte, from UTF-8 or from a JSON escape. */
import type { Dfa, Edge, TextSet } from './dfa.ts';
import type { SchemaShapes } from './schemaShapes.ts';
import type { ArrayShape, Node, ObjectShape } from './shapes.ts';

type Partial =
  /** `value`: the bits so far; `left`: UTF-8 bytes that follow. The code point lies between the bounds. */
  | { readonly kind: 'utf8'; readonly left: number; readonly value: number; readonly lo: number; readonly hi: number }
  /** The same if all possible code points lead to one state. */
  | { readonly kind: 'any'; readonly left: number; readonly code: number; readonly to: number }
  /** After the backslash. */
  | { readonly kind: 'escape' }
  /** `left`: hexadecimal digits that follow. */
  | { readonly kind: 'hex'; readonly left: number; readonly value: number; readonly high: number }
  /** After the first half of a surrogate pair: expects the backslash, then `u`. */
  | { readonly kind: 'half'; readonly at: 0 | 1; readonly high: number };

const partialKey = (partial: Partial | undefined): string => {
  switch (partial?.kind) {
    case undefined:
      return '';
    case 'utf8':
      return `b${partial.left},${partial.value}`;
    case 'any':
      return `a${partial.left},${partial.to}`;
    case 'escape':
      return 'e';
    case 'hex':
      return `x${partial.left},${partial.value},${partial.high}`;
    case 'half':
      return `h${partial.at},${partial.high}`;
  }
};

const backslash = 0x5c;
const shortEscapes: ReadonlyMap<number, number> = new Map(
  Object.entries({ '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(
    ([name, character]) => [name.charCodeAt(0), character.charCodeAt(0)],
  ),
);

/** JSON writers escape these as `\uXXXX`: control characters, HTML's special characters, and everything beyond ASCII. */
const hexEscaped: readonly (readonly [number, number])[] = [
  [0, 0x1f],
  [0x26, 0x27],
  [0x3c, 0x3c],
  [0x3e, 0x3e],
  [0x7f, 0x10ffff],
];

/** The allowed next code points: those with an edge to a state from which the end can be reached. */
interface Live {
  readonly some: (from: number, to: number) => boolean;
  /** The state that all of them lead to; `undefined` if they differ. */
  readonly one: (from: number, to: number) => number | undefined;
}

/** @param written keeps the code points themselves, not only the states they lead to. */
export function liveEdges(dfa: Dfa, state: number, written: boolean, leads: (state: number) => boolean): Live {
  const edges = dfa.edges[state] ?? [];
  return {
    some: (from, to) => overlapping(edges, from, to).some((edge) => leads(edge.to)),
    one: (from, to) => {
      const [edge, ...more] = written ? [] : overlapping(edges, from, to);
      return edge && more.length === 0 && edge.lo <= from && edge.hi >= to ? edge.to : undefined;
    },
  };
}

function overlapping(edges: readonly Edge[], from: number, to: number): readonly Edge[] {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((edges[middle]?.hi ?? 0) < from) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while ((edges[end]?.lo ?? Number.POSITIVE_INFINITY) <= to) end++;
  return edges.slice(low, end);
}

/** A complete or partial code point; `undefined` if no allowed one begins like this. */
export type Read = { readonly code: number } | { readonly partial: Partial } | undefined;

/** The first byte of a code point in UTF-8 text. */
export function readPlain(byte: number, live: Live): Read {
  if (byte < 0x80) return live.some(byte, byte) ? { code: byte } : undefined;
  if (byte >= 0xc2 && byte <= 0xdf) return narrowed(1, byte & 0x1f, 0x80, live);
  if (byte >= 0xe0 && byte <= 0xef) return narrowed(2, byte & 0x0f, 0x800, live);
  if (byte >= 0xf0 && byte <= 0xf4) return narrowed(3, byte & 0x07, 0x10000, live);
  return undefined;
}

/** The first byte of a character in a JSON string. Does not handle the closing quote. */
export function readQuoted(byte: number, live: Live): Read {
  if (byte < 0x20 || byte === 0x22) return undefined;
  if (byte !== backslash) return readPlain(byte, live);
  const possible =
    hexEscaped.some(([lo, hi]) => live.some(lo, hi)) ||
    [...shortEscapes.values()].some((code) => live.some(code, code));
  return possible ? { partial: { kind: 'escape' } } : undefined;
}

export function readOn(partial: Partial, byte: number, live: Live): Read {
  switch (partial.kind) {
    case 'utf8':
      if ((byte & 0xc0) !== 0x80) return undefined;
      return narrowed(partial.left - 1, (partial.value << 6) | (byte & 0x3f), 0, live, partial);
    case 'any':
      if ((byte & 0xc0) !== 0x80) return undefined;
      return partial.left === 1 ? { code: partial.code } : { partial: { ...partial, left: partial.left - 1 } };
    case 'escape':
      return readEscape(byte, live);
    case 'hex':
      return readHex(partial, byte, live);
    case 'half':
      if (byte !== (partial.at === 0 ? backslash : 0x75)) return undefined;
      return partial.at === 0
        ? { partial: { ...partial, at: 1 } }
        : { partial: { kind: 'hex', left: 4, value: 0, high: partial.high } };
  }
}

/** @param value the bits so far. */
function narrowed(left: number, value: number, least: number, live: Live, within?: { lo: number; hi: number }): Read {
  const lo = Math.max(value << (6 * left), least, within?.lo ?? 0);
  const hi = Math.min(((value + 1) << (6 * left)) - 1, within?.hi ?? 0x10ffff);
  if (lo > hi || !live.some(lo, hi)) return undefined;
  if (left === 0) return { code: value };
  const isWhole = lo === value << (6 * left) && hi === ((value + 1) << (6 * left)) - 1;
  const to = isWhole ? live.one(lo, hi) : undefined;
  return { partial: to === undefined ? { kind: 'utf8', left, value, lo, hi } : { kind: 'any', left, code: lo, to } };
}

function readEscape(byte: number, live: Live): Read {
  if (byte === 0x75) {
    return hexEscaped.some(([lo, hi]) => live.some(lo, hi))
      ? { partial: { kind: 'hex', left: 4, value: 0, high: 0 } }
      : undefined;
  }
  const code = shortEscapes.get(byte);
  return code !== undefined && live.some(code, code) ? { code } : undefined;
}

function readHex({ left, value, high }: Extract<Partial, { kind: 'hex' }>, byte: number, live: Live): Read {
  const digit = Number.parseInt(String.fromCharCode(byte), 16);
  if (Number.isNaN(digit)) return undefined;
  const next = value * 16 + digit;
  const lo = next * 16 ** (left - 1);
  const hi = lo + 16 ** (left - 1) - 1;
  if (high !== 0) return lowHalf(left - 1, next, high, lo, hi, live);
  const single = hexEscaped.some(
    ([from, to]) => from <= hi && to >= lo && live.some(Math.max(from, lo), Math.min(to, hi)),
  );
  const firstHigh = Math.max(lo, 0xd800);
  const lastHigh = Math.min(hi, 0xdbff);
  const pair = firstHigh <= lastHigh && live.some(pairCode(firstHigh, 0xdc00), pairCode(lastHigh, 0xdfff));
  if (!single && !pair) return undefined;
  if (left > 1) return { partial: { kind: 'hex', left: left - 1, value: next, high } };
  if (next >= 0xd800 && next <= 0xdbff) return { partial: { kind: 'half', at: 0, high: next } };
  return { code: next };
}

function lowHalf(left: number, value: number, high: number, lo: number, hi: number, live: Live): Read {
  const from = Math.max(lo, 0xdc00);
  const to = Math.min(hi, 0xdfff);
  if (from > to || !live.some(pairCode(high, from), pairCode(high, to))) return undefined;
  return left === 0 ? { code: pairCode(high, value) } : { partial: { kind: 'hex', left, value, high } };
}

const pairCode = (high: number, low: number): number => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);

// Positions of a thread of the machine: within a literal, a value, a number, a text, an array or an object.

/** Whitespace between JSON tokens: none, one space, or a line break and an indentation. */
type Gap = 'none' | 'space' | number;
const maxColumns = 64;

export type Place =
  | { readonly kind: 'end' }
  | { readonly kind: 'literal'; readonly bytes: Uint8Array; readonly at: number }
  | { readonly kind: 'value'; readonly node: Node; readonly source: SchemaShapes; readonly maySpace: boolean }
  | { readonly kind: 'number'; readonly dfa: Dfa; readonly state: number }
  | {
      readonly kind: 'text';
      readonly set: TextSet;
      readonly state: number;
      readonly count: number;
      readonly partial: Partial | undefined;
      /** Bare: without quotes and escapes; it ends where the next part begins. */
      readonly quoted: boolean;
      readonly names?: PropertyName;
    }
  | {
      readonly kind: 'array';
      readonly source: SchemaShapes;
      readonly shape: ArrayShape;
      readonly index: number;
      /** Items so far that match `contains`. */
      readonly found: readonly number[];
      readonly phase: Phase;
      readonly gap: Gap;
    }
  | {
      readonly kind: 'object';
      readonly source: SchemaShapes;
      readonly shape: ObjectShape;
      /** Names so far, sorted. */
      readonly seen: readonly string[];
      readonly phase: Phase;
      readonly gap: Gap;
    };

/** After the opening bracket, after an element, or after a comma. */
type Phase = 'first' | 'after' | 'next';

/** The text is a property's name. */
export interface PropertyName {
  /** The name so far; `undefined`: any name of the region. */
  readonly written: string | undefined;
  /** The value's node if the name is not declared. */
  readonly value: Node | undefined;
}

export interface Thread {
  readonly id: number;
  readonly place: Place;
  /** The position to continue at when this one has ended. */
  readonly below: Thread | undefined;
}

export type Of<Kind extends Place['kind']> = Extract<Place, { readonly kind: Kind }>;

export const mark = {
  space: 0x20,
  quote: 0x22,
  comma: 0x2c,
  openArray: 0x5b,
  closeArray: 0x5d,
  openObject: 0x7b,
  closeObject: 0x7d,
} as const;

export const textPlace = (set: TextSet, quoted: boolean): Of<'text'> => ({
  kind: 'text',
  set,
  state: 0,
  count: 0,
  partial: undefined,
  quoted,
});

export function widened(gap: Gap, byte: number): Gap | undefined {
  if (gap === 'none') return byte === mark.space ? 'space' : byte === 0x0a ? 0 : undefined;
  if (gap === 'space' || gap >= maxColumns) return undefined;
  return byte === mark.space || byte === 0x09 ? gap + 1 : undefined;
}

const byteKeys = new WeakMap<Uint8Array, string>();
function bytesKey(bytes: Uint8Array): string {
  const known = byteKeys.get(bytes) ?? new TextDecoder().decode(bytes);
  byteKeys.set(bytes, known);
  return known;
}

const sourceNumbers = new WeakMap<SchemaShapes, number>();
let sources = 0;
function sourceKey(source: SchemaShapes): number {
  const known = sourceNumbers.get(source) ?? ++sources;
  sourceNumbers.set(source, known);
  return known;
}

const nameKey = (names: PropertyName | undefined): string =>
  names ? `${names.value?.id ?? ''}=${names.written === undefined ? '?' : `"${names.written}`}` : '';

/** Equal for equivalent positions. */
export function placeKey(place: Place): string {
  switch (place.kind) {
    case 'end':
      return 'end';
    case 'literal':
      return `l${place.at},${bytesKey(place.bytes)}`;
    case 'value':
      return `v${sourceKey(place.source)},${place.node.id},${place.maySpace}`;
    case 'number':
      return `n${place.dfa.id},${place.state}`;
    case 'text':
      return `t${place.set.key},${place.state},${place.count},${place.quoted},${partialKey(place.partial)},${nameKey(place.names)}`;
    case 'array':
      return `a${sourceKey(place.source)},${place.source.idOf(place.shape)},${place.index},${place.found.join()},${place.phase},${place.gap}`;
    case 'object':
      return `o${sourceKey(place.source)},${place.source.idOf(place.shape)},${JSON.stringify(place.seen)},${place.phase},${place.gap}`;
  }
}
