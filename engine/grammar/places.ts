/** Where a thread of a machine stands: within a literal, a value, a number, a text, an array or an object. */
import { type Partial, partialKey } from './characters.ts';
import type { Dfa } from './dfa.ts';
import type { SchemaShapes } from './schemaShapes.ts';
import type { ArrayShape, Node, ObjectShape } from './shapes.ts';
import type { TextSet } from './textSet.ts';

/** Blanks between JSON's marks: none, one space, or a line's end and so many columns. */
export type Gap = 'none' | 'space' | number;
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
      /** Items so far that are of what it must contain. */
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

/** Right after the opening mark, after an element, after a comma. */
export type Phase = 'first' | 'after' | 'next';

/** The text names a property. */
export interface PropertyName {
  /** What was written; `undefined`: any of the region. */
  readonly written: string | undefined;
  /** The value's, where the name is not declared. */
  readonly value: Node | undefined;
}

export interface Thread {
  readonly id: number;
  readonly place: Place;
  /** Where it goes on when this place has ended. */
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

/** Equal for places that are alike. */
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
