/** Converts text to ids and back. Built from a Hugging Face tokenizer.json or from a GGUF's metadata. */

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Ids that end an assistant turn or the text. */
  readonly endIds: ReadonlySet<number>;
  /** Prepended to raw prompts, if the model expects it. */
  readonly beginId?: number;
  /** Appended to raw texts, if the model expects it: embedding models pool this token. */
  readonly appendedId?: number;
  /** Fill-in-the-middle ids, if the vocabulary has them. The tokenizer decides, never the model's name. */
  readonly fillInTheMiddle?: FillInTheMiddle;
  /** Jinja chat template, if the checkpoint has one. */
  readonly chatTemplate?: string;
  /** Values for templates (`bos_token`, `eos_token`); empty if absent. */
  readonly templateTokens: { readonly begin: string; readonly end: string };
  /** Ids of framing tokens (`<|im_start|>`, `<think>`, …), which `special: 'parse'` recognises. */
  readonly framing: ReadonlyMap<string, number>;
  /**
   * Ids of `text`. User and file text is encoded with `special: 'plain'`, so that `<|im_end|>` in it stays text; only
   * Hearth's own framing uses `special: 'parse'`. Adds no begin or end token.
   */
  encode(text: string, options: { readonly special: 'plain' | 'parse' }): number[];
  /** Splits `text` at framing tokens: their ids, and the text in between. */
  split(text: string): PromptPart[];
  /** Ids of parts: strings are plain text, numbers are ids. */
  encodeParts(parts: readonly PromptPart[]): number[];
  /** Like `encodeParts`, with pauses between pieces of text. */
  encodeSliced(parts: readonly PromptPart[]): Sliced<number[]>;
  /** Bytes of one token. A special token gives the bytes of its name, an unknown id none. */
  bytesOf(id: number): Uint8Array;
  /** Whether the token is framing and never part of an answer. `<think>` and `<tool_call>` are part of answers. */
  isSpecial(id: number): boolean;
  /** Id of a token in the vocabulary's spelling (`Ġthe`), or of a framing token. */
  idOf(token: string): number | undefined;
  /**
   * Text of ids, without special tokens. Invalid UTF-8 becomes U+FFFD. Removes the leading space that SentencePiece
   * vocabularies add, so `ids` should start where a text does.
   */
  decode(ids: readonly number[]): string;
}

/** Number of ids that are compared. */
const sampledIds = 1000;
/** Share of them that must mean the same: vocabularies of a family differ in some added tokens and in padding. */
const sharedShare = 0.99;

/**
 * Number of ids, from 0, that mean the same in both vocabularies, with few exceptions; undefined if they don't match.
 * Tests a sample, so use it only where a mistake costs only time.
 */
export function sharedVocabularySize(a: Tokenizer, b: Tokenizer): number | undefined {
  const size = Math.min(a.vocabularySize, b.vocabularySize);
  const count = Math.min(size, sampledIds);
  let shared = 0;
  for (let i = 0; i < count; i++) {
    const id = Math.floor((i * size) / count);
    if (Buffer.compare(a.bytesOf(id), b.bytesOf(id)) === 0) shared++;
  }
  return shared >= sharedShare * count ? size : undefined;
}

export type PromptPart = string | number;

export interface FillInTheMiddle {
  readonly prefix: number;
  readonly suffix: number;
  /** Absent if the prompt ends with the prefix (Codestral). */
  readonly middle?: number;
  /** Order of prefix and suffix in the prompt. */
  readonly order: 'prefix-suffix-middle' | 'suffix-prefix-middle';
  readonly fileSeparator?: number;
  readonly repositoryName?: number;
  readonly pad?: number;
  /** The open file's name follows `prefix` instead of `fileSeparator`, and the repository's name ends without a line break (StarCoder2). */
  readonly namesFileInPrefix?: true;
}

/** Work that can pause: it yields wherever other work may run. */
export type Sliced<Result> = Generator<void, Result, void>;

