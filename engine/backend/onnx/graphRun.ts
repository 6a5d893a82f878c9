/** Runs forward passes of the graph over the tokens of one sequence; times a matmul. */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { attentionFactor, inverseFrequencies, queryFactor } from '../../model/spec/rope.ts';
import type { QueryTemperature, RopeSpec } from '../../model/spec/spec.ts';
import type { CacheLayout, LayerCacheSpec, StateSpec, ThreadSlice, WindowGroup } from '../processor/messages.ts';
import { GraphBuilder } from './graphBuilder.ts';
import { floats, KeyValueCache } from './keyValueCache.ts';

/** The graph's inputs. Plain data, sent to the thread once. */
export interface GraphInputs {
  /** Width of the hidden states that a stage takes instead of token ids. */
  readonly hiddenSize?: number;
  readonly numAttentionHeads: number;
  readonly rotations: readonly RotationInputs[];
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  /** States of recurrent layers. Their group comes after the last window group. */
  readonly states: readonly StateSpec[];
}

/** Inputs `cos.<index>` and `sin.<index>`: RoPE tables for the positions of the pass's tokens. */
export interface RotationInputs {
  readonly rope: RopeSpec;
  /** Multiplies cos and sin. Folds the softmax scale into the queries' rotation at no cost. */
  readonly scale: number;
  /** For queries: also multiplies cos and sin by a factor of the position. */
  readonly temperature?: QueryTemperature;
}

/** Limits on the bytes of attention scores in one pass. At long contexts, prompts are split into smaller chunks. */
export interface ScoreBytes {
  /** The usual limit. The runtime's arena keeps a multiple of the largest pass. */
  readonly usual: number;
  /** For chunks of up to `minChunkTokens`: smaller chunks would read the weights too often. */
  readonly max: number;
}

const defaultScoreBytes: ScoreBytes = { usual: 16 * 1024 * 1024, max: 256 * 1024 * 1024 };
const minChunkTokens = 64;
/** Positions whose keys and values are summed together. MLAS sums blocks of at least this many products. */
const spanTokens = 128;
/** Columns of a span, with one column of zeros. */
export const spanColumns = spanTokens + 1;

interface Rotation {
  readonly frequencies: Float64Array;
  /** Factor on cos and sin at a position. */
  readonly factor: (position: number) => number;
}

export class GraphRun {
  readonly #session: InferenceSession;
  readonly #inputs: GraphInputs;
  readonly #rotations: readonly Rotation[];
  readonly #scoreBytes: ScoreBytes;

