import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
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

/** The golden llama with a vocabulary and a chat template: it writes nonsense, but always the same. */
export async function makeTinyModel(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'hearth-tiny-'));
  await mkdir(path, { recursive: true });
  for (const file of ['config.json', 'model.safetensors']) await copyFile(join(golden, file), join(path, file));
  await writeFile(join(path, 'tokenizer.json'), JSON.stringify(tokenizerJson()));
  const config = { bos_token: '<|begin|>', eos_token: '<|end|>', chat_template: chatTemplate };
  await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify(config));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
