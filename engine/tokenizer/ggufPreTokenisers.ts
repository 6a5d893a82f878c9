/**
 * Patterns for the pre-tokenisers that `tokenizer.ggml.pre` names: GGUF files contain only the name. The patterns are
 * those of the published tokenizer.json files; the names, and the remaining patterns, are from llama.cpp's
 * src/llama-vocab.cpp.
 */
import { gpt2Pattern } from './preTokenise.ts';

export interface NamedPreTokeniser {
  /** One pattern a step; text between matches is kept. */
  readonly patterns: readonly string[];
  /** The family's tokenizer.json normalises to NFC. */
  readonly nfc?: boolean;
  /** `ignore_merges` of the family's tokenizer.json. */
  readonly wholePieces?: boolean;
  /** Texts start with the begin token unless the file says otherwise. */
  readonly addBegin?: boolean;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const rest = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const llama3Pattern = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|${rest}`;
const qwen2Pattern = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${rest}`;

const upper = '\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}';
const lower = '\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}';
const casedWords = (ending: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${ending}|[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${ending}`;
const restWithSlash = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

/** Unicode's cased letters as listed in DeepSeek-LLM's tokenizer.json. Characters that NFC would change are escaped. */
const casedLetters =
  'A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼ' +
  'ℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃';

const llama3: NamedPreTokeniser = { patterns: [llama3Pattern], wholePieces: true, addBegin: true };
const gpt2: NamedPreTokeniser = { patterns: [gpt2Pattern] };
const digitsThenGpt2: NamedPreTokeniser = { patterns: ['\\p{N}', gpt2Pattern] };
const qwen2: NamedPreTokeniser = { patterns: [qwen2Pattern], nfc: true };
const qwen2Cut: NamedPreTokeniser = { patterns: [qwen2Pattern] };
const deepSeekV3: NamedPreTokeniser = {
  patterns: [
    '\\p{N}{1,3}',
    '[一-龥぀-ゟ゠-ヿ]+',
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  ],
};
const gpt4o: NamedPreTokeniser = {
  patterns: [`${casedWords(`${contractions}?`)}|\\p{N}{1,3}|${restWithSlash}`],
  wholePieces: true,
};

const named = (pre: NamedPreTokeniser, ...names: string[]): [string, NamedPreTokeniser][] =>
  names.map((name) => [name, pre]);

/** JavaScript's patterns without flag `v` take no class from another: a look ahead does. */
const withoutHan = (pattern: string): string =>
  pattern.replaceAll(/(\[\\p\{L[ul]\}[^\]]*\])([*+])/g, '(?:(?!\\p{Script=Han})$1)$2');

export const namedPreTokenisers: ReadonlyMap<string, NamedPreTokeniser> = new Map<string, NamedPreTokeniser>([
  ['gpt-2', gpt2],
  ['gpt2', gpt2],
  ['smollm', digitsThenGpt2],
  ['starcoder', digitsThenGpt2],
  ['refact', digitsThenGpt2],
  ['codeshell', digitsThenGpt2],
  ['command-r', digitsThenGpt2],
  ['llama3', llama3],
  ['llama-v3', llama3],
  ['llama-bpe', llama3],
  ['dbrx', { patterns: [llama3Pattern] }],
  ['smaug-bpe', { patterns: [llama3Pattern] }],
  ['qwen2', qwen2],
  ['deepseek-r1-qwen', qwen2],
  ['gpt-4o', gpt4o],
  ['tekken', { patterns: [`${casedWords('')}|\\p{N}|${restWithSlash}`], wholePieces: true, addBegin: true }],
  [
    'deepseek-llm',
    {
      patterns: [
        '[\\r\\n]',
        `\\s?[${casedLetters}]+`,
        '\\s?[!-/:-~！-／：-～‘-‟　-。]+',
        '\\s+$',
        '[一-龥ࠀ-一가-퟿]+',
        '\\p{N}+',
      ],
    },
  ],
  ['deepseek-coder', { patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-퟿]+', '\\p{N}'] }],
  ['deepseek-v3', deepSeekV3],
  [
    'qwen35',
    {
      patterns: [
        `${contractions}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
      ],
    },
  ],
  ['falcon', { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', gpt2Pattern, '[0-9][0-9][0-9]'] }],
  [
    'seed-coder',
    {
      patterns: [
        `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
      ],
    },
  ],
  ['glm4', { patterns: [llama3Pattern], wholePieces: true }],
  ['chatglm-bpe', { patterns: [llama3Pattern] }],
  // tokenization_kimi.py of the model's repository: GPT-4o's words without Han characters, which are split off.
  [
    'kimi-k2',
    {
      patterns: [
        `[\\p{Script=Han}]+|${withoutHan(casedWords(`${contractions}?`))}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
      ],
    },
  ],
  ...named(llama3, 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2', 'jina-v5-nano'),
  ...named(gpt2, 'phi-2', 'mellum', 'gigachat', 'a.x-4.0', 'exaone4', 'jina-es', 'jina-de', 'jina-v2-es', 'jina-v2-de'),
  ...named(gpt2, 'jina-v1-en', 'jina-v2-code', 'roberta-bpe', 'modern-bert', 'mpt', 'olmo', 'jais'),
  ...named(gpt2, 'trillion', 'granite-docling'),
  ...named(digitsThenGpt2, 'exaone', 'minerva-7b', 'mellum2'),
  ...named(qwen2, 'megrez', 'kormo', 'f2llmv2'),
  ...named(qwen2Cut, 'stablelm2', 'hunyuan', 'solar-open', 'grok-2'),
  ...named(gpt4o, 'llama4', 'kanana2', 'minimax-m2'),
  ...named(deepSeekV3, 'hunyuan-dense', 'joyai-llm'),
  // llama.cpp's default for files that name none.
  ['default', { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Pattern, '\\p{N}+', '[0-9][0-9][0-9]'] }],
]);

const published = new Set([...namedPreTokenisers.values()].flatMap((pre) => pre.patterns));

/** Whether a tokenizer.json's pattern is one of these, with line ends written literally or escaped. */
export function isPublishedPattern(pattern: string): boolean {
  return published.has(pattern.replaceAll('\r', '\\r').replaceAll('\n', '\\n'));
}
