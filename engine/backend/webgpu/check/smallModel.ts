/**
 * The small model of the self-check. It uses the kernels of a large model (the same kinds of layers, heads, types and
 * routers), but has few and narrow layers. Its weights are generated when they are read.
 */

import type { TensorType } from '../../../formats/tensor.ts';
import { blockLayout, byteLengthOf, float16Bits } from '../../../formats/tensor.ts';
import {
  type AttentionSpec,
  convolutionChannels,
  type DecoderSpec,
  type FeedForwardSpec,
  type GatedDeltaSpec,
  type LayerSpec,
  qkNormWidths,
} from '../../../model/spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  GatedDeltaWeights,
  LayerWeights,
  Linear,
  Weight,
} from '../../../model/weights/weights.ts';
import { mapNorms } from '../../../model/weights/weights.ts';
import { eachValue } from '../../../model/weights/weightViews.ts';
import { defaultTuning, type Tuning } from '../device/adapter.ts';

export interface SmallModel {
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
  /** With which its matrices have the loops and tiles of the large model's. */
  readonly tuning: Pick<Tuning, 'sharedColumns' | 'tallRows'>;
}

/** Columns of a large model's matrices. The time of the check grows with their square. */
const widths = [512, 576];
/** Tall matrices of a large model have at least these rows here. (Some of those with 512 to 2,047 rows count as tall, too.) */
const tallRows = 512;
const mostTokens = 512;
const mostLayers = 4;
const mostTopK = 2;
/** Where only some groups of experts are used, so that a token's experts are in more of them than are used. */
const mostTopKOfGroups = 4;
/** A window that ends within the check's prompt. */
const mostWindow = 48;

/** Types of the matrices of a layer, by which its kernels differ. */
const typesOf = (layer: LayerWeights): string[] => matricesOf(layer).map(([role, { type }]) => `${role} ${type}`);

function matricesOf({ attention, feedForward }: LayerWeights): (readonly [role: string, Weight])[] {
  const within = (role: string, value: unknown): (readonly [string, Weight])[] => {
    if (typeof value !== 'object' || value === null) return [];
    if ('readRows' in value) return [[role, value as Weight]];
    return Object.entries(value).flatMap(([name, part]) => within(`${role}.${name}`, part));
  };
  return [...within('attention', attention), ...within('feedForward', feedForward)];
}

/** The narrowest width of whole blocks for which a threshold divides the matrices as in the large model. */
function widthOf({ embedding, head, layers }: DecoderWeights): number {
  const { sharedColumns } = defaultTuning;
  const matrices = [embedding, head, ...layers.flatMap((layer) => matricesOf(layer).map(([, weight]) => weight))];
  const fits = (width: number): boolean =>
    matrices.every(({ type, shape }) => {
      const columns = shape.length > 1 ? (shape.at(-1) ?? 0) : 0;
      return width % blockLayout(type).elements === 0 && (columns < width || columns >= sharedColumns);
    });
  return widths.find(fits) ?? sharedColumns;
}

/** One layer of each kind. */
export function smallModelOf(spec: DecoderSpec, weights: DecoderWeights): SmallModel {
  const kinds = new Map<string, { readonly layer: LayerSpec; readonly stored: LayerWeights }>();
  for (const [index, layer] of spec.layers.entries()) {
    const stored = weights.layers[index];
    if (!stored) throw new Error(`layer ${index} has no weights`);
    const key = JSON.stringify([layer, typesOf(stored)]);
    if (kinds.size < mostLayers && !kinds.has(key)) kinds.set(key, { layer, stored });
  }
  const width = widthOf(weights);
  const hiddenSize = Math.min(spec.hiddenSize, width);
  const vocabularySize = Math.min(spec.vocabularySize, mostTokens);
  const make = new WeightMaker();
  const layers = [...kinds.values()].map(({ layer, stored }) => {
    const small = {
      attention: smallAttention(layer.attention, width),
      feedForward: smallFeedForward(layer.feedForward, width),
    };
    return { spec: small, weights: layerWeights(make, small, stored, hiddenSize) };
  });
  const embedding = make.like(weights.embedding, vocabularySize, hiddenSize);
  const { stage, ...whole } = spec;
  return {
    spec: { ...whole, hiddenSize, vocabularySize, layers: layers.map((layer) => layer.spec) },
    weights: {
      embedding,
      layers: layers.map((layer) => layer.weights),
      finalNorm: make.norm(weights.finalNorm, hiddenSize),
      head: weights.head === weights.embedding ? embedding : make.like(weights.head, vocabularySize, hiddenSize),
    },
    tuning: { sharedColumns: width, tallRows },
  };
}

