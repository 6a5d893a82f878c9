/** Reads the tokenizer of a Hugging Face checkpoint: tokenizer.json and the files beside it. */

import { readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { firstIssue, HearthError, invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';
import { BytePairTokenizer, MergeTable } from './bytePairTokenizer.ts';
import { readNormaliser, readPreTokeniser } from './huggingFaceSteps.ts';
import type { Tokenizer } from './tokenizer.ts';
import { type AddedToken, findEndIds, findFillInTheMiddle, isNeverAnswer } from './tokenizer.ts';

const maxId = limits.text.vocabularyTokens - 1;
const tokenText = z.string().min(1).max(limits.text.tokenChars);
const addedToken = z.object({
  id: z.number().int().min(0).max(maxId),
  content: tokenText,
  special: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
});

const tokenizerFile = z.object({
  added_tokens: z.array(addedToken).max(limits.text.addedTokens).nullish(),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  decoder: z.unknown().optional(),
  model: z.object({
    type: z.string().default('BPE'),
    vocab: z.unknown().optional(),
    merges: z.unknown().optional(),
    unk_token: z.string().nullish(),
    fuse_unk: z.boolean().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
  }),
});
type TokenizerFile = z.infer<typeof tokenizerFile>;

/** A token's name, as written by old or new files. */
const namedToken = z.union([z.string(), z.object({ content: z.string() }).transform((token) => token.content)]);
const namedTemplate = z.object({ name: z.string(), template: z.string() });
const tokenizerConfig = z.object({
  bos_token: namedToken.nullish(),
  eos_token: namedToken.nullish(),
  add_bos_token: z.boolean().nullish(),
  tokenizer_class: z.string().nullish(),
  chat_template: z.union([z.string(), z.array(namedTemplate)]).nullish(),
});
type TokenizerConfig = z.infer<typeof tokenizerConfig>;

const tokenId = z.number().int().min(0).max(maxId);
const generationConfig = z.object({ eos_token_id: z.union([tokenId, z.array(tokenId).max(1024)]).nullish() });

/** @returns undefined if `directory` has no tokenizer.json. */
export async function tokenizerFromDirectory(directory: string): Promise<Tokenizer | undefined> {
  const { tokenizerJsonBytes, tokenizerConfigBytes } = limits.text;
  const [json, config, generation, template] = await Promise.all([
    readOptionalJson(join(directory, 'tokenizer.json'), tokenizerJsonBytes),
    readOptionalJson(join(directory, 'tokenizer_config.json'), tokenizerConfigBytes),
    readOptionalJson(join(directory, 'generation_config.json'), tokenizerConfigBytes),
    readOptionalText(join(directory, 'chat_template.jinja'), tokenizerConfigBytes),
  ]);
  return json === undefined ? undefined : tokenizerFromJson(json, config, generation, template);
}

/**
 * @param template chat_template.jinja, which overrides the one in tokenizer_config.json.
 * @throws HearthError `invalid-input` naming the field, `unsupported` for models other than BPE.
 */
export function tokenizerFromJson(
  tokenizerJson: unknown,
  config: unknown = {},
  generation: unknown = {},
  template?: string,
): Tokenizer {
  const file = parse(tokenizerFile, tokenizerJson, 'tokenizer.json');
  const settings = parse(tokenizerConfig, config ?? {}, 'tokenizer_config.json');
  const ends = parse(generationConfig, generation ?? {}, 'generation_config.json').eos_token_id ?? [];
  const vocabulary = readVocabulary(file);
  const framing = new Map(vocabulary.added.map((token) => [token.text, token.id]));
  const idOf = (token: string): number | undefined => framing.get(token);
  const end = settings.eos_token ?? '';
  const begin = settings.bos_token ?? '';
  const endId = idOf(end) ?? vocabulary.ids.get(end);
  const beginId = idOf(begin) ?? vocabulary.ids.get(begin);
  const appendedId = idOf(framingOf(file).at(-1) ?? '');
  const published = [...(Array.isArray(ends) ? ends : [ends]), ...(endId === undefined ? [] : [endId])];
  const middle = findFillInTheMiddle(idOf);
  const chatTemplate = template ?? defaultTemplate(settings);
  return new BytePairTokenizer({
    ...vocabulary,
    ...textSteps(file),
    endIds: findEndIds(idOf, published),
    templateTokens: { begin, end },
    ...(beginId !== undefined && expectsBegin(file, settings) ? { beginId } : {}),
    ...(appendedId === undefined ? {} : { appendedId }),
    ...(middle === undefined ? {} : { fillInTheMiddle: middle }),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  });
}

function readVocabulary(file: TokenizerFile) {
  const { model } = file;
  if (model.type !== 'BPE') throw unsupported(`The tokenizer's model "${model.type}" is not supported, only BPE is.`);
  if (model.continuing_subword_prefix || model.end_of_word_suffix) {
    throw unsupported('A tokenizer with continuing_subword_prefix or end_of_word_suffix is not supported.');
  }
  const ids = readIds(model.vocab);
  const unknownId = model.unk_token == null ? undefined : ids.get(model.unk_token);
  const merges = readMerges(model.merges, ids);
  const added = (file.added_tokens ?? []).map(readAddedToken);
  requireFew(
    'added_tokens',
    added.map(({ text }) => text),
  );
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of ids) tokens[id] = token;
  for (const token of added) {
    tokens[token.id] = token.text;
    ids.delete(token.text);
  }
  return {
    ids,
    tokens: Array.from(tokens),
    added,
    merges,
    wholePieces: model.ignore_merges ?? false,
    fuseUnknown: model.fuse_unk ?? false,
    ...(unknownId === undefined ? {} : { unknownId }),
  };
}

function readAddedToken(token: z.infer<typeof addedToken>): AddedToken {
  return {
    id: token.id,
    text: token.content,
    special: isNeverAnswer(token.content, token.special),
    stripBefore: token.lstrip,
    stripAfter: token.rstrip,
  };
}

function readIds(vocab: unknown): Map<string, number> {
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab)) {
    throw invalidInput('tokenizer.json: model.vocab must be an object of tokens and their ids.');
  }
  const entries = Object.entries(vocab);
  if (entries.length > limits.text.vocabularyTokens) {
    throw invalidInput(`tokenizer.json: model.vocab has ${entries.length} tokens, more than ${maxId + 1}.`);
  }
  requireFew(
    'model.vocab',
    entries.map(([token]) => token),
  );
  for (const [token, id] of entries) {
    if (!Number.isInteger(id) || id < 0 || id > maxId || token.length > limits.text.tokenChars) {
      throw invalidInput(`tokenizer.json: model.vocab: bad entry ${JSON.stringify(token.slice(0, 80))}: ${id}.`);
    }
  }
  return new Map(entries);
}

