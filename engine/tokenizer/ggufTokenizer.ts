/** Reads the tokenizer from a GGUF's metadata. */
import { invalidInput, unsupported } from '../errors.ts';
import {
  type GgufMetadata,
  type GgufValue,
  metadataBoolean,
  metadataNumber,
  metadataNumberArray,
  metadataString,
  metadataStringArray,
  optionalMetadata,
} from '../formats/ggufMetadata.ts';
import { limits } from '../limits.ts';
import { BytePairTokenizer, type BytePairVocabulary, MergeTable } from './bytePairTokenizer.ts';
import { namedPreTokenisers, regexStep } from './preTokenise.ts';
import type { FillInTheMiddle, Tokenizer } from './tokenizer.ts';
import {
  type AddedToken,
  endTokenNames,
  fillInTheMiddleNames,
  findEndIds,
  findFillInTheMiddle,
  isNeverAnswer,
  looksSpecial,
} from './tokenizer.ts';

/** llama.h `enum llama_token_type`. */
const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4 } as const;

/**
 * @returns undefined if the file contains no vocabulary.
 * @throws HearthError `unsupported` naming the vocabulary or pre-tokeniser, `invalid-input` naming the key.
 */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, GgufValue>): Tokenizer | undefined {
  const file: GgufMetadata = { metadata };
  const model = optionalMetadata(file, 'tokenizer.ggml.model', metadataString) ?? 'none';
  if (model === 'none' || model === 'no_vocab') return undefined;
  const kind = model === 'gpt2' ? byteLevelVocabulary : model === 'llama' ? sentencePieceVocabulary : undefined;
  if (kind === undefined)
    throw unsupported(`The GGUF's vocabulary "${model}" (tokenizer.ggml.model) is not supported.`);
  const tokens = readTokens(file);
  const types = optionalMetadata(file, 'tokenizer.ggml.token_type', metadataNumberArray);
  if (types !== undefined && types.length < tokens.length) {
    throw invalidInput(`GGUF key "tokenizer.ggml.token_type" has ${types.length} entries for ${tokens.length} tokens.`);
  }
  const added = readAddedTokens(tokens, types ?? []);
  const { addBegin, ...vocabulary } = kind(file, { tokens, added, types: types ?? [] });
  return new BytePairTokenizer({ ...vocabulary, ...namedTokens(file, tokens, added, addBegin) });
}

interface Tokens {
  readonly tokens: readonly string[];
  readonly added: readonly AddedToken[];
  readonly types: ArrayLike<number>;
}

type Vocabulary = Omit<
  BytePairVocabulary,
  'endIds' | 'beginId' | 'appendedId' | 'fillInTheMiddle' | 'chatTemplate' | 'templateTokens'
> & {
  readonly addBegin: boolean;
};

function readTokens(file: GgufMetadata): string[] {
  const tokens = metadataStringArray(file, 'tokenizer.ggml.tokens');
  if (tokens.length === 0 || tokens.length > limits.text.vocabularyTokens) {
    throw invalidInput(`GGUF key "tokenizer.ggml.tokens" has ${tokens.length} tokens.`);
  }
  const long = tokens.findIndex((token) => token.length > limits.text.tokenChars);
  if (long >= 0)
    throw invalidInput(`GGUF key "tokenizer.ggml.tokens": token ${long} has ${tokens[long]?.length} characters.`);
  const chars = tokens.reduce((sum, { length }) => sum + length, 0);
  if (chars > limits.text.vocabularyChars)
    throw invalidInput(`GGUF key "tokenizer.ggml.tokens": the tokens have ${chars} characters together.`);
  return tokens;
}

function readAddedTokens(tokens: readonly string[], types: ArrayLike<number>): AddedToken[] {
  const added: AddedToken[] = [];
  for (const [id, text] of tokens.entries()) {
    const type = types[id];
    const named = type !== tokenType.userDefined && isFramingName(text);
    const special = type === tokenType.control || type === tokenType.unknown || named;
    if (text === '' || !(special || type === tokenType.userDefined)) continue;
    added.push({ id, text, special: isNeverAnswer(text, special) });
  }
  if (added.length > limits.text.addedTokens) {
    throw invalidInput(`GGUF key "tokenizer.ggml.token_type" marks ${added.length} tokens as special.`);
  }
  return added;
}