  constructor(session: InferenceSession, inputs: GraphInputs, scoreBytes = defaultScoreBytes) {
    this.#session = session;
    this.#inputs = inputs;
    this.#scoreBytes = scoreBytes;
    this.#rotations = inputs.rotations.map(({ rope, scale, temperature }: RotationInputs) => ({
      frequencies: inverseFrequencies(rope),
      factor: (position) => attentionFactor(rope) * scale * queryFactor(temperature, position),
    }));
  }

  emptyCache(): KeyValueCache {
    return new KeyValueCache(this.#inputs);
  }

  /** Appends `tokens` to the cache, in a layout with room for them. @returns logits of the requested rows, `[rows, vocabulary]` f32. */
  async run(cache: KeyValueCache, slice: Omit<ThreadSlice, 'sequence'>): Promise<Float32Array> {
    const { layout, tokens, logits } = slice;
    const chunks: Float32Array[] = [];
    for (let first = 0; first < tokens.length; ) {
      const left = spanTokens - (cache.length % spanTokens);
      const count = Math.min(tokens.length - first, left, this.#maxChunkTokens(cache));
      const isLast = first + count === tokens.length;
      const rows = logits === 'all' ? range(count) : logits === 'last' && isLast ? [count - 1] : [];
      chunks.push(await this.#runChunk(cache, layout, this.#tokenFeeds(slice, first, count), { count, rows }));
      first += count;
    }
    return concatenated(chunks.filter(({ length }) => length > 0));
  }

  #maxChunkTokens(cache: KeyValueCache): number {
    const cached = Math.max(0, ...this.#inputs.windowGroups.map((_, group) => cache.tail(group).columns));
    const fitting = (scoreBytes: number): number => {
      const bytesOfTokenPair = 4 * this.#inputs.numAttentionHeads;
      // A chunk of n tokens has n · (cached + n) scores a head.
      const pairs = scoreBytes / bytesOfTokenPair;
      return Math.max(1, Math.floor((Math.sqrt(cached * cached + 4 * pairs) - cached) / 2));
    };
    const { usual, max } = this.#scoreBytes;
    return Math.max(fitting(usual), Math.min(minChunkTokens, fitting(max)));
  }

  #tokenFeeds({ tokens, hidden }: Omit<ThreadSlice, 'sequence'>, first: number, count: number): Record<string, Tensor> {
    const { hiddenSize } = this.#inputs;
    if (hiddenSize === undefined) return { ids: int64(tokens.slice(first, first + count), [1, count]) };
    const states = hidden?.subarray(first * hiddenSize, (first + count) * hiddenSize);
    if (!states) throw new Error('A stage takes hidden states.');
    return { hidden: new Tensor('float32', states, [1, count, hiddenSize]) };
  }

  async #runChunk(
    cache: KeyValueCache,
    layout: CacheLayout,
    tokens: Record<string, Tensor>,
    { count, rows }: { readonly count: number; readonly rows: readonly number[] },
  ): Promise<Float32Array> {
    const results = await this.#session.run({
      ...tokens,
      rows: int64(rows, [rows.length]),
      ...this.#rotationFeeds(cache.length, count),
      ...this.#windowFeeds(cache, count),
      ...cache.feeds(),
    });
    // Only after the pass: before it, the chunk would read the new columns too.
    cache.arrange(layout, cache.length);
    cache.append(results, count);
    return floats(results['logits']);
  }

  #rotationFeeds(firstPosition: number, count: number): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [index, { frequencies, factor }] of this.#rotations.entries()) {
      const pairs = frequencies.length;
      const cos = new Float32Array(count * pairs);
      const sin = new Float32Array(count * pairs);
      for (let at = 0; at < cos.length; at++) {
        const position = firstPosition + Math.floor(at / pairs);
        const angle = position * (frequencies[at % pairs] as number);
        const scale = factor(position);
        cos[at] = scale * Math.cos(angle);
        sin[at] = scale * Math.sin(angle);
      }
      feeds[`cos.${index}`] = new Tensor('float32', cos, [count, pairs]);
      feeds[`sin.${index}`] = new Tensor('float32', sin, [count, pairs]);
    }
    return feeds;
  }

  #windowFeeds(cache: KeyValueCache, count: number): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [index, { slidingWindow }] of this.#inputs.windowGroups.entries()) {
      const { first: start, columns } = cache.tail(index);
      const dims = {
        count,
        columns,
        length: cache.length,
        start,
        slidingWindow: slidingWindow ?? Number.POSITIVE_INFINITY,
      };
      const cached = dims.length - dims.start;
      const first = spanStart(dims) - dims.start;
      feeds[`mask.${index}`] = new Tensor('float32', attentionMask(dims), [count, dims.columns + spanColumns]);
      feeds[`sizes.${index}`] = int64([dims.columns, spanColumns], [2]);
      feeds[`first.${index}`] = int64([first], [1]);
      feeds[`last.${index}`] = int64([cached], [1]);
      feeds[`lacking.${index}`] = int64([spanTokens - (cached - first) - count], [1]);
      feeds[`columns.${index}`] = int64([dims.columns], [1]);
      feeds[`width.${index}`] = int64([dims.columns + spanColumns], [1]);
    }
    return feeds;
  }
}

interface MaskDims {
  readonly count: number;
  readonly columns: number;
  /** Tokens before the new ones, and the first of them that is cached. */
  readonly length: number;
  readonly start: number;
  readonly slidingWindow: number;
}

/** The first cached position in the span of the new tokens. */
const spanStart = ({ length, start }: Pick<MaskDims, 'length' | 'start'>): number =>
  Math.max(start, length - (length % spanTokens));

/**
 * 0 where the row's new token may attend to the column's cached token, or to the cached or new token of its span; −∞
 * elsewhere. `[count, columns + spanColumns]`
 */
export function attentionMask({ count, columns, length, start, slidingWindow }: MaskDims): Float32Array {
  const width = columns + spanColumns;
  const mask = new Float32Array(count * width).fill(Number.NEGATIVE_INFINITY);
  const border = spanStart({ length, start });
  for (let row = 0; row < count; row++) {
    const position = length + row;
    const least = Math.max(start, position - slidingWindow + 1);
    const at = row * width;
    if (least < border) mask.fill(0, at + least - start, at + border - start);
    mask.fill(0, at + columns + Math.max(0, least - border), at + columns + position - border + 1);
  }
  return mask;
}

function int64(values: readonly number[], dims: readonly number[]): Tensor {
  return new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function concatenated(chunks: readonly Float32Array[]): Float32Array {
  if (chunks.length === 1 && chunks[0]) return chunks[0];
  const all = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

// Times a memory-bound matmul, the main work of decode.

/** Rows and columns of the f32 matrix: 64 MB, larger than any processor cache. */
const size = 4096;
const repetitions = 7;

/** Times a vector times a matrix that doesn't fit the processor's caches. @returns the median in milliseconds. */
export async function matmulMs(threads: number): Promise<number> {
  const graph = new GraphBuilder('');
  const vector = graph.input('vector', 'float32', [1, size]);
  const matrix = graph.input('matrix', 'float32', [size, size]);
  graph.output(graph.op('MatMul', [vector, matrix]), 'output', 'float32', [1, size]);
  const session = await InferenceSession.create(graph.encode(), {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
  });
  const feeds = {
    vector: new Tensor('float32', new Float32Array(size).fill(1), [1, size]),
    matrix: new Tensor('float32', new Float32Array(size * size).fill(1), [size, size]),
  };
  const times: number[] = [];
  for (let run = 0; run < repetitions; run++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((a, b) => a - b)[repetitions >> 1] ?? 0;
}
