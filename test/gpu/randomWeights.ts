/** Weights of any size that are nowhere stored: every row is made of its own seed when it is read. */

import type { TensorType } from '../../engine/formats/tensor.ts';
import { blockLayout, byteLengthOf } from '../../engine/formats/tensor.ts';
import {
  type AttentionSpec,
  type DecoderSpec,
  type FeedForwardSpec,
  qkNormWidths,
} from '../../engine/model/spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  FeedForwardWeights,
  Linear,
  Weight,
} from '../../engine/model/weights/weights.ts';
import { randomValues } from './kernel.ts';

/** Types of a checkpoint's matrices, as it is published. */
export interface MatrixTypes {
  readonly attention: TensorType;
  readonly experts: TensorType;
}

/** FP8 comes with scales of 128 x 128 blocks (DeepSeek-V3). */
const scaleBlock = 128;

export function randomDecoderWeights(spec: DecoderSpec, types: MatrixTypes): DecoderWeights {
  const make = new Maker();
  const hidden = spec.hiddenSize;
  const embedding = make.matrix('BF16', spec.vocabularySize, hidden);
  return {
    embedding,
    layers: spec.layers.map(({ attention, feedForward }) => ({
      attentionNorm: make.ones(hidden),
      attention: attentionWeights(make, attention, hidden, types.attention),
      feedForwardNorm: make.ones(hidden),
      feedForward: feedForwardWeights(make, feedForward, hidden, types),
    })),
    finalNorm: make.ones(hidden),
    head: spec.tiedEmbeddings ? embedding : make.matrix('BF16', spec.vocabularySize, hidden),
  };
}

function attentionWeights(make: Maker, spec: AttentionSpec, hidden: number, type: TensorType): AttentionWeights {
  if (spec.kind === 'latent') {
    const { numAttentionHeads: heads, queryRank = hidden, keyValueRank: rank, valueHeadDim: value } = spec;
    const { nopeHeadDim: nope, ropeHeadDim: rope } = spec;
    return {
      kind: 'latent',
      queryDown: make.matrix(type, queryRank, hidden),
      queryNorm: make.ones(queryRank),
      queryUp: make.matrix(type, heads * (nope + rope), queryRank),
      keyValueDown: make.matrix(type, rank + rope, hidden),
      keyValueNorm: make.ones(rank),
      keyUp: { weight: make.matrix(type, heads, nope, rank), transposed: false },
      valueUp: make.matrix(type, heads, value, rank),
      output: make.matrix(type, hidden, heads * value),
    };
  }
  if (spec.kind === 'gated-delta') throw new Error('No model with a gated delta net is made here.');
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, bias, qkNorm, sinks } = spec;
  const normWidths = qkNormWidths(spec);
  const linear = (rows: number, columns: number, biased: boolean): Linear => ({
    weight: make.matrix(type, rows, columns),
    ...(biased && { bias: make.vector(rows) }),
  });
  return {
    kind: 'grouped-query',
    query: linear(heads * headDim, hidden, bias.qkv),
    key: linear(kvHeads * headDim, hidden, bias.qkv),
    value: linear(kvHeads * headDim, hidden, bias.qkv),
    output: linear(hidden, heads * headDim, bias.output),
    ...(qkNorm && { queryNorm: make.ones(normWidths[0]), keyNorm: make.ones(normWidths[1]) }),
    ...(sinks && { sinks: make.vector(heads) }),
  };
}

function feedForwardWeights(
  make: Maker,
  spec: FeedForwardSpec,
  hidden: number,
  types: MatrixTypes,
): FeedForwardWeights {
  if (spec.kind === 'plain') throw new Error('No model without gates is made here.');
  if (spec.kind === 'dense') return make.dense(types.attention, spec.intermediateSize, hidden);
  const { numExperts, intermediateSize, bias, sharedIntermediateSize, router } = spec;
  const expert = (rows: number, columns: number): Linear => ({
    weight: make.matrix(types.experts, numExperts, rows, columns),
    ...(bias && { bias: make.matrix('F32', numExperts, rows) }),
  });
  return {
    kind: 'experts',
    router: { weight: make.matrix('F32', numExperts, hidden), ...(bias && { bias: make.vector(numExperts) }) },
    ...(router.kind === 'sigmoid-grouped' && { selectionBias: make.vector(numExperts) }),
    gate: expert(intermediateSize, hidden),
    up: expert(intermediateSize, hidden),
    down: expert(hidden, intermediateSize),
    ...(sharedIntermediateSize !== undefined && { shared: make.dense(types.experts, sharedIntermediateSize, hidden) }),
  };
}

