/**
 * Writes a GGUF file with random weights in a published model's shapes, for speed comparisons without the real file. It has
 * realistic scales (finite activations, flat logits) and a dummy vocabulary; its output is meaningless.
 *
 *   node scripts/bench/randomModel.ts qwen3-0.6b Q8_0|Q4_0|Q6_K|Q4_K_M|MXFP4 OUT.gguf
 */
import { dummyVocabulary, float16Bits, type MetadataValue, randomNumbers, writeGguf } from '../shared/ggufWriter.ts';

export interface BenchShape {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  readonly ropeTheta: number;
  readonly contextTokens: number;
}

/** Dimensions from the models' published config.json, except `tiny`. Tied embeddings, qwen3 architecture. */
export const benchShapes: Readonly<Record<string, BenchShape>> = {
  // For the benchmark's own test.
  tiny: {
    layers: 2,
    hiddenSize: 128,
    intermediateSize: 256,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 32,
    vocabularySize: 512,
    ropeTheta: 1e6,
    contextTokens: 1024,
  },
  'qwen3-0.6b': {
    layers: 28,
    hiddenSize: 1024,
    intermediateSize: 3072,
    numAttentionHeads: 16,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabularySize: 151_936,
    ropeTheta: 1e6,
    contextTokens: 40_960,
  },
  'qwen3-1.7b': {
    layers: 28,
    hiddenSize: 2048,
    intermediateSize: 6144,
    numAttentionHeads: 16,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabularySize: 151_936,
    ropeTheta: 1e6,
    contextTokens: 40_960,
  },
};

/**
 * ggml's type number, values and bytes of a block, where its f16 scales are, and the standard deviation of a value in scales. Blocks of
 * 256 have further scales within, which are random as well.
 */
const blocks = {
  Q4_0: { id: 2, values: 32, bytes: 18, scaleAt: 0, spread: 16 / Math.sqrt(12) },
  Q8_0: { id: 8, values: 32, bytes: 34, scaleAt: 0, spread: 256 / Math.sqrt(12) },
  // The minimum is subtracted; its scales are as large as those of the values.
  Q4_K: { id: 12, values: 256, bytes: 144, scaleAt: 0, spread: 150, minimumAt: 2, minimum: 7.5 },
  // All of its sixteen byte scales are 8: with random ones the f16 scale would be too small.
  Q6_K: { id: 14, values: 256, bytes: 210, scaleAt: 208, spread: 8 * 18.5, eightsAt: 192 },
  // A power of two in one byte.
  MXFP4: { id: 39, values: 32, bytes: 17, exponentAt: 0, spread: 3 },
} as const;
type Block = keyof typeof blocks;

/** One type for all weights; `Q4_K_M`: Q4_K, with values, down projections and the embedding in Q6_K, where llama.cpp keeps half of them in Q4_K. */
const benchTypes = ['Q4_0', 'Q8_0', 'Q6_K', 'Q4_K_M', 'MXFP4'] as const;
export type BenchType = (typeof benchTypes)[number];

const blockOf = (name: string, type: BenchType): Block =>
  type === 'Q4_K_M' ? (/attn_v|ffn_down|token_embd/.test(name) ? 'Q6_K' : 'Q4_K') : type;

const float32Id = 0;

interface PlannedTensor {
  readonly name: string;
  /** Outermost dimension first. */
  readonly shape: readonly number[];
  readonly kind: 'weight' | 'norm';
}

function plan(shape: BenchShape): PlannedTensor[] {
  const { hiddenSize, intermediateSize, headDim, numAttentionHeads, numKeyValueHeads } = shape;
  const tensors: PlannedTensor[] = [
    { name: 'token_embd.weight', shape: [shape.vocabularySize, hiddenSize], kind: 'weight' },
    { name: 'output_norm.weight', shape: [hiddenSize], kind: 'norm' },
  ];
  for (let layer = 0; layer < shape.layers; layer++) {
    const weight = (name: string, out: number, width: number) =>
      tensors.push({ name: `blk.${layer}.${name}.weight`, shape: [out, width], kind: 'weight' });
    const norm = (name: string, width: number) =>
      tensors.push({ name: `blk.${layer}.${name}.weight`, shape: [width], kind: 'norm' });
    norm('attn_norm', hiddenSize);
    weight('attn_q', numAttentionHeads * headDim, hiddenSize);
    weight('attn_k', numKeyValueHeads * headDim, hiddenSize);
    weight('attn_v', numKeyValueHeads * headDim, hiddenSize);
    weight('attn_output', hiddenSize, numAttentionHeads * headDim);
    norm('attn_q_norm', headDim);
    norm('attn_k_norm', headDim);
    norm('ffn_norm', hiddenSize);
    weight('ffn_gate', intermediateSize, hiddenSize);
    weight('ffn_up', intermediateSize, hiddenSize);
    weight('ffn_down', hiddenSize, intermediateSize);
  }
  return tensors;
}