/** As many query heads share a KV head as in the large model, because that sets the shape of attention's tiles. */
function smallAttention(spec: AttentionSpec, width: number): AttentionSpec {
  if (spec.kind === 'latent') {
    const { queryRank } = spec;
    const rank = queryRank === undefined ? {} : { queryRank: Math.min(queryRank, width) };
    return { ...spec, numAttentionHeads: Math.min(spec.numAttentionHeads, 4), ...rank };
  }
  if (spec.kind === 'gated-delta') {
    const numKeyHeads = Math.min(spec.numKeyHeads, 2);
    return { ...spec, numKeyHeads, numValueHeads: (numKeyHeads * spec.numValueHeads) / spec.numKeyHeads };
  }
  const group = spec.numAttentionHeads / spec.numKeyValueHeads;
  // Rows of the output matrix must be whole blocks of 256.
  const kvHeads = [2, 4].find((count) => count <= spec.numKeyValueHeads && (group * count * spec.headDim) % 256 === 0);
  const numKeyValueHeads = kvHeads ?? spec.numKeyValueHeads;
  // With the published lengths, no query would change within the check's context.
  const { queryTemperature: temperature } = spec;
  const early = temperature && { queryTemperature: { ...temperature, originalContextTokens: 16 } };
  const window = spec.slidingWindow === undefined ? {} : { slidingWindow: Math.min(spec.slidingWindow, mostWindow) };
  return { ...spec, ...early, ...window, numKeyValueHeads, numAttentionHeads: group * numKeyValueHeads };
}

function smallFeedForward(spec: FeedForwardSpec, width: number): FeedForwardSpec {
  const intermediateSize = Math.min(spec.intermediateSize, width);
  if (spec.kind !== 'experts') return { ...spec, intermediateSize };
  const { router, sharedIntermediateSize: shared } = spec;
  const { groups, groupsUsed } = router.kind === 'sigmoid-grouped' ? router : { groups: 1, groupsUsed: 1 };
  const expertsPerToken = Math.min(spec.expertsPerToken, groups > 1 ? mostTopKOfGroups : mostTopK);
  // One expert more than a token chooses, so that most tokens of a prompt visit each expert and fill its tiles.
  const ofGroup = Math.max(2, Math.ceil((expertsPerToken + 1) / groupsUsed));
  return {
    ...spec,
    intermediateSize,
    numExperts: Math.min(spec.numExperts, groups * ofGroup),
    expertsPerToken,
    ...(shared !== undefined && { sharedIntermediateSize: Math.min(shared, width) }),
  };
}

function layerWeights(make: WeightMaker, spec: LayerSpec, stored: LayerWeights, hidden: number): LayerWeights {
  return {
    ...mapNorms(stored, (norm) => make.norm(norm, hidden)),
    attention: attentionWeights(make, spec.attention, stored.attention, hidden),
    feedForward: feedForwardWeights(make, spec.feedForward, stored.feedForward, hidden),
  };
}

function attentionWeights(
  make: WeightMaker,
  spec: AttentionSpec,
  stored: AttentionWeights,
  hidden: number,
): AttentionWeights {
  if (spec.kind === 'latent' && stored.kind === 'latent') {
    const { numAttentionHeads: heads, queryRank, keyValueRank: rank } = spec;
    const { nopeHeadDim: nope, ropeHeadDim: rope, valueHeadDim: value } = spec;
    const { transposed, weight } = stored.keyUp;
    return {
      kind: 'latent',
      ...(queryRank !== undefined &&
        stored.queryDown && {
          queryDown: make.like(stored.queryDown, queryRank, hidden),
          queryNorm: make.gain(queryRank),
        }),
      queryUp: make.like(stored.queryUp, heads * (nope + rope), queryRank ?? hidden),
      keyValueDown: make.like(stored.keyValueDown, rank + rope, hidden),
      keyValueNorm: make.gain(rank),
      keyUp: { transposed, weight: make.like(weight, heads, ...(transposed ? [rank, nope] : [nope, rank])) },
      valueUp: make.like(stored.valueUp, heads, value, rank),
      output: make.like(stored.output, hidden, heads * value),
    };
  }
  if (spec.kind === 'gated-delta' && stored.kind === 'gated-delta') return deltaWeights(make, spec, stored, hidden);
  if (spec.kind !== 'grouped-query' || stored.kind !== 'grouped-query') throw new Error(`${stored.kind} weights`);
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = spec;
  const normWidths = qkNormWidths(spec);
  return {
    kind: 'grouped-query',
    query: make.linear(stored.query, heads * headDim, hidden),
    key: make.linear(stored.key, kvHeads * headDim, hidden),
    value: make.linear(stored.value, kvHeads * headDim, hidden),
    output: make.linear(stored.output, hidden, heads * headDim),
    ...(stored.gate && { gate: make.linear(stored.gate, heads * headDim, hidden) }),
    ...(spec.qkNorm && { queryNorm: make.gain(normWidths[0]), keyNorm: make.gain(normWidths[1]) }),
    ...(spec.sinks && { sinks: make.vector(heads) }),
  };
}

