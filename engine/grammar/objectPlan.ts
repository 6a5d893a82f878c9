/** Which properties an object may have next, by those that it has. */
import { Dfa } from './dfa.ts';
import type { Clause, Node, Nodes, ObjectShape } from './shapes.ts';
import type { TextSet } from './textSet.ts';

/** Beyond, there are as many names as anybody needs. */
const manyNames = 100_000;

/** Names that are not declared, whose values are all of one kind. */
export interface Region {
  readonly names: Dfa;
  readonly value: Node;
}

export interface NextNames {
  readonly declared: Dfa;
  readonly regions: readonly Region[];
}

/** Where the name of a property is not known: it is none of the others. */
export const unknownName = '\u0000';

export class ObjectPlan {
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

  /** What the property's value must be. */
  value(name: string): Node {
    if (!this.#names.has(name)) return this.#nodes.none;
    return this.#nodes.and(this.#shape.clauses.flatMap((clause) => ofClause(clause, name)));
  }

  /** Of the properties that are declared, and of others that match no pattern. */
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

  /** The names that may come after these. @param has whether a value is possible, for certain. */
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

  /** Names that are not declared, cut into regions by the patterns. */
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
