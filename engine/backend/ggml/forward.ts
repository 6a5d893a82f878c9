/**
 * A forward pass over the new tokens of one sequence as a graph of ggml's operators. Shapes in comments are ggml's: the
 * row's length first. Values that change from pass to pass without changing a shape are inputs, so that decode builds a
 * new graph only when the cache grows.
 */
import { attentionFactor, inverseFrequencies } from '../../model/spec/rope.ts';
import type {
  ExpertsSpec,
  FeedForwardSpec,
  GroupedQueryAttentionSpec,
  LayerSpec,
  QueryTemperature,
  RopeSpec,
} from '../../model/spec/spec.ts';
import type { LayerCacheSpec } from '../processor/messages.ts';
import { Attention, attentionNodes, maskLength, type TokenBlock } from './attention.ts';
import type { Ggml, GgmlModel, Pointer } from './library.ts';
import { Operators } from './operators.ts';
import { float32, int32, int64 } from './types.ts';

/** Most nodes and leaves of a layer: a layer with experts has about eighty, plus three for each expert of a token. */
const nodesPerLayer = 256;
const nodesBeside = 64;

/** `ggml_rope_ext`'s modes. */
const ropeModes: Readonly<Record<RopeSpec['layout'], number>> = { interleaved: 0, 'half-split': 2 };

export interface Loaded {
  readonly ggml: Ggml;
  readonly model: GgmlModel;
  readonly tensors: ReadonlyMap<string, Pointer>;
  /** Divisors of the positions, `[pairs]` f32, for each kind of rotation. */
  readonly rotations: ReadonlyMap<string, Pointer>;
}

export interface PassShape {
  readonly tokens: number;
  readonly rows: number;
  /**
   * For each window group, the blocks of tokens that attention computes at once, and how much of the cache they read.
   */
  readonly blocks: readonly (readonly TokenBlock[])[];
  /** Addresses of each layer's keys and values. */
  readonly ranges: readonly { readonly keys: Pointer; readonly values: Pointer; readonly columns: number }[];
  /** For each window group, the column to which the first token is written, if there are several tokens. */
  readonly starts: readonly number[];
}

/** Destinations of the elements of a token's values. */
export interface ValueTargets {
  readonly group: number;
  readonly width: number;
  readonly columns: number;
  /** `[width]` i32 */
  readonly elements: Pointer;
}

export interface PassGraph {
  readonly context: Pointer;
  readonly graph: Pointer;
  /** Hidden states that enter the first layer. `[hidden, tokens]` f32 */
  readonly hidden: Pointer;
  /** `[tokens]` i32 */
  readonly positions: Pointer;
  /** For each query temperature, the factor on each token's queries. `[tokens]` f32 */
  readonly queryFactors: readonly { readonly temperature: QueryTemperature; readonly factors: Pointer }[];
  /** Tokens whose logits are requested, if not all. `[rows]` i32 */
  readonly rows: Pointer;
  /** For each window group: −∞ where a token doesn't see a row of the cache (`VisibleCache.mask`). `[maskLength(blocks)]` f32 */
  readonly masks: readonly Pointer[];
  /** For each window group, the rows of the cache's keys to which the tokens are written. `[tokens]` i64 */
  readonly targets: readonly Pointer[];
  /** Set in a pass of one token. */
  readonly valueTargets: readonly ValueTargets[];
  /** `[vocabulary or hidden, rows]` f32; null if none is requested. */
  readonly output: Pointer;
}

export function buildPass(loaded: Loaded, shape: PassShape): PassGraph {
  return new PassBuilder(loaded, shape).build();
}

/** Identifies a rotation of the model. */
export const rotationKey = (rope: RopeSpec): string => JSON.stringify(rope);

/**
 * Divisors of the positions, so that context extension is computed in one place (model/spec/rope.ts): ggml divides the
 * angle `position · base^(-2i/d)` by them, with a base of one.
 */
export const rotationDivisors = (rope: RopeSpec): Float32Array =>
  Float32Array.from(inverseFrequencies(rope), (frequency) => 1 / frequency);

class PassBuilder {
  readonly #ggml: Ggml;
  readonly #loaded: Loaded;
  readonly #model: GgmlModel;
  readonly #shape: PassShape;
  readonly #context: Pointer;
  readonly #graph: Pointer;
  readonly #operators: Operators;
  readonly #positions: Pointer;
  readonly #queryFactors = new Map<string, PassGraph['queryFactors'][number]>();
  readonly #masks: Pointer[];
  readonly #targets: Pointer[];
  readonly #valueTargets = new Map<string, ValueTargets>();
  readonly #outputs = new Map<number, Pointer>();

