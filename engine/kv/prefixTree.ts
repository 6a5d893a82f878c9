/** A radix tree over token ids: finds the stored token lists that share the longest prefix with a prompt. */

interface Node<Value> {
  /** Token ids from the parent to this node; empty at the root only. */
  edge: readonly number[];
  /** Keyed by the first token of their edges. */
  readonly children: Map<number, Node<Value>>;
  /** Values of the lists that end here. */
  readonly values: Set<Value>;
}

/** A shared prefix: its length in tokens, and the values of all lists that start with it. */
export interface PrefixMatch<Value> {
  readonly shared: number;
  readonly values: readonly Value[];
}

const newNode = <Value>(edge: readonly number[]): Node<Value> => ({ edge, children: new Map(), values: new Set() });

export class PrefixTree<Value> {
  readonly #root = newNode<Value>([]);

  insert(tokens: readonly number[], value: Value): void {
    let node = this.#root;
    for (let at = 0; at < tokens.length; ) {
      const child = node.children.get(tokens[at] ?? -1);
      if (!child) {
        const leaf = newNode<Value>(tokens.slice(at));
        node.children.set(tokens[at] ?? -1, leaf);
        node = leaf;
        break;
      }
      const shared = sharedLength(child.edge, tokens, at);
      node = shared === child.edge.length ? child : split(node, child, shared);
      at += shared;
    }
    node.values.add(value);
  }

  /** @returns whether it was stored under these tokens. */
  delete(tokens: readonly number[], value: Value): boolean {
    const path: Node<Value>[] = [this.#root];
    for (let at = 0; at < tokens.length; ) {
      const child = path.at(-1)?.children.get(tokens[at] ?? -1);
      if (!child || sharedLength(child.edge, tokens, at) < child.edge.length) return false;
      path.push(child);
      at += child.edge.length;
    }
    const found = path.at(-1)?.values.delete(value) ?? false;
    prune(path);
    return found;
  }

  /** The longest prefix that any stored list shares with `tokens`. */
  longest(tokens: readonly number[]): PrefixMatch<Value> {
    const [longest] = this.matches(tokens);
    return longest ?? { shared: 0, values: [] };
  }

  /** All prefixes that stored lists share with `tokens`, longest first. */
  *matches(tokens: readonly number[]): Generator<PrefixMatch<Value>> {
    const path: { readonly node: Node<Value>; readonly shared: number }[] = [];
    for (let node = this.#root, at = 0; at < tokens.length; ) {
      const child = node.children.get(tokens[at] ?? -1);
      if (!child) break;
      const shared = sharedLength(child.edge, tokens, at);
      node = child;
      at += shared;
      path.push({ node, shared: at });
      if (shared < child.edge.length) break;
    }
    for (const { node, shared } of path.reverse()) yield { shared, values: valuesBelow(node) };
  }
}

/** Number of tokens of `edge` that equal `tokens` from index `at` on. */
function sharedLength(edge: readonly number[], tokens: readonly number[], at: number): number {
  const length = Math.min(edge.length, tokens.length - at);
  let shared = 0;
  while (shared < length && edge[shared] === tokens[at + shared]) shared++;
  return shared;
}

/** Inserts a node between parent and child, `shared` tokens down the child's edge. */
function split<Value>(parent: Node<Value>, child: Node<Value>, shared: number): Node<Value> {
  const middle = newNode<Value>(child.edge.slice(0, shared));
  parent.children.set(middle.edge[0] ?? -1, middle);
  child.edge = child.edge.slice(shared);
  middle.children.set(child.edge[0] ?? -1, child);
  return middle;
}

/** Removes leaves without values and merges nodes with a single child. */
function prune<Value>(path: readonly Node<Value>[]): void {
  for (let depth = path.length - 1; depth > 0; depth--) {
    const [parent, node] = [path[depth - 1], path[depth]];
    if (!parent || !node || node.values.size > 0) return;
    const [only, ...others] = node.children.values();
    if (others.length > 0) return;
    const key = node.edge[0] ?? -1;
    if (!only) {
      parent.children.delete(key);
      continue;
    }
    only.edge = [...node.edge, ...only.edge];
    parent.children.set(key, only);
    return;
  }
}

function valuesBelow<Value>(top: Node<Value>): Value[] {
  const values: Value[] = [];
  const open = [top];
  for (let node = open.pop(); node; node = open.pop()) {
    values.push(...node.values);
    open.push(...node.children.values());
  }
  return values;
}