/** For short work, and for callers that cannot wait. */
export function runWhole<Result>(work: Sliced<Result>): Result {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

// Decodes text incrementally: a token may be a part of a character.

/** Decodes UTF-8 as the WHATWG Encoding Standard does. Holds incomplete characters back. */
export class Utf8Stream {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** The text completed by `bytes`. Invalid UTF-8 becomes U+FFFD. */
  push(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** Flushes an incomplete character as U+FFFD. The stream can be reused. */
  end(): string {
    return this.#decoder.decode();
  }
}

/** Decodes token ids. A special token gives no text and ends an incomplete character. */
export class TokenTextStream {
  readonly #tokenizer: Tokenizer;
  readonly #utf8 = new Utf8Stream();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  push(id: number): string {
    return this.#tokenizer.isSpecial(id) ? this.#utf8.end() : this.#utf8.push(this.#tokenizer.bytesOf(id));
  }

  end(): string {
    return this.#utf8.end();
  }
}

// Added tokens, which are found in text before merging: turn markers, tool markers, end of text.

export interface AddedToken {
  readonly id: number;
  readonly text: string;
  /** Never part of the model's answer: `<|im_end|>`, but not `<think>`. */
  readonly special: boolean;
  /** Whitespace before or after the token belongs to it. */
  readonly stripBefore?: boolean;
  readonly stripAfter?: boolean;
}

/**
 * Whether an added token is plain text: DeepSeek-Coder adds `ü`, GPT-NeoX runs of spaces. They can't fake framing, so
 * they are also recognised in user text, as in training.
 */
export function isPlainText(token: AddedToken): boolean {
  return !token.special && (/^\s+$/u.test(token.text) || [...token.text].length === 1);
}

/** Mistral's marks of thinking and calls. They are flagged special, but parsing the answer needs them. */
const answerMarks: ReadonlySet<string> = new Set(['[THINK]', '[/THINK]', '[TOOL_CALLS]', '[CALL_ID]', '[ARGS]']);

/** Whether an added token is never part of an answer; `flagged` by its file. */
export const isNeverAnswer = (text: string, flagged: boolean): boolean =>
  (flagged || looksSpecial(text)) && !answerMarks.has(text);

/**
 * `<|…|>` and `<｜…｜>` are framing regardless of their flag: Qwen3 lists `<|fim_pad|>` and DeepSeek `<｜User｜>` as not
 * special. llama.cpp's converter corrects this too.
 */
export function looksSpecial(text: string): boolean {
  return /^<[|｜].*[|｜]>$/su.test(text);
}

/** Finds added tokens in text: leftmost first, the longest if several start at one place, then the first listed. */
export class AddedTokenFinder {
  /** Sorted by text, with the index of the longest other token that each one starts with; -1 if none. */
  readonly #tokens: readonly AddedToken[];
  readonly #prefixes: Int32Array;
  readonly #longest: number;
  /** Their first two characters: 818 tokens of DeepSeek start with `<`, which is frequent in source files. */
  readonly #beginnings: ReadonlySet<string>;
  readonly #starts: RegExp | undefined;

  constructor(tokens: Iterable<AddedToken>) {
    const byText = new Map<string, AddedToken>();
    for (const token of tokens) if (!byText.has(token.text)) byText.set(token.text, token);
    this.#tokens = [...byText.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
    this.#prefixes = new Int32Array(this.#tokens.length);
    for (const [place, { text }] of this.#tokens.entries()) {
      let prefix = place - 1;
      while (prefix >= 0 && !text.startsWith(this.#tokens[prefix]?.text ?? '')) prefix = this.#prefixes[prefix] ?? -1;
      this.#prefixes[place] = prefix;
    }
    this.#longest = this.#tokens.reduce((longest, { text }) => Math.max(longest, text.length), 0);
    this.#beginnings = new Set(this.#tokens.map(({ text }) => text.slice(0, 2)));
    const first = new Set(this.#tokens.map(({ text }) => text.charAt(0)));
    if (first.size > 0) this.#starts = new RegExp(`[${[...first].map(escapeUnit).join('')}]`, 'g');
  }

  /** Ids of the tokens in `text`, with the text in between. */
  split(text: string): PromptPart[] {
    const parts: PromptPart[] = [];
    let end = 0;
    for (let found = this.#next(text, 0); found !== undefined; found = this.#next(text, end)) {
      const before = text.slice(end, found.at);
      end = found.at + found.token.text.length;
      const kept = found.token.stripBefore ? before.trimEnd() : before;
      if (kept !== '') parts.push(kept);
      parts.push(found.token.id);
      if (found.token.stripAfter) end = text.length - text.slice(end).trimStart().length;
    }
    if (end < text.length) parts.push(text.slice(end));
    return parts;
  }

  #next(text: string, from: number): { at: number; token: AddedToken } | undefined {
    const starts = this.#starts;
    if (starts === undefined) return undefined;
    starts.lastIndex = from;
    for (let match = starts.exec(text); match !== null; match = starts.exec(text)) {
      const at = match.index;
      const token = this.#at(text, at);
      if (token !== undefined) return { at, token };
    }
    return undefined;
  }

  /**
   * The token at `at`: the text there starts with the last token that sorts before it, or with a prefix of that token.
   */
  #at(text: string, at: number): AddedToken | undefined {
    if (!this.#beginnings.has(text.slice(at, at + 2)) && !this.#beginnings.has(text.charAt(at))) return undefined;
    const rest = text.slice(at, at + this.#longest);
    let [below, above] = [-1, this.#tokens.length];
    while (above - below > 1) {
      const middle = (below + above) >> 1;
      if ((this.#tokens[middle]?.text ?? '') <= rest) below = middle;
      else above = middle;
    }
    while (below >= 0 && !rest.startsWith(this.#tokens[below]?.text ?? '')) below = this.#prefixes[below] ?? -1;
    return this.#tokens[below];
  }
}

function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

// Tokens that end a turn or the text, by their published names.

/** From llama.cpp's list of end-of-generation tokens: the supported families and their relatives. */
const names: readonly string[] = [
  '<|im_end|>', // ChatML: Qwen, SmolLM
  '<|endoftext|>',
  '<|eot_id|>', // Llama 3
  '<|eom_id|>',
  '<|end_of_text|>',
  '<｜end▁of▁sentence｜>', // DeepSeek
  '<|EOT|>', // DeepSeek-Coder
  '<|return|>', // GPT-OSS: the answer is complete
  '<|call|>', // GPT-OSS: a tool is called
  '<|end|>', // Phi
  '<end_of_turn>', // Gemma
  '</s>',
  '▁<EOT>', // CodeLlama
  // A fill-in-the-middle model may continue with the next file.
  '<|fim_pad|>',
  '<|file_sep|>',
  '<|repo_name|>',
];

/** `idOf` must know framing tokens only; `published` are end ids that the checkpoint declares. */
export function findEndIds(idOf: (token: string) => number | undefined, published: readonly number[]): Set<number> {
  const ids = new Set(published);
  for (const name of names) {
    const id = idOf(name);
    if (id !== undefined) ids.add(id);
  }
  // StarCoder2 may do the same. SmolLM2 has StarCoder2's tokens for files and repositories, but no fill-in-the-middle.
  const { pad, fileSeparator, repositoryName } = findFillInTheMiddle(idOf) ?? {};
  for (const id of [pad, fileSeparator, repositoryName]) if (id !== undefined) ids.add(id);
  // In harmony, `<|end|>` ends a message but not the turn (openai/harmony, docs/format.md).
  const messageEnd = idOf('<|end|>');
  if (messageEnd !== undefined && idOf('<|return|>') !== undefined) ids.delete(messageEnd);
  return ids;
}

export const endTokenNames: ReadonlySet<string> = new Set(names);

// Fill-in-the-middle: finds a vocabulary's FIM tokens and builds prompts from them.

interface Markers {
  readonly prefix: string;
  readonly suffix: string;
  readonly middle?: string;
  readonly order: FillInTheMiddle['order'];
  readonly fileSeparator?: string;
  readonly repositoryNames?: readonly string[];
  readonly pad?: string;
  readonly namesFileInPrefix?: true;
}

const published: readonly Markers[] = [
  // Qwen2.5-Coder and Qwen3 (README of QwenLM/Qwen2.5-Coder).
  {
    prefix: '<|fim_prefix|>',
    suffix: '<|fim_suffix|>',
    middle: '<|fim_middle|>',
    order: 'prefix-suffix-middle',
    fileSeparator: '<|file_sep|>',
    repositoryNames: ['<|repo_name|>'],
    pad: '<|fim_pad|>',
  },
  // DeepSeek: `hole` precedes the suffix, `end` precedes the completion.
  {
    prefix: '<｜fim▁begin｜>',
    suffix: '<｜fim▁hole｜>',
    middle: '<｜fim▁end｜>',
    order: 'prefix-suffix-middle',
  },
  // StarCoder, Granite, StarCoder2, whose paper (section 5.1) has `<repo_name>reponame<file_sep>filepath0\ncode0<file_sep><fim_prefix>filepath1\n…`.
  // SmolLM2 has its repository tokens but not these.
  {
    prefix: '<fim_prefix>',
    suffix: '<fim_suffix>',
    middle: '<fim_middle>',
    order: 'prefix-suffix-middle',
    fileSeparator: '<file_sep>',
    repositoryNames: ['<repo_name>', '<reponame>'],
    pad: '<fim_pad>',
    namesFileInPrefix: true,
  },
  // Seed-Coder (README of ByteDance-Seed/Seed-Coder).
  {
    prefix: '<[fim-prefix]>',
    suffix: '<[fim-suffix]>',
    middle: '<[fim-middle]>',
    order: 'suffix-prefix-middle',
  },
  // CodeLlama, as SentencePiece spells it.
  { prefix: '▁<PRE>', suffix: '▁<SUF>', middle: '▁<MID>', order: 'prefix-suffix-middle' },
  // Codestral: the suffix comes first and the completion continues the prefix (mistral-common, `encode_fim`).
  { prefix: '[PREFIX]', suffix: '[SUFFIX]', order: 'suffix-prefix-middle' },
];

/** Names that can't be ordinary words: a token with such a name is a FIM token. */
export const fillInTheMiddleNames: ReadonlySet<string> = new Set(
  published
    .flatMap((markers) => [markers.prefix, markers.suffix, markers.middle, markers.pad])
    .filter((name) => name?.includes('fim'))
    .filter((name) => name !== undefined),
);

/** The first published set that the vocabulary contains completely. `idOf` must know framing tokens only. */
export function findFillInTheMiddle(idOf: (token: string) => number | undefined): FillInTheMiddle | undefined {
  const optional = (name: string | undefined): number | undefined => (name === undefined ? undefined : idOf(name));
  for (const markers of published) {
    const prefix = idOf(markers.prefix);
    const suffix = idOf(markers.suffix);
    const middle = optional(markers.middle);
    if (prefix === undefined || suffix === undefined) continue;
    if (markers.middle !== undefined && middle === undefined) continue;
    const fileSeparator = optional(markers.fileSeparator);
    const repositoryName = markers.repositoryNames?.map(idOf).find((id) => id !== undefined);
    const pad = optional(markers.pad);
    return {
      prefix,
      suffix,
      order: markers.order,
      ...(middle === undefined ? {} : { middle }),
      ...(fileSeparator === undefined ? {} : { fileSeparator }),
      ...(repositoryName === undefined ? {} : { repositoryName }),
      ...(pad === undefined ? {} : { pad }),
      ...(markers.namesFileInPrefix && { namesFileInPrefix: true }),
    };
  }
  return undefined;
}

/** The prompt that the model continues with the missing middle. */
export function fillInTheMiddlePrompt(
  tokens: FillInTheMiddle,
  prefixIds: readonly number[],
  suffixIds: readonly number[],
): number[] {
  const before = [tokens.prefix, ...prefixIds];
  const after = [tokens.suffix, ...suffixIds];
  const parts = tokens.order === 'prefix-suffix-middle' ? [...before, ...after] : [...after, ...before];
  return tokens.middle === undefined ? parts : [...parts, tokens.middle];
}