function requireFew(field: string, tokens: readonly string[]): void {
  const chars = tokens.reduce((sum, { length }) => sum + length, 0);
  if (chars > limits.text.vocabularyChars)
    throw invalidInput(`tokenizer.json: the tokens of ${field} have ${chars} characters together.`);
}

/** Merges are `"a b"` in older files and `["a", "b"]` in newer ones. */
function readMerges(merges: unknown, ids: ReadonlyMap<string, number>): MergeTable {
  if (!Array.isArray(merges) || merges.length > limits.text.merges) {
    throw invalidInput(`tokenizer.json: model.merges must be a list of at most ${limits.text.merges} pairs.`);
  }
  const table = new MergeTable(merges.length);
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = typeof merge === 'string' ? cutAtBlank(merge) : Array.isArray(merge) ? merge : [];
    const leftId = ids.get(left);
    const rightId = ids.get(right);
    const merged = ids.get(left + right);
    if (leftId === undefined || rightId === undefined || merged === undefined) {
      const shown = JSON.stringify(merge)?.slice(0, 80);
      throw invalidInput(`tokenizer.json: model.merges[${rank}] ${shown} isn't a pair of the vocabulary.`);
    }
    table.add(leftId, rightId, rank, merged);
  }
  return table;
}

function cutAtBlank(merge: string): [left: string, right: string] {
  const cut = merge.indexOf(' ');
  return [merge.slice(0, Math.max(0, cut)), merge.slice(cut + 1)];
}

function textSteps(file: TokenizerFile) {
  const normaliser = readNormaliser(file.normalizer);
  const preTokeniser = readPreTokeniser(file.pre_tokenizer);
  const normalise = (text: string, first: boolean): string => preTokeniser.prepare(normaliser(text), first);
  const byteLevel = preTokeniser.byteLevel || mentions(file.decoder, 'ByteLevel');
  return {
    normalise,
    splitSteps: preTokeniser.steps,
    spelling: byteLevel ? ('byte-level' as const) : ('byte-fallback' as const),
    leadingBlank: /^[ ▁]x$/u.test(normalise('x', true)),
  };
}

/** Llama's class adds the begin token by default; other classes have a setting or a post-processor for it. */
function expectsBegin(file: TokenizerFile, config: TokenizerConfig): boolean {
  if (config.add_bos_token !== null && config.add_bos_token !== undefined) return config.add_bos_token;
  return (
    /^(?:Llama|CodeLlama)Tokenizer/.test(config.tokenizer_class ?? '') ||
    framingOf(file)[0] === (config.bos_token ?? '')
  );
}

/** Tokens that the post-processor adds around a text, by name; undefined stands for the text. */
function framingOf(file: TokenizerFile): (string | undefined)[] {
  const piece = z.object({ SpecialToken: z.object({ id: z.string() }) });
  const template = z.object({ type: z.literal('TemplateProcessing'), single: z.array(z.unknown()) });
  const processors = z.object({ processors: z.array(z.unknown()) }).safeParse(file.post_processor);
  for (const candidate of processors.success ? processors.data.processors : [file.post_processor]) {
    const found = template.safeParse(candidate);
    if (found.success) return found.data.single.map((part) => piece.safeParse(part).data?.SpecialToken.id);
  }
  return [];
}

function mentions(config: unknown, type: string): boolean {
  const found = z.object({ type: z.literal(type) }).safeParse(config).success;
  const list = z.object({ decoders: z.array(z.object({ type: z.string() })) }).safeParse(config);
  return found || (list.success && list.data.decoders.some((decoder) => decoder.type === type));
}

function defaultTemplate(config: TokenizerConfig): string | undefined {
  const template = config.chat_template;
  if (typeof template === 'string') return template;
  return template?.find((entry) => entry.name === 'default')?.template;
}

function parse<T>(schema: z.ZodType<T>, value: unknown, name: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw invalidInput(`${name} is malformed: ${firstIssue(result.error.issues)}.`);
}

// Reads the JSON and text files beside a tokenizer, up to a maximum size.

/** The file's text; undefined if there is no file. */
export async function readOptionalText(path: string, maxBytes: number): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes) {
      throw invalidInput(`${basename(path)} has ${size} bytes; at most ${maxBytes} are read.`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new HearthError('unavailable', `${basename(path)}: can't be read.`, { cause: error });
  }
}

export async function readOptionalJson(path: string, maxBytes: number): Promise<unknown> {
  const text = await readOptionalText(path, maxBytes);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalidInput(`${basename(path)} isn't JSON: ${(error as Error).message}`);
  }
}
