/** Builds a graph node by node. Values are referred to by name; an operator's method returns the name of its output. */
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

// Encodes the subset of the ONNX file format that Hearth uses: messages and field numbers of onnx/onnx.proto3 (ONNX
// 1.16, IR version 10). Uses protobuf's wire primitives, so that no code has to be generated from the schema.

/** TensorProto.DataType */
export const elementTypes = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
} as const;
export type ElementType = keyof typeof elementTypes;

export const elementBytes: Readonly<Record<ElementType, number>> = {
  float32: 4,
  uint8: 1,
  int8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
  float16: 2,
  bfloat16: 2,
};

interface Node {
  readonly operator: string;
  /** '' is the standard operator set. */
  readonly domain: string;
  /** '' omits an optional input or output. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }
  | { readonly graph: Graph };

interface ValueInfo {
  readonly name: string;
  readonly type: ElementType;
  /** A string names a dimension that is known only at run time. */
  readonly shape: readonly (number | string)[];
}

interface Initializer {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly data: Uint8Array | { readonly file: string; readonly offset: number; readonly byteLength: number };
}

interface Graph {
  readonly name: string;
  readonly nodes: readonly Node[];
  readonly initializers: readonly Initializer[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

/** AttributeProto.AttributeType */
const attributeTypes = { float: 1, int: 2, string: 3, graph: 5, ints: 7 } as const;
const irVersion = 10;
const externalDataLocation = 1;

function encodeModel(graph: Graph, operatorSets: Readonly<Record<string, number>>): Uint8Array {
  const writer = new BinaryWriter();
  writer.tag(1, WireType.Varint).int64(irVersion);
  text(writer, 2, 'hearth');
  message(writer, 7, () => writeGraph(writer, graph));
  for (const [domain, version] of Object.entries(operatorSets)) {
    message(writer, 8, () => {
      text(writer, 1, domain);
      writer.tag(2, WireType.Varint).int64(version);
    });
  }
  return writer.finish();
}

function writeGraph(writer: BinaryWriter, graph: Graph): void {
  for (const node of graph.nodes) message(writer, 1, () => writeNode(writer, node));
  text(writer, 2, graph.name);
  for (const initializer of graph.initializers) message(writer, 5, () => writeTensor(writer, initializer));
  for (const input of graph.inputs) message(writer, 11, () => writeValueInfo(writer, input));
  for (const output of graph.outputs) message(writer, 12, () => writeValueInfo(writer, output));
}

function writeNode(writer: BinaryWriter, node: Node): void {
  for (const input of node.inputs) text(writer, 1, input);
  for (const output of node.outputs) text(writer, 2, output);
  // The node takes its first output's name, which the runtime's errors and profiles show.
  text(writer, 3, node.outputs.find((name) => name !== '') ?? node.operator);
  text(writer, 4, node.operator);
  for (const [name, value] of Object.entries(node.attributes)) {
    message(writer, 5, () => writeAttribute(writer, name, value));
  }
  text(writer, 7, node.domain);
}

function writeAttribute(writer: BinaryWriter, name: string, value: Attribute): void {
  text(writer, 1, name);
  if ('float' in value) {
    writer.tag(2, WireType.Bit32).float(value.float);
    attributeType(writer, 'float');
  } else if ('int' in value) {
    writer.tag(3, WireType.Varint).int64(value.int);
    attributeType(writer, 'int');
  } else if ('string' in value) {
    text(writer, 4, value.string);
    attributeType(writer, 'string');
  } else if ('graph' in value) {
    message(writer, 6, () => writeGraph(writer, value.graph));
    attributeType(writer, 'graph');
  } else {
    for (const item of value.ints) writer.tag(8, WireType.Varint).int64(item);
    attributeType(writer, 'ints');
  }
}

function attributeType(writer: BinaryWriter, type: keyof typeof attributeTypes): void {
  writer.tag(20, WireType.Varint).int32(attributeTypes[type]);
}

function writeTensor(writer: BinaryWriter, { name, type, shape, data }: Initializer): void {
  for (const size of shape) writer.tag(1, WireType.Varint).int64(size);
  writer.tag(2, WireType.Varint).int32(elementTypes[type]);
  text(writer, 8, name);
  if (data instanceof Uint8Array) {
    writer.tag(9, WireType.LengthDelimited).bytes(data);
    return;
  }
  const entries = { location: data.file, offset: String(data.offset), length: String(data.byteLength) };
  for (const [key, value] of Object.entries(entries)) {
    message(writer, 13, () => {
      text(writer, 1, key);
      text(writer, 2, value);
    });
  }
  writer.tag(14, WireType.Varint).int32(externalDataLocation);
}

function writeValueInfo(writer: BinaryWriter, { name, type, shape }: ValueInfo): void {
  text(writer, 1, name);
  message(writer, 2, () =>
    message(writer, 1, () => {
      writer.tag(1, WireType.Varint).int32(elementTypes[type]);
      message(writer, 2, () => {
        for (const size of shape) {
          message(writer, 1, () => {
            if (typeof size === 'number') writer.tag(1, WireType.Varint).int64(size);
            else text(writer, 2, size);
          });
        }
      });
    }),
  );
}

function text(writer: BinaryWriter, field: number, value: string): void {
  writer.tag(field, WireType.LengthDelimited).string(value);
}

function message(writer: BinaryWriter, field: number, write: () => void): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  write();
  writer.join();
}

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

  /** Makes the value an output under its own name: no node copies it. */
  expose(value: Value, type: ElementType, shape: readonly (number | string)[]): void {
    this.#outputs.push({ name: value, type, shape });
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
