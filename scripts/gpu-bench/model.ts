/** Random weights in GPT-OSS-20B's dimensions: MXFP4 experts, the rest Q8_0, as in the published GGUF files. */
import {
  dummyVocabulary,
  float16Bits,
  type MetadataValue,
  randomNumbers,
  type WrittenTensor,
  writeGguf,
} from '../shared/ggufWriter.ts';

export interface Size {
  readonly layers: number;
  readonly experts: number;
  readonly vocabularySize: number;
}

/** openai/gpt-oss-20b, config.json. */
export const published: Size = { layers: 24, experts: 32, vocabularySize: 201_088 };
const [hidden, width, heads, kvHeads, headDim] = [2880, 2880, 64, 8, 64];
const contextTokens = 131_072;

/** ggml type number, and bytes per block of 32 values. */
const types = { F32: { id: 0, bytes: 128 }, Q8_0: { id: 8, bytes: 34 }, MXFP4: { id: 39, bytes: 17 } } as const;
type Type = keyof typeof types;

function metadata({ layers, experts, vocabularySize }: Size): Record<string, MetadataValue> {
  const own = (entries: Record<string, MetadataValue>) =>
    Object.fromEntries(Object.entries(entries).map(([key, value]) => [`gpt-oss.${key}`, value]));
  return {
    'general.architecture': { string: 'gpt-oss' },
    'general.name': { string: `GPT-OSS-20B's dimensions, ${layers} layers, random weights` },
    ...own({
      block_count: { uint32: layers },
      context_length: { uint32: contextTokens },
      embedding_length: { uint32: hidden },
      feed_forward_length: { uint32: width },
      expert_feed_forward_length: { uint32: width },
      expert_count: { uint32: experts },
      expert_used_count: { uint32: 4 },
      'attention.head_count': { uint32: heads },
      'attention.head_count_kv': { uint32: kvHeads },
      'attention.key_length': { uint32: headDim },
      'attention.value_length': { uint32: headDim },
      'attention.sliding_window': { uint32: 128 },
      'attention.layer_norm_rms_epsilon': { float32: 1e-5 },
      'rope.freq_base': { float32: 150_000 },
      'rope.scaling.type': { string: 'yarn' },
      'rope.scaling.factor': { float32: 32 },
      'rope.scaling.original_context_length': { uint32: 4096 },
    }),
    ...dummyVocabulary(vocabularySize, 'gpt-4o'),
  };
}

/** Names of GGUF's gpt-oss architecture (llama.cpp, gguf-py, `constants.py`). */
function tensors({ layers, experts, vocabularySize }: Size, random: () => number): WrittenTensor[] {
  const tensor = (type: Type, name: string, ...shape: readonly number[]) => made(type, name, shape, random);
  const layer = (index: number): WrittenTensor[] => {
    const of = (name: string) => `blk.${index}.${name}`;
    const linear = (name: string, rows: number, columns: number) => [
      tensor('Q8_0', of(`${name}.weight`), rows, columns),
      tensor('F32', of(`${name}.bias`), rows),
    ];
    const expert = (name: string) => [
      tensor('MXFP4', of(`${name}.weight`), experts, width, hidden),
      tensor('F32', of(`${name}.bias`), experts, width),
    ];
    return [
      tensor('F32', of('attn_norm.weight'), hidden),
      ...linear('attn_q', heads * headDim, hidden),
      ...linear('attn_k', kvHeads * headDim, hidden),
      ...linear('attn_v', kvHeads * headDim, hidden),
      ...linear('attn_output', hidden, heads * headDim),
      tensor('F32', of('attn_sinks.weight'), heads),
      tensor('F32', of('post_attention_norm.weight'), hidden),
      tensor('F32', of('ffn_gate_inp.weight'), experts, hidden),
      tensor('F32', of('ffn_gate_inp.bias'), experts),
      ...['ffn_gate_exps', 'ffn_up_exps', 'ffn_down_exps'].flatMap(expert),
    ];
  };
  return [
    tensor('Q8_0', 'token_embd.weight', vocabularySize, hidden),
    ...Array.from({ length: layers }, (_, index) => layer(index)).flat(),
    tensor('F32', 'output_norm.weight', hidden),
    tensor('Q8_0', 'output.weight', vocabularySize, hidden),
  ];
}

function made(type: Type, name: string, shape: readonly number[], random: () => number): WrittenTensor {
  const elements = shape.reduce((product, size) => product * size, 1);
  const byteLength = (elements / 32) * types[type].bytes;
  const columns = shape.at(-1) ?? 1;
  return {
    name,
    shape,
    typeId: types[type].id,
    byteLength,
    pieces: () => values(type, name, byteLength, columns, random),
  };
}

/** Realistic scales: finite activations, flat logits. */
function* values(type: Type, name: string, byteLength: number, columns: number, random: () => number) {
  if (type === 'F32') {
    const size = name.endsWith('inp.weight') ? 2 / Math.sqrt(columns) : 0.02;
    const norm = name.endsWith('norm.weight');
    yield new Uint8Array(
      Float32Array.from({ length: byteLength / 4 }, () => (norm ? 1 : size * (random() - 0.5))).buffer,
    );
    return;
  }
  const blockBytes = types[type].bytes;
  // Repeats a few thousand random rows at different offsets, because generating all of them would be slow.
  const pool = randomBlocks(type, blockBytes * 2 ** 18, columns, random);
  for (let left = byteLength; left > 0; ) {
    const start = Math.floor(random() * 2 ** 17) * blockBytes;
    const piece = pool.subarray(start, Math.min(pool.length, start + left));
    yield piece;
    left -= piece.length;
  }
}

function randomBlocks(type: 'Q8_0' | 'MXFP4', byteLength: number, columns: number, random: () => number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 4 <= byteLength; at += 4) view.setUint32(at, random() * 2 ** 32, true);
  // e2m1 codes have a standard deviation of about 3, 256 integers of 74. The scale makes it 1 / √columns.
  const scaleBits = float16Bits(1 / 74 / Math.sqrt(columns));
  const exponent = 127 + Math.round(Math.log2(1 / 3 / Math.sqrt(columns)));
  for (let block = 0; block < byteLength; block += types[type].bytes) {
    if (type === 'Q8_0') view.setUint16(block, scaleBits, true);
    else view.setUint8(block, exponent);
  }
  return bytes;
}

export function writeModel(path: string, size: Size): void {
  writeGguf(path, metadata(size), tensors(size, randomNumbers(20_261_125)));
}
