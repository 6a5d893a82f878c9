/**
 * Writes a GGUF file with random weights in a published model's shapes, for speed comparisons where the real file
 * is not to be had: sane scales (finite activations, flat logits), a dummy vocabulary, text without meaning.
 *
 *   node scripts/bench-model.ts qwen3-0.6b Q8_0 OUT.gguf
 */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';

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

/** ggml type number and bytes of a block of 32 values. */
const blockTypes = { Q4_0: { id: 2, bytes: 18 }, Q8_0: { id: 8, bytes: 34 } } as const;
export type BenchType = keyof typeof blockTypes;
const float32Id = 0;
const alignment = 32;

interface PlannedTensor {
  readonly name: string;
  /** Outermost first. */
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

/** GGUF value types. */
const uint32Type = 4;
const int32Type = 5;
const float32Type = 6;
const stringType = 8;
const arrayType = 9;

type MetadataValue =
  | { readonly uint32: number }
  | { readonly float32: number }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly int32s: readonly number[] };

function metadata(name: string, shape: BenchShape): Record<string, MetadataValue> {
  const used = ['<|bos|>', '<|eos|>', ...byteAlphabet(), 'ab'];
  const padding = Array.from({ length: shape.vocabularySize - used.length }, (_, index) => `[PAD${index}]`);
  const normal = 1;
  const control = 3;
  const unused = 5;
  const kind = (index: number) => (index < 2 ? control : index < used.length ? normal : unused);
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
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: 'qwen2' },
    'tokenizer.ggml.tokens': { strings: [...used, ...padding] },
    'tokenizer.ggml.token_type': { int32s: Array.from({ length: shape.vocabularySize }, (_, index) => kind(index)) },
    'tokenizer.ggml.merges': { strings: ['a b'] },
    'tokenizer.ggml.bos_token_id': { uint32: 0 },
    'tokenizer.ggml.eos_token_id': { uint32: 1 },
  };
}

/** GPT-2's visible character for each byte (openai/gpt-2, encoder.py, `bytes_to_unicode`). */
function byteAlphabet(): string[] {
  const visible = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(visible(byte) ? byte : next++));
}

class Bytes {
  private readonly parts: Buffer[] = [];
  byteLength = 0;

  private push(part: Buffer): void {
    this.parts.push(part);
    this.byteLength += part.length;
  }
  uint32(value: number): void {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    this.push(part);
  }
  uint64(value: number): void {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    this.push(part);
  }
  float32(value: number): void {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    this.push(part);
  }
  string(value: string): void {
    this.uint64(Buffer.byteLength(value));
    this.push(Buffer.from(value));
  }
  padTo(multiple: number): void {
    this.push(Buffer.alloc((multiple - (this.byteLength % multiple)) % multiple));
  }
  concat(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function writeMetadata(bytes: Bytes, entries: Record<string, MetadataValue>): void {
  for (const [key, value] of Object.entries(entries)) {
    bytes.string(key);
    if ('uint32' in value) {
      bytes.uint32(uint32Type);
      bytes.uint32(value.uint32);
    } else if ('float32' in value) {
      bytes.uint32(float32Type);
      bytes.float32(value.float32);
    } else if ('string' in value) {
      bytes.uint32(stringType);
      bytes.string(value.string);
    } else if ('strings' in value) {
      bytes.uint32(arrayType);
      bytes.uint32(stringType);
      bytes.uint64(value.strings.length);
      for (const item of value.strings) bytes.string(item);
    } else {
      bytes.uint32(arrayType);
      bytes.uint32(int32Type);
      bytes.uint64(value.int32s.length);
      for (const item of value.int32s) bytes.uint32(item);
    }
  }
}

const tensorBytes = (tensor: PlannedTensor, type: BenchType): number => {
  const count = tensor.shape.reduce((product, size) => product * size, 1);
  return tensor.kind === 'norm' ? count * 4 : (count / 32) * blockTypes[type].bytes;
};
const align = (offset: number): number => Math.ceil(offset / alignment) * alignment;

function header(name: string, shape: BenchShape, type: BenchType, tensors: readonly PlannedTensor[]): Buffer {
  const entries = metadata(name, shape);
  const bytes = new Bytes();
  bytes.uint32(0x46554747); // 'GGUF'
  bytes.uint32(3);
  bytes.uint64(tensors.length);
  bytes.uint64(Object.keys(entries).length);
  writeMetadata(bytes, entries);
  let offset = 0;
  for (const tensor of tensors) {
    bytes.string(tensor.name);
    bytes.uint32(tensor.shape.length);
    for (const size of tensor.shape.toReversed()) bytes.uint64(size);
    bytes.uint32(tensor.kind === 'norm' ? float32Id : blockTypes[type].id);
    bytes.uint64(offset);
    offset += align(tensorBytes(tensor, type));
  }
  bytes.padTo(alignment);
  return bytes.concat();
}

/** Blocks whose values have about the standard deviation 1 / sqrt(width), as trained weights do. */
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

/** Bits of a positive normal float16, rounded down. */
function float16Bits(value: number): number {
  const exponent = Math.floor(Math.log2(value));
  return ((exponent + 15) << 10) | Math.floor((value / 2 ** exponent - 1) * 1024);
}

/** xorshift32: the same file every time. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 0x1_0000_0000;
  };
}

export function writeBenchModel(name: string, type: BenchType, path: string): void {
  const shape = benchShapes[name];
  if (shape === undefined) throw new Error(`Unknown shape ${name}; known: ${Object.keys(benchShapes).join(', ')}`);
  const tensors = plan(shape);
  const random = randomNumbers(20_261_123);
  const partial = `${path}.partial`;
  const file = openSync(partial, 'w');
  try {
    writeSync(file, header(name, shape, type, tensors));
    for (const tensor of tensors) writeTensor(file, tensor, type, random);
  } finally {
    closeSync(file);
  }
  renameSync(partial, path);
}

function writeTensor(file: number, tensor: PlannedTensor, type: BenchType, random: () => number): void {
  const byteLength = tensorBytes(tensor, type);
  const width = tensor.shape.at(-1) ?? 1;
  const data =
    tensor.kind === 'norm'
      ? new Uint8Array(new Float32Array(width).fill(1).buffer)
      : randomBlocks(type, byteLength, width, random);
  const padding = new Uint8Array(align(byteLength) - byteLength);
  for (const part of [data, padding]) {
    for (let at = 0; at < part.length; ) at += writeSync(file, part, at);
  }
}

if (import.meta.main) {
  const [name = '', type = '', path = ''] = process.argv.slice(2);
  if (!(type in blockTypes) || path === '') {
    console.error(`Usage: node scripts/bench-model.ts ${Object.keys(benchShapes).join('|')} Q8_0|Q4_0 OUT.gguf`);
    process.exit(1);
  }
  writeBenchModel(name, type as BenchType, path);
}