function metadata(name: string, shape: BenchShape): Record<string, MetadataValue> {
  return {
    'general.architecture': { string: 'qwen3' },
    'general.name': { string: `${name} with random weights` },
    'qwen3.block_count': { uint32: shape.layers },
    'qwen3.context_length': { uint32: shape.contextTokens },
    'qwen3.embedding_length': { uint32: shape.hiddenSize },
    'qwen3.feed_forward_length': { uint32: shape.intermediateSize },
    'qwen3.attention.head_count': { uint32: shape.numAttentionHeads },
    'qwen3.attention.head_count_kv': { uint32: shape.numKeyValueHeads },
    'qwen3.attention.key_length': { uint32: shape.headDim },
    'qwen3.attention.value_length': { uint32: shape.headDim },
    'qwen3.attention.layer_norm_rms_epsilon': { float32: 1e-6 },
    'qwen3.rope.freq_base': { float32: shape.ropeTheta },
    ...dummyVocabulary(shape.vocabularySize, 'qwen2'),
  };
}

const tensorBytes = (tensor: PlannedTensor, type: BenchType): number => {
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  const { values, bytes } = blocks[blockOf(tensor.name, type)];
  return tensor.kind === 'norm' ? count * 4 : (count / values) * bytes;
};

/** Random blocks with a standard deviation of about 1 / sqrt(width), like trained weights. */
function randomBlocks(block: Block, byteLength: number, width: number, random: () => number): Uint8Array {
  const out = new Uint8Array(byteLength);
  const view = new DataView(out.buffer);
  const { bytes, spread, ...rest } = blocks[block];
  const scale = 1 / (spread * Math.sqrt(width));
  for (let at = 0; at + 4 <= byteLength; at += 4) view.setUint32(at, random() * 0x1_0000_0000, true);
  for (let at = 0; at < byteLength; at += bytes) {
    if ('exponentAt' in rest) out[at + rest.exponentAt] = 127 + Math.round(Math.log2(scale));
    else view.setUint16(at + rest.scaleAt, float16Bits(scale), true);
    if ('eightsAt' in rest) out.fill(8, at + rest.eightsAt, at + rest.eightsAt + 16);
    if ('minimumAt' in rest) view.setUint16(at + rest.minimumAt, float16Bits(rest.minimum * scale), true);
  }
  return out;
}

export function writeBenchModel(name: string, type: BenchType, path: string): void {
  const shape = benchShapes[name];
  if (shape === undefined) throw new Error(`Unknown shape ${name}; known: ${Object.keys(benchShapes).join(', ')}`);
  writeRandomModel(name, shape, type, path);
}

export function writeRandomModel(name: string, shape: BenchShape, type: BenchType, path: string): void {
  const random = randomNumbers(20_261_123);
  const tensors = plan(shape).map((tensor) => {
    const byteLength = tensorBytes(tensor, type);
    const block = blockOf(tensor.name, type);
    const typeId = tensor.kind === 'norm' ? float32Id : blocks[block].id;
    const width = tensor.shape.at(-1) ?? 1;
    const ones = () => new Uint8Array(new Float32Array(width).fill(1).buffer);
    const pieces = () => [tensor.kind === 'norm' ? ones() : randomBlocks(block, byteLength, width, random)];
    return { ...tensor, typeId, byteLength, pieces };
  });
  writeGguf(path, metadata(name, shape), tensors);
}

if (import.meta.main) {
  const [name = '', type = '', path = ''] = process.argv.slice(2);
  const known = benchTypes.find((each) => each === type);
  if (known === undefined || path === '') {
    const shapes = Object.keys(benchShapes).join('|');
    console.error(`Usage: node scripts/bench/randomModel.ts ${shapes} ${benchTypes.join('|')} OUT.gguf`);
    process.exit(1);
  }
  writeBenchModel(name, known, path);
}