function deltaWeights(
  make: WeightMaker,
  spec: GatedDeltaSpec,
  stored: GatedDeltaWeights,
  hidden: number,
): GatedDeltaWeights {
  const { numKeyHeads, numValueHeads: heads, keyHeadDim, valueHeadDim, convolutionTokens } = spec;
  const [keyWidth, valueWidth] = [numKeyHeads * keyHeadDim, heads * valueHeadDim];
  return {
    kind: 'gated-delta',
    query: make.like(stored.query, keyWidth, hidden),
    key: make.like(stored.key, keyWidth, hidden),
    value: make.like(stored.value, valueWidth, hidden),
    gate: make.like(stored.gate, valueWidth, hidden),
    beta: make.like(stored.beta, heads, hidden),
    decay: make.like(stored.decay, heads, hidden),
    decayBias: make.vector(heads),
    decayRate: eachValue(make.gain(heads), (value) => -value / 4),
    convolution: make.vector(convolutionChannels(spec), convolutionTokens),
    norm: make.gain(valueHeadDim),
    output: make.like(stored.output, hidden, valueWidth),
  };
}

function denseWeights(make: WeightMaker, stored: DenseWeights, states: number, hidden: number): DenseWeights {
  return {
    kind: 'dense',
    gate: make.like(stored.gate, states, hidden),
    up: make.like(stored.up, states, hidden),
    down: make.like(stored.down, hidden, states),
  };
}

function feedForwardWeights(
  make: WeightMaker,
  spec: FeedForwardSpec,
  stored: FeedForwardWeights,
  hidden: number,
): FeedForwardWeights {
  const { intermediateSize: states } = spec;
  if (stored.kind === 'dense') return denseWeights(make, stored, states, hidden);
  if (stored.kind === 'plain') {
    return {
      kind: 'plain',
      up: make.linear(stored.up, states, hidden),
      down: make.linear(stored.down, hidden, states),
    };
  }
  if (spec.kind !== 'experts') throw new Error('experts in a dense layer');
  const { numExperts: experts, sharedIntermediateSize: shared } = spec;
  return {
    kind: 'experts',
    router: make.linear(stored.router, experts, hidden),
    ...(stored.selectionBias && { selectionBias: make.selectionBias(experts) }),
    gate: make.linear(stored.gate, experts, states, hidden),
    up: make.linear(stored.up, experts, states, hidden),
    down: make.linear(stored.down, experts, hidden, states),
    ...(stored.sharedGate && { sharedGate: make.like(stored.sharedGate, 1, hidden) }),
    ...(stored.shared && shared !== undefined && { shared: denseWeights(make, stored.shared, shared, hidden) }),
  };
}

/** Generates each weight from its own seed, so that it is the same on every machine. */
class WeightMaker {
  #seed = 1;

  /** A weight with the same type and block scales in another shape. */
  like({ type, blockScale }: Weight, ...shape: readonly number[]): Weight {
    const seed = this.#seed++;
    const columns = shape.at(-1) ?? 1;
    const rowBytes = byteLengthOf(type, [columns]);
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    let made: Uint8Array | undefined;
    const make = (): Uint8Array => {
      const bytes = new Uint8Array(rows * rowBytes);
      for (let row = 0; row < rows; row++) {
        fillRow(type, bytes.subarray(row * rowBytes, (row + 1) * rowBytes), seed * 65_537 + row, columns);
      }
      return bytes;
    };
    const weight: Weight = {
      name: `check ${seed}`,
      type,
      shape,
      // The reference and each try on the device read it.
      readRows: async (start, count) => {
        made ??= make();
        return made.slice(start * rowBytes, (start + count) * rowBytes);
      },
    };
    if (!blockScale) return weight;
    const { blockRows, blockColumns } = blockScale;
    const matrices = shape.slice(0, -2).reduce((product, size) => product * size, 1);
    const scales = matrices * Math.ceil((shape.at(-2) ?? 1) / blockRows) * Math.ceil(columns / blockColumns);
    const read = async () => {
      const next = generator(seed);
      return Float32Array.from({ length: scales }, () => (0.5 + next() / 2 ** 32) / Math.sqrt(columns));
    };
    return { ...weight, blockScale: { blockRows, blockColumns, read } };
  }