class Maker {
  #next = 1;

  ones(size: number): Weight {
    return stored('ones', new Float32Array(size).fill(1));
  }

  vector(size: number): Weight {
    return stored('vector', randomValues(size, this.#next++, 0.5));
  }

  dense(type: TensorType, width: number, hidden: number) {
    const [gate, up] = [this.matrix(type, width, hidden), this.matrix(type, width, hidden)];
    return { kind: 'dense', gate, up, down: this.matrix(type, hidden, width) } as const;
  }

  matrix(type: TensorType, ...shape: readonly number[]): Weight {
    const seed = this.#next++;
    const columns = shape.at(-1) ?? 1;
    const rowBytes = byteLengthOf(type, [columns]);
    const readRows = async (start: number, count: number) => {
      const bytes = new Uint8Array(count * rowBytes);
      for (let row = 0; row < count; row++)
        fillRow(type, bytes.subarray(row * rowBytes, (row + 1) * rowBytes), seed * 1e6 + start + row, columns);
      return bytes;
    };
    const weight = { name: `random ${seed}`, type, shape, readRows };
    if (type !== 'F8_E4M3') return weight;
    const matrices = shape.slice(0, -2).reduce((product, size) => product * size, 1);
    const scales = matrices * Math.ceil((shape.at(-2) ?? 1) / scaleBlock) * Math.ceil(columns / scaleBlock);
    // FP8 codes below 2 spread by about 0.9.
    const read = async () =>
      randomValues(scales, seed, 0.5 / Math.sqrt(columns)).map((value) => value + 1 / Math.sqrt(columns));
    return { ...weight, blockScale: { blockRows: scaleBlock, blockColumns: scaleBlock, read } };
  }
}

function stored(name: string, values: Float32Array): Weight {
  const bytes = new Uint8Array(values.buffer);
  return {
    name,
    type: 'F32',
    shape: [values.length],
    readRows: async (start, count) => bytes.slice(4 * start * values.length, 4 * (start + count) * values.length),
  };
}

/** xorshift32 words, bent into sane values: about 1 / √columns. */
function fillRow(type: TensorType, row: Uint8Array, seed: number, columns: number): void {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const scale = 1 / Math.sqrt(columns);
  const view = new DataView(row.buffer, row.byteOffset, row.length);
  if (type === 'F32') {
    for (let at = 0; at < row.length; at += 4) view.setFloat32(at, (next() / 2 ** 31 - 1) * 2 * scale, true);
    return;
  }
  for (let at = 0; at + 4 <= row.length; at += 4) view.setUint32(at, next(), true);
  const { bytes: blockBytes } = blockLayout(type);
  if (type === 'BF16') {
    const exponent = (127 + Math.floor(Math.log2(scale))) << 7;
    for (let at = 0; at < row.length; at += 2) view.setUint16(at, (view.getUint16(at, true) & 0x807f) | exponent, true);
  } else if (type === 'F8_E4M3') {
    // Below 2: never a NaN.
    for (let at = 0; at < row.length; at++) row[at] = (row[at] ?? 0) & 0xbf;
  } else if (type === 'MXFP4') {
    for (let at = 0; at < row.length; at += blockBytes) row[at] = 125 + Math.floor(Math.log2(scale)) + (next() & 1);
  } else if (type === 'Q4_K') {
    // d and dmin: 32 · 8 · d and 32 · dmin cancel on the average.
    for (let at = 0; at < row.length; at += blockBytes) {
      view.setFloat16(at, scale / 150, true);
      view.setFloat16(at + 2, scale / 20, true);
    }
  } else throw new Error(`no random rows of ${type}`);
}
