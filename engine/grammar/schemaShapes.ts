/** Converts the schemas of a document to shapes, each on first use. */
import { limits } from '../limits.ts';
import type { TextSet } from './dfa.ts';
import { Dfa } from './dfa.ts';
import {
  appliedNodes,
  arrayShapes,
  type KeywordContext,
  numberShapes,
  objectShapes,
  textShapes,
  typeShapes,
  valueShapes,
} from './keywords.ts';
import {
  countSteps,
  GrammarLimit,
  invalidSchema,
  isObject,
  SchemaDocument,
  type SchemaObject,
  unsupportedSchema,
} from './schemaDocument.ts';
import {
  type ArrayShape,
  arrayKey,
  type Clause,
  type Node,
  Nodes,
  type ObjectShape,
  objectKey,
  ShapeAlgebra,
  type Shapes,
} from './shapes.ts';

/** A schema refers to itself before any value begins. */
class Circle extends Error {}

/** Depth to which alternatives of a `oneOf` are compared. What distinguishes them is near the top. */
const disjointDepth = 4;

/** Nodes; a schema of a hundred properties has a hundred. */
const lookedAhead = 1000;

export class SchemaShapes {
  readonly nodes = new Nodes();
  readonly algebra = new ShapeAlgebra(this.nodes);
  readonly root: Node;
  /** Keywords that are only partly enforced. */
  readonly loose = new Set<string>();
  readonly #document: SchemaDocument;
  readonly #shapes = new Map<Node, Shapes>();
  readonly #opening = new Set<Node>();
  readonly #satisfiable = new Map<Node, boolean>();
  readonly #plans = new Map<number, ObjectPlan>();
  readonly #shapeIds = new WeakMap<object, number>();
  readonly #shapeKeys = new Map<string, number>();

  /** @throws HearthError for a schema that is invalid or beyond the limits. */
  constructor(schema: unknown) {
    this.#document = new SchemaDocument(schema);
    this.root = this.#node(schema, '');
    // Reports errors anywhere in the schema before the answer begins.
    for (const part of this.#document.schemas) this.of(this.nodes.schema(part));
    if (!this.isSatisfiable(this.root)) throw invalidSchema('', 'no value satisfies it');
    this.#lookAhead();
  }

  /** Converts nested schemas within a small bound, so that most refusals come before the answer begins. */
  #lookAhead(): void {
    const seen = new Set([this.root]);
    for (const node of seen) {
      if (seen.size > lookedAhead) return;
      const { arrays, objects } = this.of(node);
      for (const { prefix, rest } of arrays) for (const item of [...prefix, rest]) seen.add(item);
      for (const shape of objects) for (const value of this.plan(shape).values()) seen.add(value);
    }
  }