  linear({ weight, bias }: Linear, ...shape: readonly number[]): Linear {
    return { weight: this.like(weight, ...shape), ...(bias && { bias: this.#floats(shape.slice(0, -1), 0, 0.3) }) };
  }

  gain(size: number): Weight {
    return this.#floats([size], 1, 0.3);
  }

  /** `[hidden]`, or `[2, hidden]` of a LayerNorm. */
  norm({ shape }: Weight, hidden: number): Weight {
    return this.#floats([...shape.slice(0, -1), hidden], 1, 0.3);
  }

  vector(...shape: readonly number[]): Weight {
    return this.#floats(shape, 0, 0.5);
  }

  /** A bias that makes every token visit the first expert. */
  selectionBias(experts: number): Weight {
    return this.#floats([experts], 0, 0.5, 1);
  }

  /** @param more added to the first value. */
  #floats(shape: readonly number[], centre: number, spread: number, more = 0): Weight {
    const next = generator(this.#seed++);
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, () => centre + spread * (next() / 2 ** 31 - 1));
    values[0] = (values[0] ?? 0) + more;
    const rowBytes = 4 * (shape.length === 1 ? count : (shape.at(-1) ?? 1));
    return {
      name: 'check',
      type: 'F32',
      shape,
      readRows: async (start, rows) => new Uint8Array(values.buffer).slice(start * rowBytes, (start + rows) * rowBytes),
    };
  }
}

/** xorshift32 (Marsaglia 2003). */
function generator(seed: number): () => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

/** Offsets of a block's f16 factors (ggml-common.h), and their values for weights of about one. */
const halfFields: Partial<Readonly<Record<TensorType, readonly (readonly [offset: number, value: number])[]>>> = {
  Q8_0: [[0, 1 / 73]],
  Q4_0: [[0, 1 / 4.6]],
  Q4_1: [
    [0, 1 / 4.6],
    [2, -7.5 / 4.6],
  ],
  Q5_0: [[0, 1 / 9.2]],
  Q5_1: [
    [0, 1 / 9.2],
    [2, -15.5 / 9.2],
  ],
  Q2_K: [
    [80, 1 / 11],
    [82, 1 / 7.5],
  ],
  Q3_K: [[108, 1 / 42]],
  Q4_K: [
    [0, 1 / 150],
    [2, 1 / 20],
  ],
  Q5_K: [
    [0, 1 / 300],
    [2, 1 / 20],
  ],
  Q6_K: [[208, 1 / 1300]],
  IQ4_NL: [[0, 1 / 60]],
  IQ4_XS: [[0, 1 / 1100]],
};

/** Fills a row with random bits, adjusted so that values are about 1 / √columns. */
function fillRow(type: TensorType, row: Uint8Array, seed: number, columns: number): void {
  const next = generator(seed);
  const scale = 1 / Math.sqrt(columns);
  const view = new DataView(row.buffer, row.byteOffset, row.length);
  for (let at = 0; at + 4 <= row.length; at += 4) view.setUint32(at, next(), true);
  const exponent = Math.floor(Math.log2(scale));
  if (type === 'F32') {
    for (let at = 0; at < row.length; at += 4) view.setFloat32(at, (next() / 2 ** 31 - 1) * 2 * scale, true);
  } else if (type === 'BF16' || type === 'F16') {
    const [mask, bits] = type === 'BF16' ? [0x807f, (127 + exponent) << 7] : [0x83ff, (15 + exponent) << 10];
    for (let at = 0; at < row.length; at += 2) view.setUint16(at, (view.getUint16(at, true) & mask) | bits, true);
  } else if (type === 'F8_E4M3') {
    // Below 2, and never a NaN.
    for (let at = 0; at < row.length; at++) row[at] = (row[at] ?? 0) & 0xbf;
  } else {
    const { bytes } = blockLayout(type);
    for (let at = 0; at < row.length; at += bytes) {
      if (type === 'MXFP4') row[at] = 126 + exponent + (next() & 1);
      for (const [offset, value] of halfFields[type] ?? [])
        view.setUint16(at + offset, float16Bits(value * scale), true);
    }
  }
}
