/**
 * The decoder of the CPU backends (ggml, ONNX Runtime). A graph on a worker thread computes; the KV cache's bookkeeping
 * is here.
 */

import type { HearthError } from '../../errors.ts';
import type { CacheDemand, Sequence, SequenceSerializer } from '../../kv/blockCache.ts';
import { BlockCache, type BlockStorage, type CachedSequence } from '../../kv/blockCache.ts';
import type { BlockGroup } from '../../kv/blocks.ts';
import { maxStates, StateTable } from '../../kv/states.ts';
import { cacheBytesPerToken, type DecoderSpec, processorPrecision, stateBytesOf } from '../../model/spec/spec.ts';
import type { Weight } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import {
  checkedBatch,
  type Decoder,
  type DecoderMemory,
  type DeviceSampling,
  demandsOf,
  fullContexts,
  isNotFinite,
  joined,
  notFinite,
  type OwnSlice,
  passesOf,
  type SamplingSlice,
  type SequenceSlice,
} from '../backend.ts';
import {
  allocatedTokens,
  processorBlockTokens as blockTokens,
  type MemoryPlan,
  type ModelNeeds,
  processorScratchBytes,
  usualContextTokens,
} from '../memoryPlan.ts';
import { type DrawMessage, drawSlice, maxSteps, provideRow, sharedRow } from './drawing.ts';
import { EmbeddingRows } from './embeddingRows.ts';
import {
  bytesOf,
  bytesOfState,
  type CacheLayout,
  type LayerCacheSpec,
  rowsOf,
  type StateSpec,
  type ThreadSlice,
  type WindowGroup,
} from './messages.ts';
import type { CacheThread } from './threadClient.ts';

/** Enough rows for matmuls to reach full speed. More would need memory for attention scores and delay cancellations. */
const maxTokensPerRun = 256;

export interface LoadedGraph {
  readonly backend: 'ggml' | 'onnx';
  readonly spec: DecoderSpec;
  readonly contextTokens: number;
  /** KV-cache budget of all sequences in bytes. */
  readonly cacheBudgetBytes: number;
  readonly notes: readonly string[];
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  readonly states: readonly StateSpec[];
  readonly weightBytes: number;
  readonly thread: CacheThread;
  /**
   * The embedding if its rows are read from the file and the graph takes hidden states. Absent: the graph takes ids.
   */
  readonly embedding?: Weight;
  /** Names the order of a block's bytes. */
  readonly cacheOrder: string;
  /** Present if the weights are mapped from a file. */
  readonly mapped?: {
    /** Whether another program wrote into the file. */
    readonly isChanged: () => Promise<boolean>;
    /** The error to throw if it changed, or for logits that are not finite. */
    readonly damage: (changed: boolean) => Promise<HearthError>;
    /** Removes temporary files of this decoder. */
    readonly cleanUp: () => Promise<void>;
  };
}

export class ProcessorDecoder implements Decoder {
  readonly spec: DecoderSpec;
  readonly backend: LoadedGraph['backend'];
  readonly contextTokens: number;
  readonly maxTokensPerRun = maxTokensPerRun;
  readonly maxSequencesPerRun = 1;
  readonly notes: readonly string[];
  readonly deviceSampling?: DeviceSampling;
  readonly #graph: LoadedGraph;
  readonly #cache: BlockCache;
  readonly #embedding: EmbeddingRows | undefined;
  #end: Promise<void> | undefined;

  constructor(graph: LoadedGraph) {
    this.#graph = graph;
    this.spec = graph.spec;
    this.backend = graph.backend;
    this.contextTokens = graph.contextTokens;
    this.notes = graph.notes;
    this.#cache = new BlockCache(storageOf(graph), graph.contextTokens);
    this.#embedding = graph.embedding && new EmbeddingRows(graph.spec, graph.embedding);
    if (!graph.spec.headless && !graph.spec.stage && graph.states.length === 0) this.deviceSampling = this.#drawing();
  }

  get serializer(): SequenceSerializer {
    return this.#cache;
  }

  createSequence(): Sequence {
    return this.#cache.create();
  }

  async run(batch: readonly SequenceSlice[]): Promise<Float32Array[]> {
    const slices = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    const { mapped } = this.#graph;
    if (mapped && (await mapped.isChanged())) throw await mapped.damage(true);
    this.#cache.requireRoom(demandsOf(slices));
    const logits: Float32Array[] = slices.map(() => new Float32Array());
    for (const pass of passesOf(slices, maxTokensPerRun)) {
      const computed = await this.#runPass(pass.map(({ slice }) => slice));
      for (const [i, { index }] of pass.entries()) logits[index] = joined(logits[index], computed[i]);
    }
    if (!logits.every(isNumeric)) throw mapped ? await mapped.damage(false) : notFinite();
    return logits;
  }

