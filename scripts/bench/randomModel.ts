/**
 * Writes a GGUF file with random weights in a published model's shapes, for speed comparisons without the real file. It has
 * realistic scales (finite activations, flat logits) and a dummy vocabulary; its output is meaningless.
 *
 *   node scripts/bench/randomModel.ts qwen3-0.6b Q8_0 OUT.gguf
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

/** Dimensions from the models' published config.json. Tied embeddings, qwen3 architecture. */
export const benchShapes: Readonly<Record<string, BenchShape>> = {
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

/** ggml type number, and bytes per block of 32 values. */
const blockTypes = { Q4_0: { id: 2, bytes: 18 }, Q8_0: { id: 8, bytes: 34 } } as const;
export type BenchType = keyof typeof blockTypes;
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
  return tensor.kind === 'norm' ? count * 4 : (count / 32) * blockTypes[type].bytes;
};
/** Random blocks with a standard deviation of about 1 / sqrt(width), like trained weights. */
function randomBlocks(type: BenchType, byteLength: number, width: number, random: () => number): Uint8Array {
  const out = new Uint8Array(byteLength);
  const view = new DataView(out.buffer);
  const blockBytes = blockTypes[type].bytes;
  // A uniform integer grid of n levels has a standard deviation of n / sqrt(12).
  const scale = Math.sqrt(12) / (type === 'Q8_0' ? 256 : 16) / Math.sqrt(width);
  const scaleBits = float16Bits(scale);
  for (let at = 0; at + 4 <= byteLength; at += 4) view.setUint32(at, random() * 0x1_0000_0000, true);
  for (let block = 0; block < byteLength; block += blockBytes) view.setUint16(block, scaleBits, true);
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
    const typeId = tensor.kind === 'norm' ? float32Id : blockTypes[type].id;
    const width = tensor.shape.at(-1) ?? 1;
    const ones = () => new Uint8Array(new Float32Array(width).fill(1).buffer);
    const pieces = () => [tensor.kind === 'norm' ? ones() : randomBlocks(type, byteLength, width, random)];
    return { ...tensor, typeId, byteLength, pieces };
  });
  writeGguf(path, metadata(name, shape), tensors);
}

if (import.meta.main) {
  const [name = '', type = '', path = ''] = process.argv.slice(2);
  if (!(type in blockTypes) || path === '') {
    console.error(`Usage: node scripts/bench/randomModel.ts ${Object.keys(benchShapes).join('|')} Q8_0|Q4_0 OUT.gguf`);
    process.exit(1);
  }
  writeBenchModel(name, type as BenchType, path);
}