  constructor(loaded: Loaded, shape: PassShape) {
    const { ggml, model } = loaded;
    this.#ggml = ggml;
    this.#loaded = loaded;
    this.#model = model;
    this.#shape = shape;
    const nodes = model.spec.layers.reduce((sum, { attention }, index) => {
      const blocks = shape.blocks[model.layers[index]?.group ?? 0] ?? [];
      const own = attention.kind === 'grouped-query' ? attentionNodes(attention, blocks) : 0;
      return sum + nodesPerLayer + own;
    }, nodesBeside);
    const bytes = nodes * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead_custom(nodes, false);
    this.#context = ggml.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
    this.#graph = ggml.ggml_new_graph_custom(this.#context, nodes, false);
    this.#operators = new Operators(ggml, this.#context, loaded.tensors);
    this.#positions = this.#input(int32, shape.tokens);
    this.#masks = shape.blocks.map((blocks) => this.#input(float32, maskLength(blocks)));
    this.#targets = shape.blocks.map(() => this.#input(int64, shape.tokens));
  }

  #input(type: number, rowLength: number, rows?: number): Pointer {
    const input = this.#operators.input(type, rowLength, rows);
    // Adds the input to the graph even if no node reads it (a pass that only fills the cache), because otherwise it
    // would get no memory.
    this.#expand(input);
    return input;
  }

  build(): PassGraph {
    const { spec } = this.#model;
    const { tokens, rows } = this.#shape;
    const given = this.#input(float32, spec.hiddenSize, tokens);
    const wanted = rows > 0 && rows < tokens ? this.#input(int32, rows) : null;
    let output: Pointer = given;
    for (const [index, layer] of spec.layers.entries()) {
      const isLast = index === spec.layers.length - 1;
      output = this.#layer(index, layer, output, isLast ? { rows, wanted } : undefined);
    }
    if (output !== null) {
      if (spec.stage !== 'inner') output = this.#normed(output, 'finalNorm');
      if (spec.stage !== 'inner' && !spec.headless) output = this.#operators.product('head', output);
      this.#ggml.ggml_set_output(output);
      this.#expand(output);
    }
    return {
      context: this.#context,
      graph: this.#graph,
      hidden: given,
      positions: this.#positions,
      queryFactors: [...this.#queryFactors.values()],
      rows: wanted,
      masks: this.#masks,
      targets: this.#targets,
      valueTargets: [...this.#valueTargets.values()],
      output,
    };
  }

  /** @param last for the last layer: the rows that continue after it; null if none does. */
  #layer(
    index: number,
    spec: LayerSpec,
    input: Pointer,
    last: { readonly rows: number; readonly wanted: Pointer } | undefined,
  ): Pointer {
    const { ggml_add, ggml_get_rows } = this.#ggml;
    if (spec.attention.kind !== 'grouped-query') throw new Error(`No graph for ${spec.attention.kind} attention.`);
    let stream = input;
    let attended = this.#attention(
      index,
      spec.attention,
      this.#normed(input, `${index}.attentionNorm`),
      last?.rows === 0,
    );
    if (attended === null) return null;
    if (last && last.wanted !== null) {
      attended = ggml_get_rows(this.#context, attended, last.wanted);
      stream = ggml_get_rows(this.#context, stream, last.wanted);
    }
    attended = this.#postNormed(attended, `${index}.attentionPostNorm`);
    stream = ggml_add(this.#context, stream, attended);
    const fed = this.#feedForward(
      `${index}.feedForward`,
      spec.feedForward,
      this.#normed(stream, `${index}.feedForwardNorm`),
      last && last.rows > 0 ? last.rows : this.#shape.tokens,
    );
    return ggml_add(this.#context, stream, this.#postNormed(fed, `${index}.feedForwardPostNorm`));
  }

  /** `[hidden, tokens]` to the same shape; null if only the cache is filled. */
  #attention(index: number, spec: GroupedQueryAttentionSpec, input: Pointer, onlyCache: boolean): Pointer {
    const ggml = this.#ggml;
    const context = this.#context;
    const { tokens } = this.#shape;
    const { numAttentionHeads, numKeyValueHeads, headDim } = spec;
    const key = `${index}.attention`;
    const cache = this.#shape.ranges[index];
    const layer = this.#model.layers[index];
    if (!cache || !layer) throw new Error(`Layer ${index} has no cache.`);
    const width = numKeyValueHeads * headDim;
    const lengths = { query: numAttentionHeads * headDim, key: width, value: width };
    const rows = this.#operators.linears(key, lengths, input, tokens);
    const heads = (name: 'query' | 'key', count: number): Pointer => {
      const { tensor, stride } = rows(name);
      const norm = `${key}.${name}Norm`;
      const rowBytes = 4 * headDim;
      if (!spec.jointNorm || !this.#operators.has(norm)) {
        const cut = ggml.ggml_view_3d(context, tensor, headDim, count, tokens, rowBytes, 4 * stride, 0);
        return this.#headNormed(cut, norm);
      }
      return ggml.ggml_reshape_3d(context, this.#normed(tensor, norm), headDim, count, tokens);
    };

    const keys = this.#rotated(spec, heads('key', numKeyValueHeads));
    const target = this.#targets[layer.group] ?? null;
    // Added to the graph before attention, so that the rows are written before they are read.
    this.#expand(ggml.ggml_set_rows(context, cache.keys, ggml.ggml_reshape_2d(context, keys, width, tokens), target));
    this.#storeValues(rows('value').tensor, cache, layer, width);
    if (onlyCache) return null;

    const query = this.#sharpened(spec, this.#rotated(spec, heads('query', numAttentionHeads)));
    const attention = new Attention(
      ggml,
      context,
      spec,
      {
        ...cache,
        type: layer.type,
        blocks: this.#shape.blocks[layer.group] ?? [],
        mask: this.#masks[layer.group] ?? null,
      },
      spec.sinks ? this.#operators.tensor(`${key}.sinks`) : null,
    );
    let output = tokens === 1 ? attention.ofOne(query) : this.#scratch(numAttentionHeads * headDim);
    if (tokens > 1) for (const node of attention.ofSeveral(query, output)) this.#expand(node);
    if (spec.outputGate) {
      const gate = ggml.ggml_sigmoid(context, this.#operators.linear(`${key}.gate`, input));
      output = ggml.ggml_mul(context, output, gate);
    }
    return this.#operators.linear(`${key}.output`, output);
  }

  /** Buffer for the outputs of attention, shared by all layers. `[width, tokens]` */
  #scratch(width: number): Pointer {
    const scratch = this.#outputs.get(width) ?? this.#input(float32, width, this.#shape.tokens);
    this.#outputs.set(width, scratch);
    return scratch;
  }

  /** @param values `[width, tokens]` */
  #storeValues(
    values: Pointer,
    cache: PassShape['ranges'][number],
    { group, type }: LayerCacheSpec,
    width: number,
  ): void {
    const { ggml_cpy, ggml_set_rows, ggml_transpose, ggml_view_2d } = this.#ggml;
    const { tokens, starts } = this.#shape;
    const context = this.#context;
    const bytes = type === 'float16' ? 2 : 4;
    const { columns } = cache;
    if (tokens > 1) {
      const place = ggml_view_2d(context, cache.values, tokens, width, columns * bytes, (starts[group] ?? 0) * bytes);
      this.#expand(ggml_cpy(context, ggml_transpose(context, values), place));
      return;
    }
    const key = `${group} ${width} ${columns}`;
    let elements = this.#valueTargets.get(key)?.elements;
    if (elements === undefined) {
      elements = this.#input(int32, width);
      this.#valueTargets.set(key, { group, width, columns, elements });
    }
    const each = ggml_view_2d(context, cache.values, 1, columns * width, bytes, 0);
    this.#expand(ggml_set_rows(context, each, ggml_view_2d(context, values, 1, width, 4, 0), elements));
  }

  #headNormed(heads: Pointer, key: string): Pointer {
    return this.#operators.has(key) ? this.#normed(heads, key) : heads;
  }

  #rotated({ rope }: GroupedQueryAttentionSpec, heads: Pointer): Pointer {
    const divisors = this.#loaded.rotations.get(rotationKey(rope)) ?? null;
    const [mode, base, scale, extension, unused] = [ropeModes[rope.layout], 1, 1, 0, 1];
    return this.#ggml.ggml_rope_ext(
      this.#context,
      heads,
      this.#positions,
      divisors,
      rope.dimensions,
      mode,
      0,
      base,
      scale,
      extension,
      attentionFactor(rope),
      unused,
      unused,
    );
  }

  #sharpened({ queryTemperature: temperature }: GroupedQueryAttentionSpec, query: Pointer): Pointer {
    if (!temperature) return query;
    const { ggml_mul, ggml_reshape_3d } = this.#ggml;
    const key = JSON.stringify(temperature);
    const known = this.#queryFactors.get(key);
    const { tokens } = this.#shape;
    const factors = known?.factors ?? this.#input(float32, tokens);
    if (!known) this.#queryFactors.set(key, { temperature, factors });
    return ggml_mul(this.#context, query, ggml_reshape_3d(this.#context, factors, 1, 1, tokens));
  }

  /** `[hidden, rows]` to the same shape. */
  #feedForward(key: string, spec: FeedForwardSpec, input: Pointer, rows: number): Pointer {
    if (spec.kind === 'experts') return this.#experts(key, spec, input, rows);
    const operators = this.#operators;
    if (spec.kind === 'dense') {
      return operators.dense(key, spec.activation, input, { width: spec.intermediateSize, tokens: rows });
    }
    return operators.linear(`${key}.down`, operators.gelu(operators.linear(`${key}.up`, input)));
  }

  #experts(key: string, spec: ExpertsSpec, input: Pointer, rows: number): Pointer {
    const ggml = this.#ggml;
    const context = this.#context;
    const operators = this.#operators;
    const { expertsPerToken: count, numExperts } = spec;
    const { chosen, weights } = this.#routed(key, spec, operators.linear(`${key}.router`, input), { numExperts, rows });
    const hiddenSize = this.#model.spec.hiddenSize;
    const choice = { chosen, hiddenSize, tokens: rows, activation: spec.activation };
    const weighted = ggml.ggml_mul(context, operators.experts(key, input, choice), weights);
    // `[hidden, count, rows]`: the sum over the experts.
    let sum: Pointer = null;
    for (let slot = 0; slot < count; slot++) {
      const one = ggml.ggml_view_2d(context, weighted, hiddenSize, rows, count * hiddenSize * 4, slot * hiddenSize * 4);
      sum = sum === null ? one : ggml.ggml_add(context, sum, one);
    }
    if (count === 1) sum = ggml.ggml_cont(context, sum);
    if (spec.sharedIntermediateSize === undefined) return sum;
    let shared = operators.dense(`${key}.shared`, spec.activation, input, {
      width: spec.sharedIntermediateSize,
      tokens: rows,
    });
    if (spec.sharedGate) {
      shared = ggml.ggml_mul(
        context,
        shared,
        ggml.ggml_sigmoid(context, operators.product(`${key}.sharedGate`, input)),
      );
    }
    return ggml.ggml_add(context, sum, shared);
  }

  /** `chosen`: `[count, rows]` i32; `weights`: `[1, count, rows]` */
  #routed(
    key: string,
    spec: ExpertsSpec,
    logits: Pointer,
    { numExperts, rows }: { readonly numExperts: number; readonly rows: number },
  ): { readonly chosen: Pointer; readonly weights: Pointer } {
    const ggml = this.#ggml;
    const context = this.#context;
    const { router, expertsPerToken: count } = spec;
    const scores =
      router.kind === 'topk-then-softmax'
        ? logits
        : router.kind === 'softmax-then-topk'
          ? ggml.ggml_soft_max(context, logits)
          : ggml.ggml_sigmoid(context, logits);
    const bias = `${key}.selectionBias`;
    const selection = this.#operators.has(bias) ? ggml.ggml_add(context, scores, this.#operators.tensor(bias)) : scores;
    const chosen = ggml.ggml_argsort_top_k(context, selection, count);
    const picked = ggml.ggml_get_rows(context, ggml.ggml_reshape_3d(context, scores, 1, numExperts, rows), chosen);
    let weights = ggml.ggml_reshape_2d(context, picked, count, rows);
    if (router.kind === 'topk-then-softmax') weights = ggml.ggml_soft_max(context, weights);
    else if (router.renormalise) weights = ggml.ggml_div(context, weights, ggml.ggml_sum_rows(context, weights));
    if (spec.routedScale !== 1) weights = this.#operators.scaled(weights, spec.routedScale);
    return { chosen, weights: ggml.ggml_reshape_3d(context, weights, 1, count, rows) };
  }

  #normed(input: Pointer, key: string): Pointer {
    const { ggml_add, ggml_mul, ggml_norm, ggml_rms_norm } = this.#ggml;
    const bias = `${key}.bias`;
    const isLayerNorm = this.#operators.has(bias);
    const scaled = (isLayerNorm ? ggml_norm : ggml_rms_norm)(this.#context, input, this.#model.spec.normEpsilon);
    const normed = ggml_mul(this.#context, scaled, this.#operators.tensor(key));
    return isLayerNorm ? ggml_add(this.#context, normed, this.#operators.tensor(bias)) : normed;
  }

  #postNormed(output: Pointer, key: string): Pointer {
    return this.#operators.has(key) ? this.#normed(output, key) : output;
  }

  #expand(node: Pointer): void {
    this.#ggml.ggml_build_forward_expand(this.#graph, node);
  }
}