  async #runPass(slices: readonly OwnSlice<CachedSequence>[]): Promise<readonly Float32Array[]> {
    this.#cache.prepare(demandsOf(slices));
    const { values } = await this.#graph.thread.ask({
      kind: 'run',
      slices: await Promise.all(slices.map((slice) => this.#forThread(slice))),
    });
    for (const { sequence, tokens } of slices) sequence.advance(tokens.length);
    return values;
  }

  /** Not for recurrent layers: their states can't be rolled back if the last tokens are dropped. */
  #drawing(): DeviceSampling {
    const rows = this.#embedding;
    const row = rows && sharedRow(this.spec.hiddenSize);
    if (rows && row) this.#graph.thread.onRow((token) => provideRow(rows, token, row));
    return {
      maxSteps,
      samplesAhead: false,
      supports: () => true,
      sample: (slices, steps) => this.#draw(slices, { kind: 'draw', steps, ...(row && { row }) }),
    };
  }

  async #draw(slices: readonly SamplingSlice[], message: Omit<DrawMessage, 'slices'>): Promise<number[][]> {
    const { steps } = message;
    const batch = slices.map(({ sequence, token }) => ({ sequence, tokens: [token], logits: 'last' as const }));
    const own = checkedBatch(batch, this, (sequence) => this.#cache.own(sequence));
    const fits = own.every(({ sequence }) => sequence.length + steps <= this.contextTokens);
    if (steps < 1 || steps > maxSteps || !fits) throw new Error(`${steps} steps do not fit`);
    const { mapped, thread } = this.#graph;
    if (mapped && (await mapped.isChanged())) throw await mapped.damage(true);
    this.#cache.prepare(own.map(({ sequence }) => ({ sequence, tokens: steps })));
    const asked = own.map(({ sequence }, i) => drawSlice(slices[i] as SamplingSlice, sequence.id, layoutOf(sequence)));
    try {
      const { drawn = [] } = await thread.ask({ ...message, slices: asked });
      for (const [i, { sequence }] of own.entries()) sequence.advance(drawn[i]?.length ?? 0);
      return [...drawn];
    } catch (error) {
      throw mapped && isNotFinite(error) ? await mapped.damage(false) : error;
    }
  }

  async #forThread({ sequence, tokens, logits, hidden }: OwnSlice<CachedSequence>): Promise<ThreadSlice> {
    const states = hidden ?? (await this.#embedding?.of(tokens));
    return { sequence: sequence.id, layout: layoutOf(sequence), tokens, logits, ...(states && { hidden: states }) };
  }

  canAllocate(demands: readonly CacheDemand[]): boolean {
    return this.#cache.hasRoom(demands);
  }

  memory(): DecoderMemory {
    const { usedBytes: cacheBytes, storage } = this.#cache;
    const { weightBytes, layers } = this.#graph;
    const [layer] = layers;
    const cacheBytesPerValue = layer ? bytesOf(layer) / rowsOf(layer) : 0;
    const { groups, capacityBytes: cacheCapacityBytes } = storage;
    const stateBytes = groups.find(({ isState }) => isState)?.blockBytes ?? 0;
    // One usual context, as the list of models assumes.
    const usualTokens = allocatedTokens(Math.min(this.contextTokens, usualContextTokens));
    const idleLimitBytes = usualTokens * tokenBytesOf(groups) + maxStates * stateBytes;
    return { weightBytes, cacheBytes, cacheCapacityBytes, cacheBytesPerValue, idleLimitBytes };
  }

  dispose(): Promise<void> {
    this.#end ??= this.#graph.thread.end().finally(this.#graph.mapped?.cleanUp);
    return this.#end;
  }
}

/** By their sum: an iterator over the logits took 4 % of the processor's time in decode. */
function isNumeric(logits: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += logits[i] ?? 0;
  return Number.isFinite(sum);
}

interface CacheOptions
  extends Pick<
    LoadedGraph,
    'windowGroups' | 'layers' | 'states' | 'contextTokens' | 'cacheBudgetBytes' | 'cacheOrder'
  > {
  readonly thread: Pick<CacheThread, 'ask' | 'tell'>;
}

