/** The values that a schema allows, by type. Every schema is converted to this form before its values are generated. */
import { Dfa, TextSet } from './dfa.ts';
import { anyNumber, otherNumber } from './numbers.ts';
import { countSteps, GrammarLimit } from './schemaDocument.ts';

/** One schema or a conjunction of several, converted when a value of it begins. Equal ones are the same object. */
export interface Node {
  readonly id: number;
  readonly form:
    | { readonly kind: 'all' | 'none' }
    | { readonly kind: 'schema'; readonly schema: object }
    | { readonly kind: 'and' | 'or'; readonly nodes: readonly Node[] }
    | { readonly kind: 'not'; readonly node: Node };
}

export interface Contained {
  readonly node: Node;
  /** Items before this one do not count. */
  readonly from: number;
  readonly min: number;
  readonly max: number;
}

export interface ArrayShape {
  readonly prefix: readonly Node[];
  readonly rest: Node;
  readonly min: number;
  readonly max: number;
  readonly contains: readonly Contained[];
}

/** `properties`, `patternProperties` and `additionalProperties` of one schema. */
export interface Clause {
  readonly properties: ReadonlyMap<string, Node>;
  readonly patterns: readonly { readonly dfa: Dfa; readonly node: Node }[];
  readonly additional: Node;
}

export interface ObjectShape {
  readonly clauses: readonly Clause[];
  readonly required: readonly string[];
  readonly min: number;
  readonly max: number;
  readonly names: readonly Node[];
}

/** A value matches if it matches any alternative of its type. */
export interface Shapes {
  readonly words: ReadonlySet<'null' | 'true' | 'false'>;
  readonly numbers: Dfa;
  readonly texts: readonly TextSet[];
  readonly arrays: readonly ArrayShape[];
  readonly objects: readonly ObjectShape[];
  /** Partly enforced keywords, which are checked when the answer is complete. */
  readonly loose: ReadonlySet<string>;
}

const infinite = Number.POSITIVE_INFINITY;
const maxAlternatives = 512;

/** Creates each node once. */
export class Nodes {
  readonly #known = new Map<string, Node>();
  readonly #schemas = new Map<object, Node>();
  readonly all = this.#node('all', { kind: 'all' });
  readonly none = this.#node('none', { kind: 'none' });

  schema(schema: object): Node {
    const known = this.#schemas.get(schema) ?? this.#node(`schema ${this.#schemas.size}`, { kind: 'schema', schema });
    this.#schemas.set(schema, known);
    return known;
  }

  and(nodes: readonly Node[]): Node {
    if (nodes.includes(this.none)) return this.none;
    return this.#joined('and', nodes, this.all);
  }

  or(nodes: readonly Node[]): Node {
    if (nodes.includes(this.all)) return this.all;
    return this.#joined('or', nodes, this.none);
  }

  not(node: Node): Node {
    if (node === this.all) return this.none;
    if (node === this.none) return this.all;
    if (node.form.kind === 'not') return node.form.node;
    return this.#node(`not ${node.id}`, { kind: 'not', node });
  }

  #joined(kind: 'and' | 'or', nodes: readonly Node[], neutral: Node): Node {
    const flat = nodes.flatMap((node) => (node.form.kind === kind && 'nodes' in node.form ? node.form.nodes : [node]));
    const distinct = [...new Set(flat)].filter((node) => node !== neutral).sort((a, b) => a.id - b.id);
    const [only] = distinct;
    if (distinct.length <= 1) return only ?? neutral;
    return this.#node(`${kind} ${distinct.map(({ id }) => id).join()}`, { kind, nodes: distinct });
  }

  #node(key: string, form: Node['form']): Node {
    const known = this.#known.get(key) ?? { id: this.#known.size, form };
    this.#known.set(key, known);
    return known;
  }
}

/** The algebra of shapes over one set of nodes. */
export class ShapeAlgebra {
  readonly #nodes: Nodes;
  readonly any: Shapes;
  readonly nothing: Shapes;
  readonly anyArray: ArrayShape;
  readonly anyObject: ObjectShape = { clauses: [], required: [], min: 0, max: infinite, names: [] };

  constructor(nodes: Nodes) {
    this.#nodes = nodes;
    this.anyArray = { prefix: [], rest: nodes.all, min: 0, max: infinite, contains: [] };
    const loose = new Set<string>();
    this.nothing = { words: new Set(), numbers: Dfa.never, texts: [], arrays: [], objects: [], loose };
    this.any = {
      words: new Set(['null', 'true', 'false']),
      numbers: anyNumber(),
      texts: [TextSet.any],
      arrays: [this.anyArray],
      objects: [this.anyObject],
      loose,
    };
  }

