/** Vocabularies for tests: published ones beside the project, and small ones built here. */
import { existsSync, readFileSync } from 'node:fs';
import { GgufStrings, type GgufValue } from '../../../engine/formats/ggufMetadata.ts';
import { tokenizerFromDirectory, tokenizerFromJson } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { fixtureFile, sharedFile } from '../shared.ts';

export const publishedModels = ['SmolLM2-135M-Instruct', 'Qwen3-0.6B', 'DeepSeek-V3', 'DeepSeek-V3.1', 'gpt-oss-20b'];
export const publishedFiles = publishedModels.map((model) => `models/${model}/tokenizer.json`);

const opened = new Map<string, Promise<Tokenizer>>();

export function publishedTokenizer(model: string): Promise<Tokenizer> {
  const tokenizer =
    opened.get(model) ??
    tokenizerFromDirectory(sharedFile(`models/${model}`)).then((found) => {
      if (found === undefined) throw new Error(`${model} has no tokenizer`);
      return found;
    });
  opened.set(model, tokenizer);
  return tokenizer;
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

export function publishedTemplate(model: string): string {
  return readFileSync(sharedFile(`models/${model}/chat_template.jinja`), 'utf8');
}

/** Every published model folder with a template. */
export function modelsWithTemplate(models: readonly string[]): string[] {
  return models.filter((model) => existsSync(sharedFile(`models/${model}/chat_template.jinja`)));
}

export const texts = readJson<string[]>(fixtureFile('text/texts.json'));

/** huggingFaceTokens.json: ids of `texts`, by model. */
export interface TokenVectors {
  readonly models: Record<string, { readonly plain: number[][]; readonly parse: number[][] }>;
}

export interface TokenizerJson {
  added_tokens: { id: number; content: string; special: boolean }[];
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
}

/** A GGUF list of texts as the file stores it: each after its length in eight bytes. */
export function ggufStrings(items: readonly string[]): GgufStrings {
  const lengths = items.map((item) => Buffer.byteLength(item));
  const bytes = Buffer.alloc(lengths.reduce((sum, length) => sum + 8 + length, 0));
  const starts = new Uint32Array(items.length + 1);
  let at = 0;
  for (const [index, item] of items.entries()) {
    at = bytes.writeBigUInt64LE(BigInt(lengths[index] ?? 0), at);
    starts[index] = at;
    at += bytes.write(item, at);
  }
  starts[items.length] = at + 8;
  return new GgufStrings(bytes, starts);
}

/** What llama.cpp's converter writes for a byte-level tokenizer.json (convert_hf_to_gguf.py, `_set_vocab_gpt2`). */
export function ggufMetadata(json: TokenizerJson, pre: string): Map<string, GgufValue> {
  const ids = [...Object.values(json.model.vocab), ...json.added_tokens.map((token) => token.id)];
  const size = 1 + ids.reduce((a, b) => Math.max(a, b));
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = new Int32Array(size).fill(5);
  for (const [token, id] of Object.entries(json.model.vocab)) {
    tokens[id] = token;
    types[id] = 1;
  }
  for (const token of json.added_tokens) {
    tokens[token.id] = token.content;
    types[token.id] = token.special || /^<[|｜].*[|｜]>$/.test(token.content) ? 3 : 4;
  }
  return new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.pre', pre],
    ['tokenizer.ggml.tokens', ggufStrings(tokens)],
    ['tokenizer.ggml.token_type', types],
    [
      'tokenizer.ggml.merges',
      ggufStrings(json.model.merges.map((pair) => (Array.isArray(pair) ? pair.join(' ') : pair))),
    ],
  ]);
}

/** All 256 bytes and a few merges, in GPT-2's spelling; ids follow the order of that alphabet. */
export function smallTokenizerJson(changes: Record<string, unknown> = {}, model: Record<string, unknown> = {}) {
  const vocab: Record<string, number> = {};
  for (let byte = 0, other = 0x100; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    vocab[String.fromCharCode(printable ? byte : other++)] = byte;
  }
  const merges = ['h e', 'l l', 'he ll', 'hell o', 'Ġ w', 'o r', 'Ġw or'];
  for (const [index, merge] of merges.entries()) vocab[merge.replace(' ', '')] = 256 + index;
  const added = ['<|im_start|>', '<|im_end|>', '<think>', '</think>'].map((content, index) => ({
    id: 300 + index,
    content,
    special: content.includes('|'),
  }));
  return {
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges, ...model },
    ...changes,
  };
}

export function smallTokenizer(config: unknown = {}): Tokenizer {
  return tokenizerFromJson(smallTokenizerJson(), config);
}
