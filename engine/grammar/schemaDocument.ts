/** A JSON Schema with its identifiers: resolves each `$ref`, and knows the draft of each part. */

import { HearthError, invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';

export type Draft = 4 | 6 | 7 | 2019 | 2020;
export type SchemaObject = Readonly<Record<string, unknown>>;

interface Location {
  /** JSON pointer from the document's root. */
  readonly at: string;
  readonly resource: Resource;
  readonly draft: Draft;
}

interface Resource {
  readonly uri: string;
  readonly root: SchemaObject;
  readonly anchors: Map<string, SchemaObject>;
}

const single = ['not', 'if', 'then', 'else', 'additionalProperties', 'propertyNames', 'contains', 'additionalItems'];
const named = ['properties', 'patternProperties', 'dependentSchemas', '$defs', 'definitions', 'dependencies'];
const listed = ['allOf', 'anyOf', 'oneOf', 'prefixItems'];
const places = new Set([...single, ...named, ...listed, 'items', 'unevaluatedItems', 'unevaluatedProperties']);

const baseUri = 'schema:///';

export class SchemaDocument {
  readonly root: unknown;
  readonly draft: Draft;
  readonly #locations = new Map<SchemaObject, Location>();
  readonly #resources = new Map<string, Resource>();
  #count = 0;

  /** @throws HearthError if identifiers clash, or if it is too deep or too large. */
  constructor(schema: unknown) {
    this.root = schema;
    this.draft = isObject(schema) ? draftOf(schema['$schema'], 2020, '') : 2020;
    if (!isObject(schema)) return;
    const resource = { uri: baseUri, root: schema, anchors: new Map<string, SchemaObject>() };
    this.#resources.set(baseUri, resource);
    this.#enter(schema, { at: '', resource, draft: this.draft }, 0);
  }

  get schemas(): Iterable<SchemaObject> {
    return this.#locations.keys();
  }

  has(schema: object): boolean {
    return this.#locations.has(schema as SchemaObject);
  }

  locate(schema: object): Location {
    const location = this.#locations.get(schema as SchemaObject);
    if (!location) throw new Error('The schema is not in this document.');
    return location;
  }

  /** @returns the referenced schema, which may be `true` or `false`. */
  resolve(reference: unknown, from: SchemaObject): SchemaObject | boolean {
    const { at, resource } = this.locate(from);
    if (typeof reference !== 'string') throw invalidSchema(at, '$ref must be a string');
    const { uri, fragment } = split(reference, resource.uri, at);
    const target = this.#resources.get(uri);
    if (!target)
      throw unsupportedSchema(at, `'${reference}' is not a schema in this document; schemas are not downloaded`);
    if (fragment === '') return target.root;
    if (!fragment.startsWith('/')) {
      const anchored = target.anchors.get(fragment);
      if (!anchored) throw invalidSchema(at, `$ref '${reference}' has no anchor '${fragment}' to refer to`);
      return anchored;
    }
    return this.#pointed(target, fragment, at, reference);
  }

  /** Whether `$dynamicRef`, which depends on the path to it, can refer to only one schema. */
  isOnlyDynamicAnchor(name: string): boolean {
    let found = 0;
    for (const schema of this.#locations.keys()) {
      if (schema['$dynamicAnchor'] === name || (name === '' && schema['$recursiveAnchor'] === true)) found++;
    }
    return found <= 1;
  }

  #pointed(target: Resource, fragment: string, at: string, reference: string): SchemaObject | boolean {
    let value: unknown = target.root;
    let location = this.locate(target.root);
    for (const part of fragment.slice(1).split('/')) {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
      value = isObject(value) || Array.isArray(value) ? own(value, key) : undefined;
      if (isObject(value)) location = this.#locations.get(value) ?? location;
    }
    if (typeof value === 'boolean') return value;
    if (!isObject(value)) throw invalidSchema(at, `$ref '${reference}' points to nothing`);
    // No keyword may have a schema at this place.
    if (!this.#locations.has(value)) this.#enter(value, { ...location, at: fragment }, 0);
    return value;
  }

  #enter(schema: SchemaObject, outer: Location, depth: number): void {
    if (depth > limits.generation.schemaDepth) throw new GrammarLimit('levels of depth', limits.generation.schemaDepth);
    if (++this.#count > limits.generation.schemas) throw new GrammarLimit('subschemas', limits.generation.schemas);
    const location = this.#identified(schema, outer);
    this.#locations.set(schema, location);
    for (const anchor of [schema['$anchor'], schema['$dynamicAnchor']])
      if (typeof anchor === 'string') this.#anchor(location, anchor, schema);
    for (const [key, value] of Object.entries(schema)) {
      if (!places.has(key)) continue;
      const at = `${location.at}/${key}`;
      if (Array.isArray(value))
        for (const [i, part] of value.entries()) this.#part(part, `${at}/${i}`, location, depth);
      else if (named.includes(key) && isObject(value)) {
        for (const [name, part] of Object.entries(value)) this.#part(part, `${at}/${escaped(name)}`, location, depth);
      } else this.#part(value, at, location, depth);
    }
  }

  #part(part: unknown, at: string, location: Location, depth: number): void {
    if (isObject(part) && !this.#locations.has(part)) this.#enter(part, { ...location, at }, depth + 1);
  }

  #identified(schema: SchemaObject, outer: Location): Location {
    const draft = draftOf(schema['$schema'], outer.draft, outer.at);
    const id = schema[draft === 4 ? 'id' : '$id'];
    // Until draft 7, keywords beside a reference are ignored.
    if (typeof id !== 'string' || (draft <= 7 && '$ref' in schema)) return { ...outer, draft };
    if (id.startsWith('#')) {
      this.#anchor({ ...outer, draft }, id.slice(1), schema);
      return { ...outer, draft };
    }
    const { uri } = split(id, outer.resource.uri, outer.at);
    const resource = { uri, root: schema, anchors: new Map<string, SchemaObject>() };
    if (this.#resources.has(uri)) throw invalidSchema(outer.at, `two schemas have the id '${id}'`);
    this.#resources.set(uri, resource);
    return { at: outer.at, resource, draft };
  }

  #anchor({ at, resource }: Location, name: string, schema: SchemaObject): void {
    const known = resource.anchors.get(name);
    if (known && known !== schema) throw invalidSchema(at, `two schemas have the anchor '${name}'`);
    resource.anchors.set(name, schema);
  }
}