  of(node: Node): Shapes {
    const known = this.#shapes.get(node);
    if (known) return known;
    if (this.#opening.has(node)) throw new Circle();
    if (this.#shapes.size > limits.generation.schemas * 5)
      throw new GrammarLimit('combinations of subschemas', limits.generation.schemas * 5);
    this.#opening.add(node);
    try {
      const shapes = this.#made(node);
      this.#shapes.set(node, shapes);
      for (const keyword of shapes.loose) this.loose.add(keyword);
      return shapes;
    } catch (error) {
      if (error instanceof Circle && this.#opening.size === 1)
        throw invalidSchema(this.#pointer(node), 'its $ref refers to itself');
      throw error;
    } finally {
      this.#opening.delete(node);
    }
  }

  /** Whether any value satisfies it. */
  isSatisfiable(node: Node): boolean {
    return this.#possible(node, new Map(), Number.POSITIVE_INFINITY).possible;
  }

  plan(shape: ObjectShape): ObjectPlan {
    const id = this.idOf(shape);
    const plan = this.#plans.get(id) ?? new ObjectPlan(shape, this.nodes, (node) => this.of(node).texts);
    this.#plans.set(id, plan);
    return plan;
  }

  /** Returns the same node for equal shapes. */
  idOf(shape: ArrayShape | ObjectShape): number {
    const known = this.#shapeIds.get(shape);
    if (known !== undefined) return known;
    const key = 'prefix' in shape ? arrayKey(shape) : objectKey(shape);
    const id = this.#shapeKeys.get(key) ?? this.#shapeKeys.size;
    this.#shapeKeys.set(key, id);
    this.#shapeIds.set(shape, id);
    return id;
  }

  #node(schema: unknown, at: string): Node {
    if (schema === true) return this.nodes.all;
    if (schema === false) return this.nodes.none;
    if (!isObject(schema)) throw invalidSchema(at, 'a schema must be an object, true or false');
    return this.nodes.schema(schema);
  }

  #pointer({ form }: Node): string {
    return form.kind === 'schema' ? this.#located(form.schema).at : '';
  }

  /** A generated schema has no location. */
  #located(schema: object): { readonly at: string; readonly draft: KeywordContext['draft'] } {
    return this.#document.has(schema) ? this.#document.locate(schema) : { at: '', draft: 2020 };
  }

  #made({ form }: Node): Shapes {
    switch (form.kind) {
      case 'all':
        return this.algebra.any;
      case 'none':
        return this.algebra.nothing;
      case 'schema':
        return this.#schema(form.schema as SchemaObject);
      case 'and':
        return form.nodes.reduce<Shapes>((all, node) => this.algebra.and(all, this.of(node)), this.algebra.any);
      case 'or':
        return this.algebra.or(form.nodes.map((node) => this.of(node)));
      case 'not':
        return this.algebra.not(this.of(form.node));
    }
  }

  #schema(schema: SchemaObject): Shapes {
    const { at, draft } = this.#located(schema);
    const node = (part: unknown, where: string): Node => this.#node(part, where);
    const context: KeywordContext = { schema, at, draft, nodes: this.nodes, algebra: this.algebra, node };
    const { algebra } = this;
    const referred = this.#referred(schema, at);
    if ('$ref' in schema && draft <= 7) return referred;
    const own = [typeShapes, valueShapes, numberShapes, textShapes, arrayShapes, objectShapes];
    const shapes = own.reduce<Shapes>((all, keyword) => algebra.and(all, keyword(context)), referred);
    const applied = appliedNodes(context).reduce<Shapes>((all, part) => algebra.and(all, this.of(part)), shapes);
    return 'oneOf' in schema ? algebra.and(applied, this.#oneOf(context)) : applied;
  }

