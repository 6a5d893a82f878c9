/** Builds a graph node by node. Values are referred to by name; an operator's method returns the name of its output. */
import {
  type Attribute,
  type ElementType,
  elementBytes,
  encodeModel,
  type Graph,
  type Initializer,
  type Node,
  type ValueInfo,
} from './onnxFile.ts';

/** The name of a tensor in the graph. */
export type Value = string;
export type Attributes = Readonly<Record<string, number | string | readonly number[] | Attribute>>;

/** A tensor in the weights file. */
export interface StoredTensor {
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly offset: number;
}

/** Domain of ONNX Runtime's own operators (its docs/ContribOperators.md). */
const microsoft = 'com.microsoft';
const operatorSets = { '': 21, [microsoft]: 1 };

/** Stands for an omitted optional input. */
export const absent: Value = '';

export class GraphBuilder {
  readonly #nodes: Node[] = [];
  readonly #initializers: Initializer[] = [];
  readonly #inputs: ValueInfo[] = [];
  readonly #outputs: ValueInfo[] = [];
  readonly #constants = new Map<string, Value>();
  readonly #names: { count: number };
  readonly #weightsFile: string;

  /** `weightsFile`: path of the file with the `stored` tensors, relative to the model. */
  constructor(weightsFile: string, names = { count: 0 }) {
    this.#weightsFile = weightsFile;
    this.#names = names;
  }

  /** A subgraph for an `If`: it can use the values of this graph, and its value names are unique. */
  branch(): GraphBuilder {
    return new GraphBuilder(this.#weightsFile, this.#names);
  }

  /** Adds a standard operator with one output. */
  op(operator: string, inputs: readonly Value[], attributes: Attributes = {}): Value {
    return this.#add('', operator, inputs, attributes, 1)[0] as Value;
  }

  /** Adds one of ONNX Runtime's own operators with one output. */
  contrib(operator: string, inputs: readonly Value[], attributes: Attributes = {}): Value {
    return this.#add(microsoft, operator, inputs, attributes, 1)[0] as Value;
  }

  /** Like `contrib` with several outputs; false omits an optional output. */
  contribOutputs(
    operator: string,
    inputs: readonly Value[],
    attributes: Attributes,
    outputs: readonly boolean[],
  ): Value[] {
    const names = outputs.map((wanted) => (wanted ? this.#name(operator) : absent));
    this.#push(microsoft, operator, inputs, attributes, names);
    return names.filter((name) => name !== absent);
  }

  /** Splits `value` along `axis`. `sizes` are numbers, or the name of an int64 value. */
  split(
    value: Value,
    sizes: readonly number[] | { readonly sizes: Value; readonly count: number },
    axis = -1,
  ): Value[] {
    const [sizesValue, count] = 'count' in sizes ? [sizes.sizes, sizes.count] : [this.int64(sizes), sizes.length];
    return this.#add('', 'Split', [value, sizesValue], { axis }, count);
  }

  /** The largest values along the last dimension, in descending order. */
  largest(value: Value, count: number): { readonly values: Value; readonly indices: Value } {
    const [values, indices] = this.#add('', 'TopK', [value, this.int64([count])], { axis: -1 }, 2);
    return { values: values as Value, indices: indices as Value };
  }

  /**
   * 0 keeps a dimension, -1 infers it. Prefer 0: it keeps the symbolic name `tokens`, by which the runtime's memory
   * planner finds buffers of equal size. A buffer of unnamed size is never reused and is compared with every later
   * output.
   */
  reshape(value: Value, shape: readonly number[]): Value {
    return this.op('Reshape', [value, this.int64(shape)]);
  }

  transpose(value: Value, permutation: readonly number[]): Value {
    return this.op('Transpose', [value], { perm: permutation });
  }

  int64(values: readonly number[]): Value {
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    return this.#constant('int64', [values.length], data, `int64 ${values.join()}`);
  }

  float32(value: number): Value {
    return this.#constant('float32', [], new Uint8Array(Float32Array.of(value).buffer), `float32 ${value}`);
  }

  zero(type: 'float32' | 'float16'): Value {
    return this.#constant(type, [], new Uint8Array(elementBytes[type]), `${type} zero`);
  }

  #constant(type: ElementType, shape: readonly number[], data: Uint8Array, key: string): Value {
    const known = this.#constants.get(key);
    if (known !== undefined) return known;
    const name = this.#name('constant');
    this.#initializers.push({ name, type, shape, data });
    this.#constants.set(key, name);
    return name;
  }

  /** Adds a tensor of the weights file. `shape` may regroup its elements. */
  stored(tensor: StoredTensor, shape: readonly number[] = tensor.shape): Value {
    const name = this.#name('weight');
    const byteLength = shape.reduce((product, size) => product * size, elementBytes[tensor.type]);
    const data = { file: this.#weightsFile, offset: tensor.offset, byteLength };
    this.#initializers.push({ name, type: tensor.type, shape, data });
    return name;
  }

  input(name: Value, type: ElementType, shape: readonly (number | string)[]): Value {
    this.#inputs.push({ name, type, shape });
    return name;
  }

  output(value: Value, name: string, type: ElementType, shape: readonly (number | string)[]): void {
    this.#push('', 'Identity', [value], {}, [name]);
    this.#outputs.push({ name, type, shape });
  }

  /** Adds an output to a branch. */
  result(value: Value, type: ElementType, shape: readonly (number | string)[]): void {
    this.#outputs.push({ name: this.op('Identity', [value]), type, shape });
  }

  /** Adds an `If` node. Its outputs are those of the branch that runs. */
  conditional(
    condition: Value,
    branches: { readonly then: GraphBuilder; readonly else: GraphBuilder },
    outputs: number,
  ): Value[] {
    const attributes = { then_branch: { graph: branches.then.graph() }, else_branch: { graph: branches.else.graph() } };
    return this.#add('', 'If', [condition], attributes, outputs);
  }

  encode(): Uint8Array {
    return encodeModel(this.graph(), operatorSets);
  }

  graph(): Graph {
    const nodes = this.#nodes;
    const initializers = this.#initializers;
    const inputs = this.#inputs;
    const outputs = this.#outputs;
    return { name: 'graph', nodes, initializers, inputs, outputs };
  }

  #add(domain: string, operator: string, inputs: readonly Value[], attributes: Attributes, count: number) {
    const names = Array.from({ length: count }, () => this.#name(operator));
    this.#push(domain, operator, inputs, attributes, names);
    return names;
  }

  #push(
    domain: string,
    operator: string,
    inputs: readonly Value[],
    attributes: Attributes,
    outputs: readonly Value[],
  ): void {
    const typed = Object.entries(attributes).map(([name, value]) => [name, asAttribute(value)] as const);
    this.#nodes.push({ operator, domain, inputs, outputs, attributes: Object.fromEntries(typed) });
  }

  #name(hint: string): Value {
    return `${hint}_${this.#names.count++}`;
  }
}

/** A plain number is an integer attribute; write a float attribute as `{ float: 1 }`. */
function asAttribute(value: Attributes[string]): Attribute {
  if (typeof value === 'number') return { int: value };
  if (typeof value === 'string') return { string: value };
  return 'length' in value ? { ints: value } : value;
}