export const isObject = (value: unknown): value is SchemaObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function own(value: object, key: string): unknown {
  return Object.hasOwn(value, key) ? (value as Readonly<Record<string, unknown>>)[key] : undefined;
}

const escaped = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1');

function split(reference: string, base: string, at: string): { uri: string; fragment: string } {
  try {
    const url = new URL(reference, base);
    const fragment = decodeURIComponent(url.hash.slice(1));
    url.hash = '';
    return { uri: url.href, fragment };
  } catch {
    throw invalidSchema(at, `'${reference}' is not a URI reference`);
  }
}

function draftOf(declared: unknown, outer: Draft, at: string): Draft {
  if (declared === undefined) return outer;
  const [, draft] =
    /^https?:\/\/json-schema\.org\/(?:draft-0|draft\/)(3|4|6|7|2019|2020)\b/.exec(String(declared)) ?? [];
  if (draft === '3') throw unsupportedSchema(at, 'JSON Schema draft 3 is not supported; use draft 4 or later');
  // A custom metaschema: assumed to have its parent's keywords. It is not fetched.
  return draft === undefined ? outer : (Number(draft) as Draft);
}

// Errors for schemas that are refused, worded for the schema's author.

/** The schema is valid but too large to enforce. */
export class GrammarLimit extends HearthError {
  constructor(bound: string, limit: number) {
    super('unsupported', `The JSON Schema needs too many ${bound} (at most ${limit}); simplify it.`);
  }
}

/** The schema takes more steps than a request is allowed. Unlike with GrammarLimit, checking a part afterwards does not help. */
class TooManySteps extends HearthError {
  constructor(steps: number) {
    super('unsupported', `The JSON Schema takes more than ${steps / 1e6} million steps to enforce; simplify it.`);
  }
}

// Counts the steps of one request at a time, as the grammar thread serves them. Unlike a time limit, a step limit doesn't depend
// on the machine's load.
let steps = { left: Number.POSITIVE_INFINITY, allowed: Number.POSITIVE_INFINITY };

/** Runs `work` with a bound on its steps: automaton states, alternatives and machine states. */
export function withinSteps<Result>(allowed: number, work: () => Result): Result {
  steps = { left: allowed, allowed };
  try {
    return work();
  } finally {
    steps = { left: Number.POSITIVE_INFINITY, allowed: Number.POSITIVE_INFINITY };
  }
}

export function countSteps(count: number): void {
  steps.left -= count;
  if (steps.left < 0) throw new TooManySteps(steps.allowed);
}

/** @param at JSON pointer of the faulty schema. */
export const invalidSchema = (at: string, problem: string): HearthError =>
  invalidInput(`The JSON Schema is invalid at '${at}': ${problem}.`);

export const unsupportedSchema = (at: string, problem: string): HearthError =>
  unsupported(`The JSON Schema can't be enforced at '${at}': ${problem}.`);

// Bounds on a schema from outside, checked before anything traverses it.

/** @throws GrammarLimit if it is too deep or too large. Does not recurse, because depth could exhaust the stack. */
export function checkSchemaBounds(schema: unknown): void {
  const { schemaDepth, schemaChars, schemaValues } = limits.generation;
  const open: (readonly [unknown, number])[] = [[schema, 0]];
  let values = 0;
  let characters = 0;
  for (let next = open.pop(); next; next = open.pop()) {
    const [value, depth] = next;
    if (++values > schemaValues) throw new GrammarLimit('values', schemaValues);
    if (typeof value === 'string') characters += value.length;
    if (typeof value !== 'object' || value === null) continue;
    // Each level of schemas has a level of keywords.
    if (depth >= 2 * schemaDepth) throw new GrammarLimit('levels of depth', schemaDepth);
    for (const [key, part] of Object.entries(value)) {
      if (!Array.isArray(value)) characters += key.length;
      open.push([part, depth + 1]);
    }
    if (characters > schemaChars) throw new GrammarLimit('characters', schemaChars);
  }
  if (characters > schemaChars) throw new GrammarLimit('characters', schemaChars);
}
