/**
 * Pre-tokenisation: splits text into pieces within which byte pairs merge. Each step splits the pieces of the step
 * before. `@huggingface/tokenizers` translates Oniguruma patterns (used in published files) to JavaScript. Its own
 * splitting isn't used, because its `Digits` and `ByteLevel` know only ASCII digits and JavaScript's white space
 * instead of Unicode's.
 */
import { createContext, Script } from 'node:vm';
import { SplitPreTokenizer } from '@huggingface/tokenizers';
import { invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';

/** GPT-2's pattern, which `ByteLevel` implies (openai/gpt-2, encoder.py). */
export const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`;

export interface SplitStep {
  readonly pattern: RegExp;
  /** Whether matches, the text between them, or both become pieces. */
  readonly keep: 'both' | 'between' | 'matches';
  /** Runs in linear time. Other patterns run against a deadline. */
  readonly tame: boolean;
}

/** @param tame the pattern is Hearth's own or a published one. */
export function regexStep(source: string, keep: SplitStep['keep'] = 'both', tame = false): SplitStep {
  if (!tame) requireNoNestedRepetition(source);
  let pattern: RegExp | null;
  try {
    pattern = new SplitPreTokenizer({ type: 'Split', pattern: { Regex: source }, behavior: 'Isolated' }).pattern;
  } catch (error) {
    throw unsupported(`The tokenizer's pattern ${quote(source)} cannot be used: ${(error as Error).message}`);
  }
  if (pattern === null) throw invalidInput(`The tokenizer's pattern ${quote(source)} is empty.`);
  return { pattern, keep, tame };
}

export function textStep(text: string, keep: SplitStep['keep'] = 'both'): SplitStep {
  if (text === '') throw invalidInput('The tokenizer splits at an empty string.');
  return { pattern: new RegExp(text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&'), 'gu'), keep, tame: true };
}

/**
 * Splits `text` into pieces; yields a few thousand at a time for long texts.
 * @throws HearthError `invalid-input` if a pattern takes too long on `text`, or a piece is too long for it.
 */
export function* preTokenise(text: string, steps: readonly SplitStep[]): Generator<readonly string[], void, void> {
  try {
    if (!steps.every((step) => step.tame)) {
      yield withDeadline(limits.text.patternMs, () => cutBySteps(text === '' ? [] : [text], steps));
      return;
    }
    const [first, ...rest] = steps;
    if (first === undefined || text.length <= charsAtOnce) yield cutBySteps(text === '' ? [] : [text], steps);
    else for (const pieces of splitLazily(text, first)) yield cutBySteps(pieces, rest);
  } catch (error) {
    if (error instanceof DeadlineError) {
      throw invalidInput(`A pattern of the tokenizer took more than ${limits.text.patternMs} ms and was stopped.`);
    }
    // V8's regex engine has its own stack, which overflows on millions of consecutive characters of one class.
    if (error instanceof RangeError)
      throw invalidInput('The text has a run of characters that is too long to tokenise.');
    throw error;
  }
}

/** Shorter texts are split at once, which is twice as fast. */
const charsAtOnce = 65_536;
const piecesAtOnce = 4096;

function* splitLazily(text: string, { pattern, keep }: SplitStep): Generator<readonly string[], void, void> {
  let pieces: string[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (keep !== 'matches' && match.index > end) pieces.push(text.slice(end, match.index));
    if (keep !== 'between' && match[0] !== '') pieces.push(match[0]);
    end = match.index + match[0].length;
    if (pieces.length < piecesAtOnce) continue;
    yield pieces;
    pieces = [];
  }
  if (keep !== 'matches' && end < text.length) pieces.push(text.slice(end));
  yield pieces;
}

function cutBySteps(given: readonly string[], steps: readonly SplitStep[]): readonly string[] {
  let pieces = given;
  for (const step of steps) {
    // Most pieces of later steps are short and stay whole; nothing is allocated for them.
    const cut: string[] = [];
    for (const piece of pieces) splitInto(cut, piece, step);
    pieces = cut;
  }
  return pieces;
}

function splitInto(pieces: string[], text: string, step: SplitStep): void {
  if (step.keep === 'both') {
    const matches = text.match(step.pattern);
    if (matches === null) {
      pieces.push(text);
      return;
    }
    // Published patterns cover the whole text, and `match` is twice as fast as `matchAll`.
    let covered = 0;
    for (const match of matches) covered += match.length;
    if (covered === text.length) {
      for (const match of matches) if (match !== '') pieces.push(match);
      return;
    }
  }
  for (const cut of splitLazily(text, step)) for (const piece of cut) pieces.push(piece);
}

/**
 * Rejects patterns that can take exponential time: unbounded repetitions inside a repetition. Patterns come with
 * checkpoints, and no published one of a supported family needs this.
 */
function requireNoNestedRepetition(source: string): void {
  if (source.length > limits.text.patternChars) {
    throw invalidInput(
      `A tokenizer pattern has ${source.length} characters; at most ${limits.text.patternChars} are allowed.`,
    );
  }
  const repeats: boolean[] = [false];
  for (const { 0: token } of source.matchAll(
    /\\.|\[(?:\\.|[^\]\\])*\]|\((?:\?[^:)a-z]*:?)?|\)[+*{]?|[+*]|\{\d*,\}|./gsu,
  )) {
    if (token.startsWith('(')) repeats.push(false);
    else if (token.startsWith(')')) {
      const inner = repeats.pop() ?? false;
      const outer = token.length > 1;
      if (inner && outer) throw invalidInput(`The tokenizer's pattern ${quote(source)} nests repetitions.`);
      repeats[repeats.length - 1] = (repeats.at(-1) ?? false) || inner || outer;
    } else if (/^(?:[+*]|\{\d*,\})$/.test(token)) repeats[repeats.length - 1] = true;
  }
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text);
}

// Stops synchronous work that takes too long.

const context = createContext({ work: undefined });
const script = new Script('work()');

/** Thrown by `withDeadline`, and inside `work`. */
export class DeadlineError extends Error {}

/**
 * Runs `work` and stops it after `milliseconds`. V8 checks for termination in every loop and call, so only a single
 * native operation can overrun. `work` must not leave shared state inconsistent.
 */
export function withDeadline<T>(milliseconds: number, work: () => T): T {
  let result: { value: T } | undefined;
  const outer: unknown = context['work'];
  context['work'] = () => {
    result = { value: work() };
  };
  try {
    script.runInContext(context, { timeout: milliseconds });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    throw new DeadlineError(`stopped after ${milliseconds} ms`);
  } finally {
    context['work'] = outer;
  }
  if (result === undefined) throw new Error('The work did not run.');
  return result.value;
}

// Patterns for the pre-tokenisers that `tokenizer.ggml.pre` names: GGUF files contain only the name. The patterns are
// those of the published tokenizer.json files; the names, and the remaining patterns, are from llama.cpp's
// src/llama-vocab.cpp.

interface NamedPreTokeniser {
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

/** JavaScript patterns without flag `v` can't subtract one class from another, so a look-ahead does it. */
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