/**
 * Some converters omit the type of these tokens; llama.cpp also corrects it by name. Unlike llama.cpp, this excludes
 * `</s>`, an HTML tag in Qwen's vocabulary.
 */
function isFramingName(text: string): boolean {
  return fillInTheMiddleNames.has(text) || (endTokenNames.has(text) && looksSpecial(text));
}

// ---- tokenizer.ggml.model "gpt2": byte-level pairs in order of their merge list ----

function byteLevelVocabulary(file: GgufMetadata, { tokens, added }: Tokens): Vocabulary {
  const name = optionalMetadata(file, 'tokenizer.ggml.pre', metadataString) ?? 'default';
  const pre = namedPreTokenisers.get(name);
  if (pre === undefined) throw unsupported(`The GGUF's pre-tokeniser "${name}" (tokenizer.ggml.pre) is not supported.`);
  return {
    tokens,
    added,
    ids: mergeable(tokens, added),
    spelling: 'byte-level',
    merges: readMerges(file, mergeable(tokens, [])),
    wholePieces: pre.wholePieces ?? false,
    fuseUnknown: false,
    normalise: pre.nfc ? (text) => text.normalize('NFC') : (text) => text,
    splitSteps: pre.patterns.map((pattern) => regexStep(pattern, 'both', true)),
    leadingBlank: false,
    addBegin: pre.addBegin ?? false,
  };
}

function readMerges(file: GgufMetadata, ids: ReadonlyMap<string, number>): MergeTable {
  const merges = metadataStringArray(file, 'tokenizer.ggml.merges');
  if (merges.length > limits.text.merges) {
    throw invalidInput(`GGUF key "tokenizer.ggml.merges" has ${merges.length} entries.`);
  }
  const table = new MergeTable(merges.length);
  for (const [rank, merge] of merges.entries()) {
    // A token may start with a literal space, so the separator is never the first character.
    const cut = merge.indexOf(' ', 1);
    const left = ids.get(merge.slice(0, cut));
    const right = ids.get(merge.slice(cut + 1));
    const merged = ids.get(merge.slice(0, cut) + merge.slice(cut + 1));
    if (cut < 0 || left === undefined || right === undefined || merged === undefined) {
      const shown = JSON.stringify(merge.slice(0, 80));
      throw invalidInput(`GGUF key "tokenizer.ggml.merges": entry ${rank}, ${shown}, isn't a pair of the vocabulary.`);
    }
    table.add(left, right, rank, merged);
  }
  return table;
}

// ---- tokenizer.ggml.model "llama": SentencePiece, pairs in order of the merged token's score ----

function sentencePieceVocabulary(file: GgufMetadata, { tokens, added, types }: Tokens): Vocabulary {
  const scores = metadataNumberArray(file, 'tokenizer.ggml.scores');
  if (scores.length < tokens.length) {
    throw invalidInput(`GGUF key "tokenizer.ggml.scores" has ${scores.length} entries for ${tokens.length} tokens.`);
  }
  const unknownId = optionalMetadata(file, 'tokenizer.ggml.unknown_token_id', metadataNumber) ?? 0;
  const leadingBlank = optionalMetadata(file, 'tokenizer.ggml.add_space_prefix', metadataBoolean) ?? true;
  const normal = tokens.map((token, id) => ((types[id] ?? tokenType.normal) === tokenType.normal ? token : ''));
  return {
    tokens,
    added,
    ids: mergeable(tokens, added),
    spelling: 'byte-fallback',
    merges: mergesOfScores(mergeable(normal, added), scores),
    wholePieces: false,
    unknownId,
    fuseUnknown: true,
    normalise: (text) => (leadingBlank ? ` ${text}` : text).replaceAll(' ', '▁'),
    splitSteps: [],
    leadingBlank,
    addBegin: true,
  };
}