  /** Joins all at once, because joining one by one would compare each with all before it. */
  or(all: readonly Shapes[]): Shapes {
    const [only] = all;
    if (only && all.length === 1) return only;
    return {
      words: new Set(all.flatMap(({ words }) => [...words])),
      numbers: [...new Set(all.map(({ numbers }) => numbers))].reduce((left, numbers) => left.or(numbers), Dfa.never),
      texts: distinct(
        all.flatMap(({ texts }) => texts),
        ({ key }) => key,
        (text) => text.isAll,
      ),
      arrays: this.#distinctArrays(all.flatMap(({ arrays }) => arrays)),
      objects: this.#distinctObjects(all.flatMap(({ objects }) => objects)),
      loose: new Set(all.flatMap(({ loose }) => [...loose])),
    };
  }

  and(first: Shapes, second: Shapes): Shapes {
    if (first === this.any) return second;
    if (second === this.any) return first;
    return {
      words: new Set([...first.words].filter((word) => second.words.has(word))),
      numbers: first.numbers.and(second.numbers),
      texts: this.#crossTexts(first.texts, second.texts),
      arrays: this.#distinctArrays(cross(first.arrays, second.arrays, (a, b) => this.arraysAnd(a, b))),
      objects: this.#distinctObjects(cross(first.objects, second.objects, (a, b) => this.objectsAnd(a, b))),
      loose: new Set([...first.loose, ...second.loose]),
    };
  }

