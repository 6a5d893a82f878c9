/**
 * Keys and values outside the decoder: of every layer the block that holds them, `[rows, room]` f32 or f16, first keys, then
 * values. Room beyond what is held is a ninth of it, and saves the copy: what is read is what the graph computes with.
 */
import { invalidInput } from '../../errors.ts';
import type { Sequence, SequenceShape, SequenceStorage } from '../backend.ts';
import { checkShape, piecesFor } from '../backend.ts';
import type { CacheLedger } from './cacheExtent.ts';
import { roomFor } from './cacheExtent.ts';
import type { LoadedGraph, OnnxSequence } from './decoder.ts';
import { bytesOf } from './layerPlan.ts';
import type { CacheState, ToThread } from './messages.ts';

type RestoreMessage = Extract<ToThread, { kind: 'restore' }>;

interface Sequences {
  create(): OnnxSequence;
  own(sequence: Sequence): OnnxSequence;
}

export class OnnxStorage implements SequenceStorage {
  readonly format: string;
  readonly #graph: LoadedGraph;
  readonly #ledger: CacheLedger;
  readonly #sequences: Sequences;

  constructor(graph: LoadedGraph, ledger: CacheLedger, sequences: Sequences) {
    this.format = graph.layers[0]?.type === 'float16' ? 'f16 blocks' : 'f32 blocks';
    this.#graph = graph;
    this.#ledger = ledger;
    this.#sequences = sequences;
  }

  shapeOf(sequence: Sequence): SequenceShape {
    const { length, starts } = this.#sequences.own(sequence);
    return { tokens: length, held: starts.map((start) => [start, length]) };
  }

  pieceBytes(shape: SequenceShape): number[] {
    const { spans, contextTokens } = this.#graph;
    const windows = spans.map(({ slidingWindow }) => slidingWindow);
    checkShape(shape, contextTokens, windows);
    if (shape.held.some(({ length }) => length > 2))
      throw invalidInput('A stored sequence has gaps that this model has not.');
    return this.#graph.layers.map((layer) => bytesOf(layer) * roomFor(heldOf(shape, layer.span)));
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const { id } = this.#sequences.own(sequence);
    for (const layer of this.#graph.layers.keys()) {
      const { saved } = await this.#graph.thread.ask({ kind: 'save', sequence: id, layer });
      if (!saved) throw new Error('the thread saved nothing');
      yield saved;
    }
  }

  hasRoom(shape: SequenceShape): boolean {
    const { columnBytes, usedBytes, capacityBytes } = this.#ledger;
    const needed = columnBytes.reduce((sum, bytes, span) => sum + bytes * roomFor(heldOf(shape, span)), 0);
    return usedBytes + needed <= capacityBytes;
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.#sequences.create();
    const extent = { length: shape.tokens, starts: shape.held.map(([start]) => start ?? 0), kept: [] };
    // While the thread puts a layer in, the next one is read.
    let last: Promise<readonly CacheState[]> = Promise.resolve([]);
    try {
      for await (const [layer, piece] of piecesFor(sizes, pieces)) {
        await last;
        last = this.#restoreLayer({ sequence: sequence.id, layer, extent, bytes: piece });
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

function heldOf({ tokens, held }: SequenceShape, span: number): number {
  return tokens - (held[span]?.[0] ?? 0);
}
