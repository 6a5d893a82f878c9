/** A model that every engine loads: a llama of two layers with random weights, which writes printable ASCII and never ends. */
import {
  byteAlphabet,
  type MetadataValue,
  randomNumbers,
  type WrittenTensor,
  writeGguf,
} from '../../../../scripts/shared/ggufWriter.ts';

const framing = [
  '<|begin|>',
  '<|end|>',
  '<|user|>',
  '<|assistant|>',
  '<|system|>',
  '<|fim_prefix|>',
  '<|fim_suffix|>',
  '<|fim_middle|>',
];
const alphabet = byteAlphabet();
/** llama.cpp wants a merge; its token is never chosen. */
const tokens = [...framing, ...alphabet, 'ab'];
const template =
  '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}';

const [hidden, intermediate, heads, layers, contextTokens] = [64, 128, 4, 2, 4096];
const float32 = 0;

const metadata = (fillsIn: boolean): Record<string, MetadataValue> => ({
  'general.architecture': { string: 'llama' },
  'general.name': { string: 'tiny' },
  'llama.block_count': { uint32: layers },
  'llama.context_length': { uint32: contextTokens },
  'llama.embedding_length': { uint32: hidden },
  'llama.feed_forward_length': { uint32: intermediate },
  'llama.attention.head_count': { uint32: heads },
  'llama.attention.head_count_kv': { uint32: heads },
  'llama.attention.layer_norm_rms_epsilon': { float32: 1e-5 },
  'llama.rope.dimension_count': { uint32: hidden / heads },
  'llama.rope.freq_base': { float32: 10_000 },
  'tokenizer.ggml.model': { string: 'gpt2' },
  'tokenizer.ggml.pre': { string: 'gpt-2' },
  'tokenizer.ggml.tokens': { strings: fillsIn ? tokens : tokens.map((token) => token.replace('fim', 'mid')) },
  'tokenizer.ggml.token_type': { int32s: tokens.map((_, id) => (id < framing.length ? 3 : 1)) },
  'tokenizer.ggml.merges': { strings: ['a b'] },
  'tokenizer.ggml.bos_token_id': { uint32: 0 },
  'tokenizer.ggml.eos_token_id': { uint32: 1 },
  ...(fillsIn && {
    'tokenizer.ggml.fim_pre_token_id': { uint32: 5 },
    'tokenizer.ggml.fim_suf_token_id': { uint32: 6 },
    'tokenizer.ggml.fim_mid_token_id': { uint32: 7 },
  }),
  'tokenizer.chat_template': { string: template },
});

/** Rows of tokens that are not printable are zero, so that others are likelier. */
const printable = (id: number): boolean => {
  const byte = id - framing.length;
  return byte > 32 && byte < 127;
};

function tensor(name: string, shape: readonly number[], valueAt: (index: number) => number): WrittenTensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = () => [new Uint8Array(Float32Array.from({ length: count }, (_, index) => valueAt(index)).buffer)];
  return { name, shape, typeId: float32, byteLength: count * 4, pieces: values };
}

export function writeTinyGguf(path: string, { fillsIn }: { readonly fillsIn: boolean }): void {
  const random = randomNumbers(7);
  const near = (width: number) => () => ((random() - 0.5) * 4) / Math.sqrt(width);
  const embedding = (index: number) => (printable(Math.floor(index / hidden)) ? near(1)() : 0);
  const ones = () => 1;
  const tensors = [
    tensor('token_embd.weight', [tokens.length, hidden], embedding),
    tensor('output.weight', [tokens.length, hidden], embedding),
    tensor('output_norm.weight', [hidden], ones),
  ];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, shape: readonly number[], value: () => number) =>
      tensors.push(tensor(`blk.${layer}.${name}.weight`, shape, value));
    for (const name of ['attn_norm', 'ffn_norm']) add(name, [hidden], ones);
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) add(name, [hidden, hidden], near(hidden));
    for (const name of ['ffn_gate', 'ffn_up']) add(name, [intermediate, hidden], near(hidden));
    add('ffn_down', [hidden, intermediate], near(intermediate));
  }
  writeGguf(path, metadata(fillsIn), tensors);
}