  #referred(schema: SchemaObject, at: string): Shapes {
    let shapes = this.algebra.any;
    for (const key of ['$ref', '$dynamicRef', '$recursiveRef']) {
      if (!(key in schema)) continue;
      const reference = schema[key];
      const anchor = typeof reference === 'string' ? reference.replace(/^.*#/, '') : '';
      if (key !== '$ref' && !this.#document.isOnlyDynamicAnchor(anchor))
        throw unsupportedSchema(at, `${key} is ambiguous: it may refer to several schemas`);
      const target = this.#document.resolve(reference, schema);
      shapes = this.algebra.and(shapes, this.of(this.#node(target, at)));
    }
    return shapes;
  }

  /** Exactly one: the alternatives if they exclude each other, otherwise each one without the others. */
  #oneOf({ schema, at }: KeywordContext): Shapes {
    const parts: unknown = schema['oneOf'];
    if (!Array.isArray(parts) || parts.length === 0) throw invalidSchema(at, 'oneOf must be an array of schemas');
    const nodes = parts.map((part: unknown, i) => this.#node(part, `${at}/oneOf/${i}`));
    const alone = nodes.map((node, i) => {
      const others = nodes.filter((other, j) => j !== i && (other === node || this.#overlap(node, other)));
      return this.nodes.and([node, ...others.map((other) => this.nodes.not(other))]);
    });
    try {
      const shapes = this.algebra.or(alone.map((node) => this.of(node)));
      return shapes.loose.has('not') ? { ...shapes, loose: new Set([...shapes.loose, 'oneOf']) } : shapes;
    } catch (error) {
      if (!(error instanceof GrammarLimit)) throw error;
      return { ...this.algebra.or(nodes.map((node) => this.of(node))), loose: new Set(['oneOf']) };
    }
  }

  #overlap(first: Node, second: Node): boolean {
    return this.#possible(this.nodes.and([first, second]), new Map(), disjointDepth).possible;
  }

  /**
   * A value must be finite: a node that is possible only if it contains itself is not possible.
   * @returns `from`: the outermost node assumed impossible on the way. The result is certain only without one.
   */
  #possible(node: Node, path: Map<Node, number>, depth: number): { possible: boolean; from: number } {
    const known = this.#satisfiable.get(node);
    if (known !== undefined) return { possible: known, from: Number.POSITIVE_INFINITY };
    countSteps(1);
    const own = path.get(node);
    if (own !== undefined) return { possible: false, from: own };
    // Assumed possible if it has not been converted.
    if (depth === 0) return { possible: true, from: Number.POSITIVE_INFINITY };
    if (path.size > limits.generation.schemaDepth * 2)
      throw new GrammarLimit('levels of depth', limits.generation.schemaDepth * 2);
    const shapes = this.#lookedAt(node, depth);
    if (!shapes) return { possible: true, from: Number.POSITIVE_INFINITY };
    path.set(node, path.size);
    let from = Number.POSITIVE_INFINITY;
    const has = (part: Node): boolean => {
      const found = this.#possible(part, path, depth - 1);
      if (!found.possible) from = Math.min(from, found.from);
      return found.possible;
    };
    const possible =
      shapes.words.size > 0 ||
      !shapes.numbers.isEmpty ||
      shapes.texts.some((text) => !text.isEmpty) ||
      shapes.arrays.some((shape) => this.#arrayPossible(shape, has)) ||
      shapes.objects.some((shape) => this.plan(shape).isPossible(has));
    path.delete(node);
    const at = path.size;
    const certain = depth === Number.POSITIVE_INFINITY && (possible || from >= at);
    if (certain) this.#satisfiable.set(node, possible);
    return { possible, from: from >= at ? Number.POSITIVE_INFINITY : from };
  }

  /** While alternatives are compared, a schema that is being converted is not entered. */
  #lookedAt(node: Node, depth: number): Shapes | undefined {
    if (depth === Number.POSITIVE_INFINITY) return this.of(node);
    try {
      return this.of(node);
    } catch (error) {
      if (error instanceof Circle) return undefined;
      throw error;
    }
  }

  #arrayPossible(shape: ArrayShape, has: (node: Node) => boolean): boolean {
    const { prefix, rest, min, contains } = shape;
    const needed = prefix.slice(0, min).every(has) && (min <= prefix.length || has(rest));
    return (
      needed && contains.every((_, index) => this.containable(shape, index, 0, has) >= (contains[index]?.min ?? 0))
    );
  }

  /** How many items from `index` on may match `contains`. */
  containable(shape: ArrayShape, contained: number, index: number, has: (node: Node) => boolean): number {
    const { prefix, rest } = shape;
    const own = shape.contains[contained];
    if (!own) return 0;
    let found = 0;
    for (let i = Math.max(index, own.from); i < Math.min(prefix.length, shape.max); i++) {
      const item = prefix[i] ?? rest;
      if (!has(item)) return found;
      if (has(this.nodes.and([item, own.node]))) found++;
    }
    const left = shape.max - Math.max(index, prefix.length, own.from);
    return left > 0 && has(this.nodes.and([rest, own.node])) ? found + left : found;
  }
}

// The properties that an object may have next, given those it has.

/** Higher counts of names are treated as unlimited. */
const manyNames = 100_000;

/** Undeclared names whose values share a node. */
interface Region {
  readonly names: Dfa;
  readonly value: Node;
}

export interface NextNames {
  readonly declared: Dfa;
  readonly regions: readonly Region[];
}

/** A property with an unknown name, different from the others. */
export const unknownName = '\u0000';

class ObjectPlan {
  readonly #shape: ObjectShape;
  readonly #nodes: Nodes;
  /** Names that `propertyNames` allows. */
  readonly #names: Dfa;
  readonly #declared: readonly string[];
  #regions: readonly Region[] | undefined;
  readonly #next = new Map<string, NextNames>();

  constructor(shape: ObjectShape, nodes: Nodes, texts: (node: Node) => readonly TextSet[]) {
    this.#shape = shape;
    this.#nodes = nodes;
    this.#names = shape.names.reduce((left, node) => left.and(union(texts(node))), Dfa.always);
    const declared = shape.clauses.flatMap(({ properties }) => [...properties.keys()]);
    this.#declared = [...new Set([...declared, ...shape.required])];
  }

  /** The node of the property's value. */
  value(name: string): Node {
    if (!this.#names.has(name)) return this.#nodes.none;
    return this.#nodes.and(this.#shape.clauses.flatMap((clause) => ofClause(clause, name)));
  }

  /** For declared properties, and for others that match no pattern. */
  values(): readonly Node[] {
    const others = this.#nodes.and(this.#shape.clauses.map(({ additional }) => additional));
    return [...this.#declared.map((name) => this.value(name)), others];
  }

  isPossible(has: (node: Node) => boolean): boolean {
    const { required, min, max } = this.#shape;
    if (required.length > max || !required.every((name) => has(this.value(name)))) return false;
    if (min <= required.length) return true;
    const further = this.#further(has).reduce((sum, { names }) => sum + names.count(manyNames), 0);
    return this.#declared.filter((name) => has(this.value(name))).length + further >= min;
  }

  canEnd(seen: readonly string[]): boolean {
    const { required, min } = this.#shape;
    return seen.length >= min && required.every((name) => seen.includes(name));
  }

  /** The names that may follow these. @param has whether a value is certainly possible. */
  next(seen: readonly string[], has: (node: Node) => boolean): NextNames {
    const key = JSON.stringify(seen);
    const known = this.#next.get(key);
    if (known) return known;
    const { required, max } = this.#shape;
    const missing = required.filter((name) => !seen.includes(name));
    const isFull = seen.length + missing.length >= max;
    const open = isFull ? missing : this.#declared.filter((name) => !seen.includes(name) && has(this.value(name)));
    this.#regions ??= this.#further(has);
    const taken = Dfa.literals(seen.filter((name) => name !== unknownName && !this.#declared.includes(name)));
    const regions = isFull ? [] : this.#regions.map(({ names, value }) => ({ names: names.without(taken), value }));
    const names = { declared: Dfa.literals(open), regions: regions.filter((region) => !region.names.isEmpty) };
    if (this.#next.size > 256) this.#next.clear();
    this.#next.set(key, names);
    return names;
  }

  /** Undeclared names, divided into regions by the patterns. */
  #further(has: (node: Node) => boolean): readonly Region[] {
    let cut: { readonly names: Dfa; readonly matched: ReadonlySet<Dfa> }[] = [
      { names: this.#names.without(Dfa.literals(this.#declared)), matched: new Set() },
    ];
    const patterns = new Set(this.#shape.clauses.flatMap((clause) => clause.patterns.map(({ dfa }) => dfa)));
    for (const pattern of patterns) {
      cut = cut
        .flatMap(({ names, matched }) => [
          { names: names.and(pattern), matched: new Set([...matched, pattern]) },
          { names: names.without(pattern), matched },
        ])
        .filter(({ names }) => !names.isEmpty);
    }
    const regions = cut.map(({ names, matched }) => {
      const nodes = this.#shape.clauses.flatMap((clause) => ofPatterns(clause, (dfa) => matched.has(dfa)));
      return { names, value: this.#nodes.and(nodes) };
    });
    return regions.filter(({ names, value }) => !names.isEmpty && has(value));
  }
}

const union = (texts: readonly TextSet[]): Dfa => texts.reduce((all, text) => all.or(text.toDfa()), Dfa.never);

function ofClause(clause: Clause, name: string): readonly Node[] {
  const named = clause.properties.get(name);
  const matching = clause.patterns.filter(({ dfa }) => dfa.has(name)).map(({ node }) => node);
  if (named) return [named, ...matching];
  return matching.length > 0 ? matching : [clause.additional];
}

function ofPatterns({ patterns, additional }: Clause, matches: (dfa: Dfa) => boolean): readonly Node[] {
  const matching = patterns.filter(({ dfa }) => matches(dfa)).map(({ node }) => node);
  return matching.length > 0 ? matching : [additional];
}
