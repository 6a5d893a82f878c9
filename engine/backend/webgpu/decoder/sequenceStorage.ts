/** Keys and values outside the decoder: of every layer the pages held, `[page, 32 tokens]` of keys, then of values. */
import type { Sequence, SequenceSerializer, SequenceShape } from '../../backend.ts';
import { checkShape, piecesFor } from '../../backend.ts';
import { pageTokens } from '../kernels/cacheCode.ts';
import { type LayerCache, pageBytes } from './cache.ts';
import type { LoadedParts } from './decoder.ts';
import { heldPages } from './pages.ts';
import type { WebgpuSequence } from './sequence.ts';

interface Sequences {
  create(): WebgpuSequence;
  /** Undefined: another decoder's, or one that was disposed. */
  own(sequence: Sequence): WebgpuSequence | undefined;
  /** Tells a lost device from other errors. */
  explained<Result>(work: () => Promise<Result>): Promise<Result>;
}

export class WebgpuSerializer implements SequenceSerializer {
  readonly format: string;
  readonly #parts: LoadedParts;
  readonly #sequences: Sequences;

  constructor(parts: LoadedParts, sequences: Sequences) {
    this.format = `${parts.cache.precision} in pages of ${pageTokens}`;
    this.#parts = parts;
    this.#sequences = sequences;
  }

  shapeOf(sequence: Sequence): SequenceShape {
    const { length, tables } = this.#own(sequence);
    return { tokens: length, ranges: tables.map((table) => table.held(length)) };
  }

  pieceBytes(shape: SequenceShape): number[] {
    const { cache, contextTokens } = this.#parts;
    const windows = cache.spans.map(({ slidingWindow }) => slidingWindow);
    checkShape(shape, contextTokens, windows);
    const pages = shape.ranges.map((stretches) => heldPages(stretches).size);
    return cache.layers.map((layer, index) => {
      return (pages[layer.span] ?? 0) * this.#pageBytes(index) * buffersOf(layer).length;
    });
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    const own = this.#own(sequence);
    const sizes = this.pieceBytes(this.shapeOf(own));
    for (const [index, layer] of this.#parts.cache.layers.entries()) {
      yield await this.#sequences.explained(() => this.#read(index, this.#pages(own, layer), sizes[index] ?? 0));
    }
  }

  canAllocate({ ranges }: SequenceShape): boolean {
    return this.#parts.cache.spans.every(({ pool }, span) => heldPages(ranges[span] ?? []).size <= pool.freePages);
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.#sequences.create();
    try {
      sequence.hold(shape);
      for await (const [index, piece] of piecesFor(sizes, pieces)) {
        await this.#sequences.explained(() => this.#write(index, sequence, piece));
      }
      return sequence;
    } catch (error) {
      sequence.dispose();
      throw error;
    }
  }

  async #read(index: number, pages: readonly number[], byteLength: number): Promise<Uint8Array> {
    const { device } = this.#parts.gpu;
    const staging = device.createBuffer({
      size: byteLength,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = device.createCommandEncoder();
    for (const { buffer, offset, at, bytes } of this.#places(index, pages)) {
      encoder.copyBufferToBuffer(buffer, offset, staging, at, bytes);
    }
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const read = new Uint8Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return read;
  }

  async #write(index: number, sequence: WebgpuSequence, piece: Uint8Array): Promise<void> {
    const { cache, gpu } = this.#parts;
    const layer = cache.layers[index];
    if (!layer) throw new Error(`no cache for layer ${index}`);
    for (const { buffer, offset, at, bytes } of this.#places(index, this.#pages(sequence, layer))) {
      gpu.device.queue.writeBuffer(buffer, offset, piece as Uint8Array<ArrayBuffer>, at, bytes);
    }
    // The queue copies what is written to it; waiting here bounds what the host holds.
    await gpu.device.queue.onSubmittedWorkDone();
  }

  /** Where the pages of a layer lie in its buffers, and where in its piece. */
  #places(index: number, pages: readonly number[]) {
    const layer = this.#parts.cache.layers[index];
    const bytes = this.#pageBytes(index);
    return (layer ? buffersOf(layer) : []).flatMap((buffer, part) =>
      pages.map((page, i) => ({ buffer, bytes, offset: page * bytes, at: (part * pages.length + i) * bytes })),
    );
  }

  #pages({ tables }: WebgpuSequence, { span }: LayerCache): number[] {
    return (tables[span]?.pages ?? []).filter((page) => page >= 0);
  }

  #pageBytes(index: number): number {
    const { spec, cache } = this.#parts;
    const layer = spec.layers[index];
    if (!layer) throw new Error(`there is no layer ${index}`);
    return pageBytes(layer.attention, cache.precision);
  }

  #own(sequence: Sequence): WebgpuSequence {
    const own = this.#sequences.own(sequence);
    if (!own) throw new Error('a sequence of another decoder, or one that was disposed');
    return own;
  }
}

const buffersOf = ({ keys, values }: LayerCache): GPUBuffer[] => (values ? [keys, values] : [keys]);
