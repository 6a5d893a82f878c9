/** Which properties an object may have next, by those that it has. */
import { Dfa } from './dfa.ts';
import type { Clause, Node, Nodes, ObjectShape } from './shapes.ts';
import type { TextSet } from './textSet.ts';

/** Beyond, there are as many names as anybody needs. */
const manyNames = 100_000;

export class ObjectPlan {
  readonly #shape: ObjectShape;
  readonly #nodes: Nodes;
  /** Names that `propertyNames` allows. */
  readonly #names: Dfa;
  readonly #declared: readonly string[];
  #further: Dfa | undefined;
  readonly #keys = new Map<string, Dfa>();

  constructor(shape: ObjectShape, nodes: Nodes, texts: (node: Node) => readonly TextSet[]) {
    this.#shape = shape;
    this.#nodes = nodes;
    this.#names = shape.names.reduce((left, node) => left.and(union(texts(node))), Dfa.always);
    const declared = shape.clauses.flatMap(({ properties }) => [...properties.keys()]);
    this.#declared = [...new Set([...declared, ...shape.required])];
  }

  /** What the property's value must be. */
  value(name: string): Node {
    if (!this.#names.has(name)) return this.#nodes.none;
    return this.#nodes.and(this.#shape.clauses.flatMap((clause) => ofClause(clause, name)));
  }

  isPossible(has: (node: Node) => boolean): boolean {
    const { required, min, max } = this.#shape;
    if (required.length > max || !required.every((name) => has(this.value(name)))) return false;
    if (min <= required.length) return true;
    // With a map of our own: what is possible is not known for certain yet.
    const further = this.#furtherNames(has).count(manyNames);
    return this.#declared.filter((name) => has(this.value(name))).length + further >= min;
  }

  canEnd(seen: readonly string[]): boolean {
    const { required, min } = this.#shape;
    return seen.length >= min && required.every((name) => seen.includes(name));
  }

  /** The names that may come after these. @param has whether a value is possible, for certain. */
  next(seen: readonly string[], has: (node: Node) => boolean): Dfa {
    const key = JSON.stringify(seen);
    const known = this.#keys.get(key);
    if (known) return known;
    const { required, max } = this.#shape;
    const missing = required.filter((name) => !seen.includes(name));
    const isFull = seen.length + missing.length >= max;
    const open = isFull ? missing : this.#declared.filter((name) => !seen.includes(name) && has(this.value(name)));
    this.#further ??= this.#furtherNames(has);
    const further = isFull ? Dfa.never : this.#further.without(Dfa.literals(seen));
    const names = Dfa.literals(open).or(further);
    if (this.#keys.size > 256) this.#keys.clear();
    this.#keys.set(key, names);
    return names;
  }

  /** Names that are not declared: cut into regions by the patterns, each with values of its own. */
  #furtherNames(has: (node: Node) => boolean): Dfa {
    let regions: { readonly names: Dfa; readonly matched: ReadonlySet<Dfa> }[] = [
      { names: this.#names.without(Dfa.literals(this.#declared)), matched: new Set() },
    ];
    const patterns = new Set(this.#shape.clauses.flatMap((clause) => clause.patterns.map(({ dfa }) => dfa)));
    for (const pattern of patterns) {
      regions = regions
        .flatMap(({ names, matched }) => [
          { names: names.and(pattern), matched: new Set([...matched, pattern]) },
          { names: names.without(pattern), matched },
        ])
        .filter(({ names }) => !names.isEmpty);
    }
    const possible = regions.filter(({ matched }) =>
      has(this.#nodes.and(this.#shape.clauses.flatMap((clause) => ofPatterns(clause, (dfa) => matched.has(dfa))))),
    );
    return possible.reduce((all, { names }) => all.or(names), Dfa.never);
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