  /** The complement. If it can't be expressed exactly, a superset marked `loose`. */
  not(shapes: Shapes): Shapes {
    if (shapes.loose.size > 0) return { ...this.any, loose: shapes.loose };
    const loose = new Set<string>();
    const objects = shapes.objects.map((shape) => this.#otherObjects(shape));
    if (objects.includes(undefined)) loose.add('not');
    return {
      words: new Set([...this.any.words].filter((word) => !shapes.words.has(word))),
      numbers: shapes.numbers === this.any.numbers ? Dfa.never : otherNumber(shapes.numbers),
      texts: shapes.texts.reduce<readonly TextSet[]>(
        (left, text) => this.#crossTexts(left, text.complement()),
        this.any.texts,
      ),
      arrays: shapes.arrays.reduce<readonly ArrayShape[]>(
        (left, shape) => cross(left, this.#otherArrays(shape), (a, b) => this.arraysAnd(a, b)),
        this.any.arrays,
      ),
      objects: objects.reduce<readonly ObjectShape[]>(
        (left, others) => (others ? cross(left, others, (a, b) => this.objectsAnd(a, b)) : left),
        this.any.objects,
      ),
      loose,
    };
  }

  arraysAnd(a: ArrayShape, b: ArrayShape): ArrayShape | undefined {
    const min = Math.max(a.min, b.min);
    const max = Math.min(a.max, b.max);
    if (min > max) return undefined;
    const length = Math.max(a.prefix.length, b.prefix.length);
    const prefix = Array.from({ length }, (_, i) => this.#nodes.and([a.prefix[i] ?? a.rest, b.prefix[i] ?? b.rest]));
    return { prefix, rest: this.#nodes.and([a.rest, b.rest]), min, max, contains: [...a.contains, ...b.contains] };
  }

  objectsAnd(a: ObjectShape, b: ObjectShape): ObjectShape | undefined {
    const min = Math.max(a.min, b.min);
    const max = Math.min(a.max, b.max);
    const required = [...new Set([...a.required, ...b.required])].sort();
    if (min > max || required.length > max) return undefined;
    const clauses = [...new Map([...a.clauses, ...b.clauses].map((clause) => [clauseKey(clause), clause])).values()];
    if (required.some((name) => clauses.some(({ properties }) => properties.get(name) === this.#nodes.none)))
      return undefined;
    return { clauses, required, min, max, names: [...new Set([...a.names, ...b.names])] };
  }

  forbidding(name: string): ObjectShape {
    return this.having(name, this.#nodes.none, []);
  }

  having(name: string, node: Node, required: readonly string[]): ObjectShape {
    const clause = { properties: new Map([[name, node]]), patterns: [], additional: this.#nodes.all };
    return { ...this.anyObject, clauses: node === this.#nodes.all ? [] : [clause], required };
  }

  #otherArrays({ prefix, rest, min, max, contains }: ArrayShape): readonly ArrayShape[] {
    const { all } = this.#nodes;
    const having = (node: Node, from: number): Contained => ({
      node: this.#nodes.not(node),
      from,
      min: 1,
      max: infinite,
    });
    return [
      ...(min > 0 ? [{ ...this.anyArray, max: min - 1 }] : []),
      ...(max < infinite ? [{ ...this.anyArray, min: max + 1 }] : []),
      ...prefix.flatMap((node, i) =>
        node === all
          ? []
          : [{ ...this.anyArray, prefix: [...new Array<Node>(i).fill(all), this.#nodes.not(node)], min: i + 1 }],
      ),
      ...(rest === all ? [] : [{ ...this.anyArray, contains: [having(rest, prefix.length)], min: prefix.length + 1 }]),
      ...contains.flatMap((own) => [
        ...(own.min > 0 ? [{ ...this.anyArray, contains: [{ ...own, min: 0, max: own.min - 1 }] }] : []),
        ...(own.max < infinite ? [{ ...this.anyArray, contains: [{ ...own, min: own.max + 1, max: infinite }] }] : []),
      ]),
    ];
  }

  /** `undefined`: requiring that some unnamed property is of another kind can't be expressed. */
  #otherObjects({ clauses, required, min, max, names }: ObjectShape): readonly ObjectShape[] | undefined {
    const { all } = this.#nodes;
    const open = clauses.every(
      ({ patterns, additional }) => additional === all && patterns.every(({ node }) => node === all),
    );
    if (!open || names.length > 0) return undefined;
    return [
      ...required.map((name) => this.forbidding(name)),
      ...clauses.flatMap(({ properties }) =>
        [...properties]
          .filter(([, node]) => node !== all)
          .map(([name, node]) => this.having(name, this.#nodes.not(node), [name])),
      ),
      ...(min > 0 ? [{ ...this.anyObject, max: min - 1 }] : []),
      ...(max < infinite ? [{ ...this.anyObject, min: max + 1 }] : []),
    ];
  }

  #crossTexts(first: readonly TextSet[], second: readonly TextSet[]): readonly TextSet[] {
    const both = cross(first, second, (a, b) => {
      const text = a.and(b);
      return text.isEmpty ? undefined : text;
    });
    return distinct(
      both,
      ({ key }) => key,
      (text) => text.isAll,
    );
  }

  #distinctArrays(shapes: readonly ArrayShape[]): readonly ArrayShape[] {
    const any = arrayKey(this.anyArray);
    return distinct(shapes, arrayKey, (shape) => arrayKey(shape) === any);
  }

  #distinctObjects(shapes: readonly ObjectShape[]): readonly ObjectShape[] {
    const any = objectKey(this.anyObject);
    return distinct(shapes, objectKey, (shape) => objectKey(shape) === any);
  }
}

/** @throws GrammarLimit beyond 512 alternatives. */
function cross<Shape>(
  first: readonly Shape[],
  second: readonly Shape[],
  join: (a: Shape, b: Shape) => Shape | undefined,
): Shape[] {
  if (first.length * second.length > 4 * maxAlternatives) throw new GrammarLimit('alternatives', maxAlternatives);
  countSteps(first.length * second.length);
  return first.flatMap((a) => second.flatMap((b) => join(a, b) ?? []));
}

function distinct<Shape>(
  shapes: readonly Shape[],
  key: (shape: Shape) => string,
  isAll: (shape: Shape) => boolean,
): readonly Shape[] {
  const all = shapes.find(isAll);
  if (all) return [all];
  const kept = [...new Map(shapes.map((shape) => [key(shape), shape])).values()];
  if (kept.length > maxAlternatives) throw new GrammarLimit('alternatives', maxAlternatives);
  return kept;
}

export const arrayKey = ({ prefix, rest, min, max, contains }: ArrayShape): string =>
  `${prefix.map(({ id }) => id).join()}|${rest.id}|${min}|${max}|${contains.map((own) => `${own.node.id},${own.from},${own.min},${own.max}`).join(';')}`;

const clauseKeys = new WeakMap<Clause, string>();
function clauseKey(clause: Clause): string {
  const known = clauseKeys.get(clause);
  if (known !== undefined) return known;
  const { properties, patterns, additional } = clause;
  const named = [...properties].map(([name, { id }]) => [name, id]);
  const key = `${JSON.stringify(named)}|${patterns.map(({ dfa, node }) => `${dfa.id},${node.id}`).join(';')}|${additional.id}`;
  clauseKeys.set(clause, key);
  return key;
}

const objectKeys = new WeakMap<ObjectShape, string>();
export function objectKey(shape: ObjectShape): string {
  const known = objectKeys.get(shape);
  if (known !== undefined) return known;
  const { clauses, required, min, max, names } = shape;
  const own = clauses.map(clauseKey).join('&');
  const key = `${own}|${JSON.stringify(required)}|${min}|${max}|${names.map(({ id }) => id).join()}`;
  objectKeys.set(shape, key);
  return key;
}
