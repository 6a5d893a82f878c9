/**
 * The building blocks of layers, as ggml operators on one context. Shapes in comments are ggml's: the row's length
 * first.
 */
import type { Activation } from '../../model/spec/spec.ts';
import type { Ggml, Pointer } from './library.ts';

/** Bytes of a cache line. */
const lineBytes = 64;

/** Of matrices that the loader made one tensor. */
export const jointKey = (key: string, names: readonly string[]): string => `${key}.${names.join('+')}`;

/** `[length, tokens]` f32, with `stride` elements from one row to the next. */
interface Rows {
  readonly tensor: Pointer;
  readonly stride: number;
}

/** The chosen experts of some tokens. */
interface Choice {
  /** `[expertsPerToken, tokens]` i32 */
  readonly chosen: Pointer;
  readonly hiddenSize: number;
  readonly tokens: number;
  readonly activation: Activation;
}

export class Operators {
  readonly #ggml: Ggml;
  readonly #context: Pointer;
  readonly #tensors: ReadonlyMap<string, Pointer>;

  /** @param tensors weights by key; a bias has its linear layer's key with `.bias`. */
  constructor(ggml: Ggml, context: Pointer, tensors: ReadonlyMap<string, Pointer>) {
    this.#ggml = ggml;
    this.#context = context;
    this.#tensors = tensors;
  }

  /**
   * A graph's input, padded to whole cache lines, so that the activations after it start on one: ggml's allocator
   * aligns by 32 bytes, and matmuls took 1.4 times as long if each vector that they write lies on two lines.
   */
  input(type: number, rowLength: number, rows = 1): Pointer {
    const { ggml_new_tensor_1d, ggml_set_input, ggml_type_size, ggml_view_2d } = this.#ggml;
    const elementBytes = ggml_type_size(type);
    const step = lineBytes / elementBytes;
    const memory = ggml_new_tensor_1d(this.#context, type, step * Math.ceil((rowLength * rows) / step));
    ggml_set_input(memory);
    return ggml_view_2d(this.#context, memory, rowLength, rows, rowLength * elementBytes, 0);
  }

  /**
   * Several linear layers of one input `[width, tokens]`.
   * @param lengths number of outputs of each, in the loader's order.
   */
  linears<Name extends string>(
    key: string,
    lengths: Readonly<Record<Name, number>>,
    input: Pointer,
    tokens: number,
  ): (name: Name) => Rows {
    const parts = Object.entries<number>(lengths);
    const rows = new Map<string, Rows>();
    while (rows.size < parts.length) {
      let run = parts.slice(rows.size);
      const own = () =>
        jointKey(
          key,
          run.map(([name]) => name),
        );
      while (run.length > 1 && !this.has(own())) run = run.slice(0, -1);
      const product = this.linear(own(), input);
      const stride = run.reduce((sum, [, length]) => sum + length, 0);
      let first = 0;
      for (const [name, length] of run) {
        const part = this.#ggml.ggml_view_2d(this.#context, product, length, tokens, 4 * stride, 4 * first);
        rows.set(name, { tensor: part, stride });
        first += length;
      }
    }
    return (name) => {
      const own = rows.get(name);
      if (!own) throw new Error(`${key} has no ${name}.`);
      return own;
    };
  }

  linear(key: string, input: Pointer): Pointer {
    const product = this.product(key, input);
    const bias = `${key}.bias`;
    return this.has(bias) ? this.#ggml.ggml_add(this.#context, product, this.tensor(bias)) : product;
  }

  product(key: string, input: Pointer): Pointer {
    return this.#ggml.ggml_mul_mat(this.#context, this.tensor(key), input);
  }

  /** @param width of the intermediate activations. */
  dense(
    key: string,
    activation: Activation,
    input: Pointer,
    { width, tokens }: { readonly width: number; readonly tokens: number },
  ): Pointer {
    const rows = this.linears(key, { gate: width, up: width }, input, tokens);
    return this.product(`${key}.down`, this.activated(activation, rows('gate').tensor, rows('up').tensor));
  }

  /** Each token's chosen experts. `[hidden, tokens]` to `[hidden, expertsPerToken, tokens]` */
  experts(key: string, input: Pointer, { chosen, hiddenSize, tokens, activation }: Choice): Pointer {
    const { ggml_add_id, ggml_mul_mat_id, ggml_reshape_3d } = this.#ggml;
    const each = ggml_reshape_3d(this.#context, input, hiddenSize, 1, tokens);
    const expert = (name: string, of: Pointer): Pointer => {
      const product = ggml_mul_mat_id(this.#context, this.tensor(`${key}.${name}`), of, chosen);
      const bias = `${key}.${name}.bias`;
      return this.has(bias) ? ggml_add_id(this.#context, product, this.tensor(bias), chosen) : product;
    };
    return expert('down', this.activated(activation, expert('gate', each), expert('up', each)));
  }

  activated(activation: Activation, gate: Pointer, up: Pointer): Pointer {
    const { ggml_swiglu_split, ggml_swiglu_oai } = this.#ggml;
    switch (activation.kind) {
      case 'silu-gate':
        return ggml_swiglu_split(this.#context, gate, up);
      case 'swiglu-clamped':
        return ggml_swiglu_oai(this.#context, gate, up, activation.alpha, activation.limit);
      case 'gelu-gate':
        return this.#ggml.ggml_mul(this.#context, this.gelu(gate), up);
    }
  }

  /** `½ (1 + tanh u) = sigmoid(2u)`. ggml's own GELU uses a table of f16 values. */
  gelu(x: Pointer): Pointer {
    const { ggml_add, ggml_mul, ggml_sigmoid, ggml_sqr } = this.#ggml;
    const context = this.#context;
    const cubed = ggml_mul(context, ggml_sqr(context, x), x);
    const twice = this.scaled(ggml_add(context, x, this.scaled(cubed, 0.044715)), 2 * Math.sqrt(2 / Math.PI));
    return ggml_mul(context, x, ggml_sigmoid(context, twice));
  }

  scaled(values: Pointer, factor: number): Pointer {
    return this.#ggml.ggml_scale(this.#context, values, factor);
  }

  has(key: string): boolean {
    return this.#tensors.has(key);
  }

  tensor(key: string): Pointer {
    const tensor = this.#tensors.get(key);
    if (tensor === undefined) throw new Error(`The graph needs ${key}, which was not loaded.`);
    return tensor;
  }
}
