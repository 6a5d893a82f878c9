/** Runs the graph over the tokens of one sequence. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { attentionFactor, inverseFrequencies } from '../../model/spec/rope.ts';
import { roomFor } from './cacheExtent.ts';
import { floats, KeyValueCache } from './keyValueCache.ts';
import type { RotationPlan, RunPlan } from './layerPlan.ts';

/** Bytes of attention scores in one run of the graph; prompts at long contexts go in smaller pieces. */
export interface ScoreBytes {
  /** The runtime keeps what its largest run needed, several times over. */
  readonly comfortable: number;
  /** For pieces of up to `fewTokens`: smaller ones would read the weights too often. */
  readonly most: number;
}

const defaultScoreBytes: ScoreBytes = { comfortable: 16 * 1024 * 1024, most: 256 * 1024 * 1024 };
const fewTokens = 64;

interface Rotation {
  readonly frequencies: Float64Array;
  readonly factor: number;
}

export class GraphRun {
  readonly #session: InferenceSession;
  readonly #plan: RunPlan;
  readonly #rotations: readonly Rotation[];
  readonly #scoreBytes: ScoreBytes;

  constructor(session: InferenceSession, plan: RunPlan, scoreBytes = defaultScoreBytes) {
    this.#session = session;
    this.#plan = plan;
    this.#scoreBytes = scoreBytes;
    this.#rotations = plan.rotations.map(({ rope, scale }: RotationPlan) => ({
      frequencies: inverseFrequencies(rope),
      factor: attentionFactor(rope) * scale,
    }));
  }

  emptyCache(): KeyValueCache {
    return KeyValueCache.empty(this.#plan);
  }

  /** Appends `tokens` to the cache. @returns the logits of the rows asked for. `[rows, vocabulary]` */
  async run(cache: KeyValueCache, tokens: readonly number[], logits: 'none' | 'last' | 'all'): Promise<Float32Array> {
    const pieces: Float32Array[] = [];
    for (let first = 0; first < tokens.length; ) {
      const count = Math.min(tokens.length - first, this.#tokensThatFit(cache));
      const isLast = first + count === tokens.length;
      const rows = logits === 'all' ? range(count) : logits === 'last' && isLast ? [count - 1] : [];
      pieces.push(await this.#runPiece(cache, tokens.slice(first, first + count), rows));
      first += count;
    }
    return concatenated(pieces.filter(({ length }) => length > 0));
  }

  #tokensThatFit({ extent }: KeyValueCache): number {
    const fitting = (scoreBytes: number): number => {
      const bytesOfTokenPair = 4 * this.#plan.numAttentionHeads;
      // A piece of n tokens has n · (cached + n) scores a head.
      const pairs = scoreBytes / bytesOfTokenPair;
      const cached = roomFor(extent.length);
      return Math.max(1, Math.floor((Math.sqrt(cached * cached + 4 * pairs) - cached) / 2));
    };
    const { comfortable, most } = this.#scoreBytes;
    return Math.max(fitting(comfortable), Math.min(fewTokens, fitting(most)));
  }

  async #runPiece(cache: KeyValueCache, tokens: readonly number[], rows: readonly number[]) {
    const count = tokens.length;
    const results = await this.#session.run({
      ids: int64(tokens, [1, count]),
      rows: int64(rows, [rows.length]),
      ...this.#rotationFeeds(cache.extent.length, count),
      ...this.#spanFeeds(cache, count),
      ...cache.feeds(),
    });
    cache.append(results['cached'], count);
    return floats(results['logits']);
  }

  #rotationFeeds(firstPosition: number, count: number): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [index, { frequencies, factor }] of this.#rotations.entries()) {
      const pairs = frequencies.length;
      const cos = new Float32Array(count * pairs);
      const sin = new Float32Array(count * pairs);
      for (let at = 0; at < cos.length; at++) {
        const angle = (firstPosition + Math.floor(at / pairs)) * (frequencies[at % pairs] as number);
        cos[at] = factor * Math.cos(angle);
        sin[at] = factor * Math.sin(angle);
      }
      feeds[`cos.${index}`] = new Tensor('float32', cos, [count, pairs]);
      feeds[`sin.${index}`] = new Tensor('float32', sin, [count, pairs]);
    }
    return feeds;
  }

  #spanFeeds(cache: KeyValueCache, count: number): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [index, { slidingWindow }] of this.#plan.spans.entries()) {
      const room = cache.room(index);
      const held = cache.extent.held(index);
      const mask = attentionMask({ count, room, held, slidingWindow: slidingWindow ?? Number.POSITIVE_INFINITY });
      feeds[`mask.${index}`] = new Tensor('float32', mask, [count, room + count]);
      feeds[`sizes.${index}`] = int64([room, count], [2]);
    }
    return feeds;
  }
}

interface MaskDims {
  readonly count: number;
  readonly room: number;
  readonly held: number;
  readonly slidingWindow: number;
}

/** 0 where the new token of that row sees the cached or new token of that column, else −∞. `[count, room + count]` */
export function attentionMask({ count, room, held, slidingWindow }: MaskDims): Float32Array {
  const width = room + count;
  const mask = new Float32Array(count * width);
  const hidden = Number.NEGATIVE_INFINITY;
  for (let row = 0; row < count; row++) {
    const at = row * width;
    mask.fill(hidden, at + held, at + room);
    mask.fill(hidden, at + room + row + 1, at + width);
    // Counted from the first cached token, this row is at held + row and sees from there back.
    const unseen = held + row - slidingWindow + 1;
    if (unseen > 0) mask.fill(hidden, at, at + Math.min(unseen, held));
    if (unseen > held) mask.fill(hidden, at + room, at + room + unseen - held);
  }
  return mask;
}

function int64(values: readonly number[], dims: readonly number[]): Tensor {
  return new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function concatenated(pieces: readonly Float32Array[]): Float32Array {
  if (pieces.length === 1 && pieces[0]) return pieces[0];
  const all = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
