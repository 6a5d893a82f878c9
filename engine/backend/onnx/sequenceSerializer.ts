/**
 * Exports and imports sequences: for every layer its cache block `[rows, columns]` f32 or f16, first keys, then values.
 * Spare columns are a ninth of it; storing them saves a copy when the block is imported.
 */
import { invalidInput } from '../../errors.ts';
import type { Sequence, SequenceSerializer, SequenceShape } from '../backend.ts';
import { checkShape, piecesFor } from '../backend.ts';
import type { CacheBudget } from './cachedRanges.ts';
import { columnsFor } from './cachedRanges.ts';
import type { LoadedGraph, OnnxSequence } from './decoder.ts';
import { bytesOf } from './graphInputs.ts';
import type { CacheState, ToThread } from './messages.ts';

type RestoreMessage = Extract<ToThread, { kind: 'restore' }>;

interface Sequences {
  create(): OnnxSequence;
  own(sequence: Sequence): OnnxSequence;
}

export class OnnxSerializer implements SequenceSerializer {
  readonly format: string;
  readonly #graph: LoadedGraph;
  readonly #budget: CacheBudget;
  readonly #sequences: Sequences;

  constructor(graph: LoadedGraph, budget: CacheBudget, sequences: Sequences) {
    this.format = graph.layers[0]?.type === 'float16' ? 'f16 blocks' : 'f32 blocks';
    this.#graph = graph;
    this.#budget = budget;
    this.#sequences = sequences;
  }

  shapeOf(sequence: Sequence): SequenceShape {
    const { length, starts } = this.#sequences.own(sequence);
    return { tokens: length, ranges: starts.map((start) => [start, length]) };
  }

  pieceBytes(shape: SequenceShape): number[] {
    const { windowGroups, contextTokens } = this.#graph;
    const windows = windowGroups.map(({ slidingWindow }) => slidingWindow);
    checkShape(shape, contextTokens, windows);
    if (shape.ranges.some(({ length }) => length > 2))
      throw invalidInput('The stored sequence has gaps, which this model does not support.');
    return this.#graph.layers.map((layer) => bytesOf(layer) * columnsFor(cachedTokensOf(shape, layer.group)));
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const { id } = this.#sequences.own(sequence);
    for (const layer of this.#graph.layers.keys()) {
      const { saved } = await this.#graph.thread.ask({ kind: 'save', sequence: id, layer });
      if (!saved) throw new Error('The graph thread returned no data.');
      yield saved;
    }
  }

  canAllocate(shape: SequenceShape): boolean {
    const { columnBytes, usedBytes, capacityBytes } = this.#budget;
    const needed = columnBytes.reduce((sum, bytes, group) => sum + bytes * columnsFor(cachedTokensOf(shape, group)), 0);
    return usedBytes + needed <= capacityBytes;
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.#sequences.create();
    const ranges = { length: shape.tokens, starts: shape.ranges.map(([start]) => start ?? 0), checkpoints: [] };
    // Reads the next layer while the thread imports the current one.
    let last: Promise<readonly CacheState[]> = Promise.resolve([]);
    try {
      for await (const [layer, piece] of piecesFor(sizes, pieces)) {
        await last;
        last = this.#restoreLayer({ sequence: sequence.id, layer, ranges, bytes: piece });
      }
      const [state] = await last;
      sequence.restore(state);
      return sequence;
    } catch (error) {
      await last.catch(() => {});
      sequence.dispose();
      throw error;
    }
  }

  async #restoreLayer(message: Omit<RestoreMessage, 'kind'>): Promise<readonly CacheState[]> {
    const { buffer } = message.bytes;
    const { caches } = await this.#graph.thread.ask({ kind: 'restore', ...message }, [buffer as ArrayBuffer]);
    return caches;
  }
}

function cachedTokensOf({ tokens, ranges }: SequenceShape, group: number): number {
  return tokens - (ranges[group]?.[0] ?? 0);
}