/**
 * SentencePiece merges the pair whose concatenation is the token with the highest score, the leftmost among equals.
 * That equals a merge list with every split of every token, ranked by score. Ids suffice, because the trainer makes
 * every character a token.
 */
function mergesOfScores(ids: ReadonlyMap<string, number>, scores: ArrayLike<number>): MergeTable {
  let work = 0;
  for (const token of ids.keys()) work += token.length ** 2;
  if (work > limits.text.splitChars) throw invalidInput('GGUF key "tokenizer.ggml.tokens": too many long tokens.');
  const scoreOf = (id: number): number => scores[id] ?? 0;
  const distinct = [...new Set([...ids.values()].map(scoreOf))].sort((a, b) => b - a);
  const ranks = new Map(distinct.map((score, rank) => [score, rank]));
  const pairs: [left: number, right: number, rank: number, merged: number][] = [];
  for (const [token, id] of ids) {
    const rank = ranks.get(scoreOf(id)) ?? 0;
    for (let cut = 1; cut < token.length; cut++) {
      const left = ids.get(token.slice(0, cut));
      const right = left === undefined ? undefined : ids.get(token.slice(cut));
      if (left !== undefined && right !== undefined) pairs.push([left, right, rank, id]);
    }
  }
  const table = new MergeTable(pairs.length);
  for (const pair of pairs) table.add(...pair);
  return table;
}

function mergeable(tokens: readonly string[], added: readonly AddedToken[]): Map<string, number> {
  const ids = new Map<string, number>();
  const taken = new Set(added.map((token) => token.id));
  for (const [id, token] of tokens.entries()) if (token !== '' && !taken.has(id)) ids.set(token, id);
  return ids;
}

// ---- Tokens with a role ----

function namedTokens(file: GgufMetadata, tokens: readonly string[], added: readonly AddedToken[], addBegin: boolean) {
  const role = (name: string): number | undefined => {
    const id = optionalMetadata(file, `tokenizer.ggml.${name}_token_id`, metadataNumber);
    // Writers store 2^32 - 1 for "none".
    return id !== undefined && tokens[id] !== undefined ? id : undefined;
  };
  const framing = new Map(added.map((token) => [token.text, token.id]));
  const idOf = (token: string): number | undefined => framing.get(token);
  const [begin, end] = [role('bos'), role('eos')];
  const ends = [end, role('eot'), role('eom')].filter((id) => id !== undefined);
  const begins = optionalMetadata(file, 'tokenizer.ggml.add_bos_token', metadataBoolean) ?? addBegin;
  const appends = optionalMetadata(file, 'tokenizer.ggml.add_eos_token', metadataBoolean) ?? false;
  const middle = findFillInTheMiddle(idOf) ?? middleByRole(role);
  const template = optionalMetadata(file, 'tokenizer.chat_template', metadataString);
  return {
    endIds: findEndIds(idOf, ends),
    templateTokens: { begin: tokens[begin ?? -1] ?? '', end: tokens[end ?? -1] ?? '' },
    ...(begins && begin !== undefined ? { beginId: begin } : {}),
    ...(appends && end !== undefined ? { appendedId: end } : {}),
    ...(middle === undefined ? {} : { fillInTheMiddle: middle }),
    ...(template === undefined ? {} : { chatTemplate: template }),
  };
}

function middleByRole(role: (name: string) => number | undefined): FillInTheMiddle | undefined {
  const [prefix, suffix, middle] = [role('fim_pre'), role('fim_suf'), role('fim_mid')];
  if (prefix === undefined || suffix === undefined || middle === undefined) return undefined;
  const [fileSeparator, repositoryName, pad] = [role('fim_sep'), role('fim_rep'), role('fim_pad')];
  return {
    prefix,
    suffix,
    middle,
    order: 'prefix-suffix-middle',
    ...(fileSeparator === undefined ? {} : { fileSeparator }),
    ...(repositoryName === undefined ? {} : { repositoryName }),
    ...(pad === undefined ? {} : { pad }),
  };
}
