/** The thread's side of experts that the CPU computes for a decoder on a GPU (experts.ts). */

import type { CacheMessage, FromThread } from '../processor/messages.ts';
import { done } from '../processor/threadCache.ts';
import { ComputeThreads } from './computeThreads.ts';
import type { ExpertField, ExpertMessage, GgmlExpertLayer, GgmlExperts, GgmlMessage, Pointer } from './library.ts';
import { Operators } from './operators.ts';
import { TensorStore } from './tensorStore.ts';
import { float32, int32 } from './types.ts';

/** Most nodes of a graph: a layer's three matmuls and the operators between them, or the fields of one matrix. */
const nodes = 64;

export class ExpertThread {
  readonly #threads: ComputeThreads;
  readonly #store: TensorStore;
  readonly #model: GgmlExperts;
  readonly #allocator: Pointer;

  constructor(model: GgmlExperts) {
    this.#model = model;
    this.#threads = new ComputeThreads(model.libraries, model.threads);
    this.#store = new TensorStore(this.#threads, model.tensors);
    const { ggml_backend_cpu_buffer_type, ggml_gallocr_new } = this.#threads.ggml;
    this.#allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
  }

  handle(message: CacheMessage | GgmlMessage | ExpertMessage): FromThread | undefined {
    switch (message.kind) {
      case 'fill':
        this.#store.fill(message.key, message.offset, message.bytes);
        return done;
      case 'compute-experts':
        return { kind: 'done', values: [this.#computed(message.layer, message.input, message.chosen)] };
      case 'read-fields':
        return { kind: 'done', values: [], saved: this.#fields(message.key, message.expert, message.fields) };
      case 'end':
        this.#threads.ggml.ggml_gallocr_free(this.#allocator);
        this.#store.free();
        this.#threads.free();
        return done;
      default:
        throw new Error(`A thread of experts can't ${message.kind}.`);
    }
  }

  /** @param chosen `[tokens, expertsPerToken]` @returns `[tokens, expertsPerToken, hidden]` */
  #computed(index: number, input: Float32Array, chosen: Int32Array): Float32Array {
    const layer = this.#layer(index);
    const { hiddenSize } = this.#model;
    const { numExperts, expertsPerToken, activation } = layer;
    // ggml would end the process for an expert that doesn't exist.
    if (!chosen.every((expert) => expert >= 0 && expert < numExperts)) throw new Error('an expert is not among them');
    const tokens = chosen.length / expertsPerToken;
    return this.#run((context, expand) => {
      const { ggml } = this.#threads;
      const operators = new Operators(ggml, context, this.#store.tensors);
      const given = operators.input(float32, hiddenSize, tokens);
      const choice = operators.input(int32, expertsPerToken, tokens);
      const output = operators.experts(`${index}`, given, { chosen: choice, hiddenSize, tokens, activation });
      ggml.ggml_set_output(output);
      expand(output);
      return {
        fill: () => {
          ggml.ggml_backend_tensor_set(given, input, 0, input.byteLength);
          ggml.ggml_backend_tensor_set(choice, chosen, 0, chosen.byteLength);
        },
        read: () => {
          const values = new Float32Array(chosen.length * hiddenSize);
          ggml.ggml_backend_tensor_get(output, values, 0, values.byteLength);
          return values;
        },
      };
    });
  }

  /** The given fields of an expert's matrix, one after the other; each for all blocks. */
  #fields(key: string, expert: number, fields: readonly ExpertField[]): Uint8Array {
    const { ggml } = this.#threads;
    const { tensor, blockBytes, blocks } = this.#store.bytesOf(key);
    const perExpert = blocks / this.#numExperts(key);
    return this.#run((context, expand) => {
      const copies = fields.map(({ from, bytes }) => {
        const offset = expert * perExpert * blockBytes + from;
        const copy = ggml.ggml_cont(context, ggml.ggml_view_2d(context, tensor, bytes, perExpert, blockBytes, offset));
        ggml.ggml_set_output(copy);
        expand(copy);
        return { copy, byteLength: bytes * perExpert };
      });
      return {
        fill: () => {},
        read: () => {
          const all = new Uint8Array(copies.reduce((sum, { byteLength }) => sum + byteLength, 0));
          let at = 0;
          for (const { copy, byteLength } of copies) {
            ggml.ggml_backend_tensor_get(copy, all.subarray(at, at + byteLength), 0, byteLength);
            at += byteLength;
          }
          return all;
        },
      };
    });
  }

  /** Builds and computes a graph for a single use: about ten calls, against milliseconds of matmuls. */
  #run<Result>(
    build: (
      context: Pointer,
      expand: (node: Pointer) => void,
    ) => { readonly fill: () => void; readonly read: () => Result },
  ): Result {
    const { ggml } = this.#threads;
    const bytes = nodes * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead_custom(nodes, false);
    const context = ggml.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
    try {
      const graph = ggml.ggml_new_graph_custom(context, nodes, false);
      const { fill, read } = build(context, (node) => ggml.ggml_build_forward_expand(graph, node));
      if (!ggml.ggml_gallocr_alloc_graph(this.#allocator, graph)) throw new Error('out of memory for activations');
      fill();
      this.#threads.compute(graph);
      return read();
    } finally {
      ggml.ggml_free(context);
    }
  }

  #layer(index: number): GgmlExpertLayer {
    const layer = this.#model.layers[index];
    if (!layer) throw new Error(`There are no experts of layer ${index}.`);
    return layer;
  }

  #numExperts(key: string): number {
    return this.#layer(Number.parseInt(key, 10)).numExperts;
  }
}