/** The cache on the graph thread. */
export function storageOf(graph: CacheOptions): BlockStorage {
  const { thread, windowGroups, states, contextTokens, cacheBudgetBytes } = graph;
  const stateGroup = windowGroups.length;
  const layers = [
    ...graph.layers.map((layer) => ({ group: layer.group, blockBytes: blockTokens * bytesOf(layer) })),
    ...states.map((state) => ({ group: stateGroup, blockBytes: bytesOfState(state) })),
  ];
  const blockBytesOf = (group: number): number =>
    layers.reduce((sum, layer) => sum + (layer.group === group ? layer.blockBytes : 0), 0);
  const windows = windowGroups.map(({ slidingWindow }, index): BlockGroup => {
    return { slidingWindow, blockTokens, blockBytes: blockBytesOf(index), contiguous: true };
  });
  const stateBytes = blockBytesOf(stateGroup);
  const groups = stateBytes > 0 ? [...windows, { isState: true, blockTokens: 1, blockBytes: stateBytes }] : windows;
  const contextBytes = allocatedTokens(contextTokens) * tokenBytesOf(windows) + maxStates * stateBytes;
  return {
    format: `${graph.layers[0]?.type === 'float16' ? 'f16' : 'f32'} ${graph.cacheOrder}`,
    groups,
    layers,
    capacityBytes: Math.min(cacheBudgetBytes, fullContexts * contextBytes),
    async read(sequence, layer) {
      const layout = layoutOf(sequence, Math.ceil(sequence.length / blockTokens));
      const { saved } = await thread.ask({ kind: 'save', sequence: sequence.id, layer, layout });
      if (!saved) throw new Error('The graph thread returned no data.');
      return saved;
    },
    async write(sequence, layer, bytes) {
      const { id, length } = sequence;
      const message = { kind: 'restore', sequence: id, layer, layout: layoutOf(sequence), length, bytes } as const;
      await thread.ask(message, [bytes.buffer as ArrayBuffer]);
    },
    created: ({ id }, from) => thread.tell({ kind: 'create', sequence: id, from: from?.id }),
    changed: (sequence) =>
      thread.tell({ kind: 'change', sequence: sequence.id, layout: layoutOf(sequence), length: sequence.length }),
    disposed: ({ id }) => thread.tell({ kind: 'dispose', sequence: id }),
  };
}

/** Keys and values of one token, in all layers. */
const tokenBytesOf = (groups: readonly BlockGroup[]): number =>
  groups.reduce((sum, { blockBytes, isState }) => sum + (isState ? 0 : blockBytes / blockTokens), 0);

/** The ranges of a sequence, limited to its first `blocks` blocks. Default: all, with spare ones. */
export const layoutOf = ({ tables }: CachedSequence, blocks = Number.POSITIVE_INFINITY): CacheLayout =>
  tables.map((table) =>
    table instanceof StateTable
      ? (blocks < Number.POSITIVE_INFINITY ? table.rangesApart : table.ranges).map(([first]) => ({ first, columns: 1 }))
      : table.ranges
          .filter(([first]) => first < blocks)
          .map(([first, end]) => {
            return { first: first * blockTokens, columns: (Math.min(end, blocks) - first) * blockTokens };
          }),
  );

// Memory that a model needs on the CPU.

/** Layers with a sliding window count in full, because their checkpoints grow with the context too. */
export function hostNeeds(
  spec: DecoderSpec,
  weightBytes: number,
  runtime: keyof typeof processorScratchBytes,
  asked?: CachePrecision,
): ModelNeeds {
  const attentions = spec.layers.map(({ attention }) => attention);
  const tokenBytes = cacheBytesPerToken(attentions, processorPrecision(asked));
  const stateBytes = maxStates * stateBytesOf(spec);
  return {
    weightBytes,
    scratchBytes: processorScratchBytes[runtime],
    cacheBytes: (tokens) => allocatedTokens(tokens) * tokenBytes + stateBytes,
    longestTokens: spec.contextTokens,
  };
}

// Sentences for the model card.

export function memoryNotes({ contextTokens, isCrowded }: MemoryPlan, wanted: number): string[] {
  if (isCrowded) return ['Other programs use memory that this model needs. It will be slow until some are closed.'];
  const note = `The context is ${contextTokens} of ${wanted} tokens: as many as fit the available memory.`;
  return contextTokens < wanted ? [note] : [];
}

export function cacheNotes(asked: CachePrecision): string[] {
  const notes = {
    f32: [],
    f16: ['The KV cache is f16.'],
    q8: ['The KV cache is f16: the CPU backend has no smaller precision.'],
  };
  return notes[asked];
}
