import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { characterOfByte } from '../../../engine/tokenizer/bytePairTokenizer.ts';

const golden = resolve(import.meta.dirname, '../../fixtures/goldens/llama');

const framing = [
  '<|begin|>',
  '<|end|>',
  '<|pad|>',
  '<|user|>',
  '<|assistant|>',
  '<|system|>',
  '<|fim_prefix|>',
  '<|fim_suffix|>',
  '<|fim_middle|>',
];
/** Thinks when asked to, as Qwen3 does. */
const chatTemplate = `{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% if not enable_thinking %}<think>

</think>{% endif %}{% endif %}`;

/** Byte-level BPE with as many tokens as the golden checkpoint has: framing, bytes, pairs of letters. */
function tokenizerJson(): unknown {
  const vocabulary = new Map(framing.map((token, id) => [token, id]));
  const add = (token: string): void => {
    if (!vocabulary.has(token) && vocabulary.size < 512) vocabulary.set(token, vocabulary.size);
  };
  for (let byte = 0; byte < 256; byte++) add(characterOfByte(byte));
  const merges: string[] = [];
  for (const first of 'Ġetaoinshrdlu') {
    for (const second of 'etaoinshrdlucmwfg') {
      if (vocabulary.size === 512 || vocabulary.has(first + second)) continue;
      add(first + second);
      merges.push(`${first} ${second}`);
    }
  }
  // What is left has names that no text spells.
  for (let i = 0; vocabulary.size < 512; i++) add(`<unused${i}>`);
  return {
    version: '1.0',
    added_tokens: framing.map((content, id) => ({ id, content, special: true })),
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: Object.fromEntries(vocabulary), merges },
  };
}

/**
 * The golden llama with a vocabulary and a chat template: it writes nonsense, but always the same.
 * @param layers of its first ones; absent: all.
 */
export async function makeTinyModel(layers?: number): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'hearth-tiny-'));
  await mkdir(path, { recursive: true });
  for (const file of ['config.json', 'model.safetensors']) await copyFile(join(golden, file), join(path, file));
  if (layers !== undefined) await keepLayers(path, layers);
  await writeFile(join(path, 'tokenizer.json'), JSON.stringify(tokenizerJson()));
  const config = { bos_token: '<|begin|>', eos_token: '<|end|>', chat_template: chatTemplate };
  await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify(config));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Leaves the other layers out of the files. */
async function keepLayers(path: string, layers: number): Promise<void> {
  const config = JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
  await writeFile(join(path, 'config.json'), JSON.stringify({ ...config, num_hidden_layers: layers }));
  const file = await readFile(join(path, 'model.safetensors'));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header: Record<string, { data_offsets: [number, number] }> = JSON.parse(file.toString('utf8', 8, start));
  const pieces: Buffer[] = [];
  let offset = 0;
  const kept = Object.entries(header).flatMap(([name, tensor]) => {
    const layer = /\.layers\.(\d+)\./.exec(name)?.[1];
    if (name === '__metadata__' || (layer !== undefined && Number(layer) >= layers)) return [];
    const [from, to] = tensor.data_offsets;
    pieces.push(file.subarray(start + from, start + to));
    const data_offsets = [offset, offset + to - from];
    offset += to - from;
    return [[name, { ...tensor, data_offsets }] as const];
  });
  const json = JSON.stringify(Object.fromEntries(kept));
  const length = Buffer.alloc(8);
  const padded = json.padEnd(Math.ceil(json.length / 8) * 8);
  length.writeBigUInt64LE(BigInt(padded.length));
  await writeFile(join(path, 'model.safetensors'), Buffer.concat([length, Buffer.from(padded), ...pieces]));
}
