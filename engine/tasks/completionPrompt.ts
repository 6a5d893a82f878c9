/** The prompt of an inline completion: fill-in-the-middle if the vocabulary supports it, else a plain continuation. */
import type { z } from 'zod';
import { importsIn } from '../index/question/planner.ts';
import { limits } from '../limits.ts';
import type { completeParams } from '../protocol/engineProtocol.ts';
import type { TokenOutcome, TokenRequest } from '../scheduler/job.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import { fillInTheMiddlePrompt, type Tokenizer } from '../tokenizer/tokenizer.ts';

/** The inputs of the prompt. */
export type CompletionSource = Readonly<
  Pick<z.output<typeof completeParams>, 'prefix' | 'suffix' | 'path' | 'repository' | 'languageId' | 'snippets'>
>;

export interface CompletionPrompt {
  readonly ids: number[];
  /** Lengths of `ids` at which later prompts may diverge while the user types: where the open file's text begins. */
  readonly boundaries: readonly number[];
  /**
   * Bytes of the text's last token, which was removed so that the model may choose a longer token that begins with them
   * (Lundberg, "The art of prompt design: prompt boundaries and token healing", 2023). Fill-in-the-middle models were
   * trained on cuts inside tokens, so at the end of the prefix only a word that is being typed is healed.
   */
  readonly healing: Uint8Array;
  /** Within `cutAheadTokens` more tokens, the cut of a long file or the start of the middle will move down. */
  readonly nearsCut: boolean;
}

/** The markers of fill-in-the-middle: prefix, suffix, middle. */
const markerTokens = 3;
const nothing = new Uint8Array(0);

/**
 * If the cut will move within this many tokens, the next prompt is prefilled in advance. A hundred lines of code have
 * about a thousand tokens.
 */
const cutAheadTokens = 160;

/** Most tokens of a prompt that leaves room for an answer of `maxTokens`. */
export function promptBudgetTokens(contextTokens: number, maxTokens: number): number {
  return Math.min(contextTokens - maxTokens, limits.generation.completionPromptTokens);
}

/**
 * At most `budgetTokens` ids. The parts that change least come first, so that the prefix cache holds them.
 * @param aheadTokens builds the prompt that will apply after this many more tokens: with the later cut of a long file,
 * and the later start of the middle.
 */
export function completionPrompt(
  tokenizer: Tokenizer,
  source: CompletionSource,
  budgetTokens: number,
  aheadTokens = 0,
): CompletionPrompt {
  const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
  const fim = tokenizer.fillInTheMiddle;
  const all = budgetTokens - begin.length - (fim ? markerTokens : 0);
  const suffix = fim ? head(tokenizer, source.suffix, Math.floor(all * suffixShare)) : [];
  const isBegun = fim?.order === 'prefix-suffix-middle';
  const middle = isBegun ? begunMiddle(tokenizer, source.prefix, all, aheadTokens > 0) : unbegun;
  const outside = { ...source, prefix: source.prefix.slice(0, source.prefix.length - middle.chars) };
  const budget = all - suffix.length - middle.reservedTokens;
  const { preamble, title, prefix, nearsCut } = before(tokenizer, outside, { budget, aheadTokens });
  const start = [...begin, ...preamble];
  const isHealed = fim === undefined || middle.ids.length > 0 || typedWord.test(source.prefix);
  const typed = middle.ids.length > 0 ? middle.ids : prefix;
  // The model needs one token to start from.
  const healed = isHealed && start.length + prefix.length + middle.ids.length >= 2 ? typed.at(-1) : undefined;
  const kept = healed === undefined ? typed : typed.slice(0, -1);
  const [file, begun] = middle.ids.length > 0 ? [prefix, kept] : [kept, []];
  const stable = [...start, ...(fim ? fillInTheMiddlePrompt(fim, [...title, ...file], suffix) : file)];
  const boundaries = fim ? [start.length + title.length, stable.length] : [start.length];
  const healing = healed === undefined ? nothing : tokenizer.bytesOf(healed);
  return { ids: [...stable, ...begun], boundaries, healing, nearsCut: nearsCut || middle.nearsMove };
}

const typedWord = /[\p{L}\p{N}_]$/u;

interface Parts {
  /** The repository's name, snippets, and the name of the open file unless that is the `title`. */
  readonly preamble: readonly number[];
  /** The name of the open file for a model that expects it at the start of the prefix. */
  readonly title: readonly number[];
  readonly prefix: readonly number[];
  readonly nearsCut: boolean;
}

interface Room {
  readonly budget: number;
  readonly aheadTokens: number;
}

/** Share of the prompt for the text after the cursor: about twelve lines. */
const suffixShare = 1 / 16;

/** Share of the rest for the text before the cursor, beside snippets and suffix. */
const prefixShare = 2 / 3;

/** The text before the cursor. */
function before(tokenizer: Tokenizer, source: CompletionSource, room: Room): Parts {
  const separator = tokenizer.fillInTheMiddle?.fileSeparator;
  const repository = repositoryTitle(tokenizer, source);
  const { before: separated, within: title } = fileTitle(tokenizer, separator, source);
  const rest = room.budget - repository.length - separated.length - title.length;
  const most = source.snippets.length > 0 ? Math.floor(rest * prefixShare) : rest;
  const { ids: prefix, nearsCut } = fileStart(tokenizer, source.prefix, most, room.aheadTokens);
  const snippets = snippetIds(tokenizer, separator, source, rest - steppedUp(prefix.length, most));
  return { preamble: [...repository, ...snippets, ...separated], title, prefix, nearsCut };
}

/** With a line end, as Qwen2.5-Coder was trained. StarCoder2's training text had none here. */
function repositoryTitle(tokenizer: Tokenizer, { repository }: CompletionSource): number[] {
  const { repositoryName, namesFileInPrefix } = tokenizer.fillInTheMiddle ?? {};
  if (repositoryName === undefined || repository === undefined) return [];
  return [repositoryName, ...plain(tokenizer, namesFileInPrefix ? repository : `${repository}\n`)];
}

/**
 * Tokens reserved for a text. They grow in steps, because dropping a snippet makes everything after it be prefilled
 * again.
 */
const steppedUp = (length: number, most: number): number =>
  Math.ceil((length * steps) / most) * Math.ceil(most / steps);

/**
 * Names the file that follows: in a comment, or with the model's separator, which comes before the prefix
 * (Qwen2.5-Coder's repository format) or at its start (StarCoder2's).
 */
function fileTitle(
  tokenizer: Tokenizer,
  separator: number | undefined,
  { path, languageId }: CompletionSource,
): { readonly before: number[]; readonly within: number[] } {
  if (path === undefined) return { before: [], within: [] };
  if (separator === undefined) return { before: plain(tokenizer, commentLine(languageId, path)), within: [] };
  const name = plain(tokenizer, `${path}\n`);
  return tokenizer.fillInTheMiddle?.namesFileInPrefix
    ? { before: [separator], within: name }
    : { before: [separator, ...name], within: [] };
}

/** As many whole snippets as fit, in their order. */
function snippetIds(
  tokenizer: Tokenizer,
  separator: number | undefined,
  { snippets, languageId }: CompletionSource,
  budgetTokens: number,
): number[] {
  const ids: number[] = [];
  for (const { path, text } of snippets) {
    if (text.length > budgetTokens * limits.generation.charsPerToken) continue;
    const own =
      separator === undefined
        ? plain(tokenizer, `${commentLine(languageId, path)}${text}\n\n`)
        : [separator, ...plain(tokenizer, `${path}\n${text}\n`)];
    if (ids.length + own.length <= budgetTokens) ids.push(...own);
  }
  return ids;
}

const plain = (tokenizer: Tokenizer, text: string): number[] => tokenizer.encode(text, { special: 'plain' });

/** The first tokens of the text. */
function head(tokenizer: Tokenizer, text: string, maxTokens: number): number[] {
  return plain(tokenizer, text.slice(0, maxTokens * limits.generation.charsPerToken)).slice(0, maxTokens);
}

/** The last tokens of the text, preceded by the imports from the part that is cut off. */
function fileStart(tokenizer: Tokenizer, text: string, maxTokens: number, aheadTokens: number): Tail {
  const whole = tail(tokenizer, text, maxTokens, aheadTokens);
  const room = Math.floor(maxTokens / importsShare);
  const bytes = Buffer.from(text);
  const left = bytes.length - whole.ids.reduce((sum, id) => sum + tokenizer.bytesOf(id).length, 0);
  if (left <= 0 || room === 0) return whole;
  const imports = importsIn(bytes.subarray(0, left).toString()).map((line) => plain(tokenizer, `${line}\n`));
  const fitting: number[] = [];
  for (const ids of imports) if (fitting.length + ids.length <= room) fitting.push(...ids);
  if (fitting.length === 0) return whole;
  const { ids, nearsCut } = tail(tokenizer, text, maxTokens - room, aheadTokens);
  return { ids: [...fitting, ...ids], nearsCut };
}

/** Imports may take one part in this many of the prefix's tokens once the file is cut. */
const importsShare = 6;

/** A text is cut in steps of its maximum length divided by this. */
const steps = 4;

/**
 * The last tokens of the text. The cut moves in steps, so that many keystrokes share the same cached beginning; it is
 * at the start of a line if one is near.
 */
function tail(tokenizer: Tokenizer, text: string, maxTokens: number, aheadTokens: number): Tail {
  if (maxTokens <= 0) return { ids: [], nearsCut: false };
  const { charsPerToken } = limits.generation;
  const start = steppedStart(text.length, maxTokens * charsPerToken, aheadTokens);
  const lineStart = start === 0 ? 0 : text.indexOf('\n', start) + 1 || start;
  const ids = plain(tokenizer, text.slice(lineStart));
  const first = steppedStart(ids.length, maxTokens, aheadTokens);
  const nearsCut =
    start < steppedStart(text.length, maxTokens * charsPerToken, cutAheadTokens) ||
    first < steppedStart(ids.length, maxTokens, cutAheadTokens);
  if (first === 0) return { ids, nearsCut };
  for (let i = first; i < ids.length && i < first + maxTokens / steps; i++) {
    if (tokenizer.bytesOf(ids[i - 1] ?? 0).at(-1) === newline) return { ids: ids.slice(i), nearsCut };
  }
  return { ids: ids.slice(first), nearsCut };
}

interface Tail {
  readonly ids: number[];
  readonly nearsCut: boolean;
}

const newline = 10;

/** Where to cut `length` items so that at most `max` remain; moves in steps. `ahead`: how many more are expected. */
function steppedStart(length: number, max: number, ahead: number): number {
  if (length + ahead <= max) return 0;
  const step = Math.max(1, Math.floor(max / steps));
  return Math.ceil((length + ahead - max) / step) * step;
}

/** Comment prefixes by VS Code's language identifiers; `//` for all others. */
const marks: Readonly<Record<string, string>> = {
  bat: 'REM',
  clojure: ';',
  coffeescript: '#',
  dockerfile: '#',
  elixir: '#',
  erlang: '%',
  fortran: '!',
  haskell: '--',
  ini: ';',
  julia: '#',
  latex: '%',
  lisp: ';',
  lua: '--',
  makefile: '#',
  matlab: '%',
  perl: '#',
  powershell: '#',
  properties: '#',
  python: '#',
  r: '#',
  ruby: '#',
  scheme: ';',
  shellscript: '#',
  sql: '--',
  tex: '%',
  toml: '#',
  vb: "'",
  yaml: '#',
};

const blocks: Readonly<Record<string, readonly [string, string]>> = {
  css: ['/*', '*/'],
  html: ['<!--', '-->'],
  markdown: ['<!--', '-->'],
  ocaml: ['(*', '*)'],
  vue: ['<!--', '-->'],
  xml: ['<!--', '-->'],
};

/** `text` as a one-line comment. */
export function commentLine(languageId: string | undefined, text: string): string {
  const block = blocks[languageId ?? ''];
  if (block) return `${block[0]} ${text} ${block[1]}\n`;
  return `${marks[languageId ?? ''] ?? '//'} ${text}\n`;
}

// Warm-up: computes a prompt into the cache before a request with the same prefix arrives.

/** How many tokens are cached; a warm-up stopped by a key keeps the tokens computed so far. */
interface Warmed {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly finish: TokenOutcome['finish'];
}

/** The default time limit ends warm-ups that are no longer likely to be used. */
export async function warmUp(
  scheduler: Submitter,
  prompt: readonly number[],
  options: Pick<TokenRequest, 'boundaries' | 'timeoutMs' | 'signal'> = {},
): Promise<Warmed> {
  const promptTokens = prompt.length;
  if (promptTokens === 0) return { promptTokens, cachedTokens: 0, finish: 'length' };
  const nothing = (): never => {
    throw new Error('A warm-up must not sample.');
  };
  const { cachedTokens, finish } = await scheduler.submit({
    requestClass: 'warm-up',
    prompt,
    maxTokens: 0,
    choose: nothing,
    deliver: nothing,
    ...options,
    timeoutMs: options.timeoutMs ?? limits.generation.warmUpMs,
  });
  return { promptTokens, cachedTokens, finish };
}

/** The prompt that `complete` would build at this place. */
export function completionToWarm(
  tokenizer: Tokenizer,
  contextTokens: number,
  source: CompletionSource,
  maxTokens: number,
  aheadTokens = 0,
): CompletionPrompt {
  const answerTokens = Math.min(maxTokens, Math.floor(contextTokens / 2));
  return completionPrompt(tokenizer, source, promptBudgetTokens(contextTokens, answerTokens), aheadTokens);
}

/** The prompt after the next cut of a long file, or move of the middle. @returns undefined if none is near. */
export function promptAfterCut(
  tokenizer: Tokenizer,
  contextTokens: number,
  source: CompletionSource,
  maxTokens: number,
): CompletionPrompt | undefined {
  const { nearsCut } = completionToWarm(tokenizer, contextTokens, source, maxTokens);
  return nearsCut ? completionToWarm(tokenizer, contextTokens, source, maxTokens, cutAheadTokens) : undefined;
}

/** Between keys, prefills the prompt after the next cut, so that the key that moves the cut doesn't wait. */
export class CutAhead {
  #stop = new AbortController();

  /** Stops for a key. The tokens computed so far stay cached. */
  pause(): void {
    this.#stop.abort();
  }

  read(scheduler: Submitter, prompt: CompletionPrompt | undefined): void {
    this.pause();
    this.#stop = new AbortController();
    if (!prompt) return;
    const reading = warmUp(scheduler, prompt.ids, { boundaries: prompt.boundaries, signal: this.#stop.signal });
    // It fails if the model is unloaded or the device is lost; the next request reports that.
    reading.catch(() => undefined);
  }
}

// In a fill-in-the-middle prompt the suffix follows the prefix, so every key would make the suffix be prefilled again.
// The lines that are being typed are therefore placed after both, as the beginning of the middle, which the model
// continues (like `prompt` of llama.cpp's `/infill`).

interface BegunMiddle {
  readonly ids: readonly number[];
  readonly chars: number;
  /** Reserved for the middle whatever its length, so that the cut of the prefix doesn't move. */
  readonly reservedTokens: number;
  /** Within some lines, the middle will begin further down. */
  readonly nearsMove: boolean;
}

const unbegun: BegunMiddle = { ids: [], chars: 0, reservedTokens: 0, nearsMove: false };

/** Largest share of the prompt for the middle: twelve lines of code have about 150 tokens. */
const middleShare = 1 / 10;

/**
 * Share of the middle for the lines above the cursor's line, so that typing on the line doesn't change which of them
 * fit.
 */
const aboveShare = 3 / 4;

/** The middle begins at a line whose number is a multiple of this; long lines use the smaller steps. */
const lineSteps = [8, 4, 1];

/**
 * @param isAhead takes the start that will apply after half a step more lines, so that its prompt can be prefilled
 * between keys.
 */
function begunMiddle(tokenizer: Tokenizer, prefix: string, promptTokens: number, isAhead: boolean): BegunMiddle {
  const reservedTokens = Math.floor(promptTokens * middleShare);
  const lines = prefix.split('\n');
  const line = lines.length - 1;
  for (const step of lineSteps) {
    const [later, now] = [line, line - Math.floor(step / 2)].map((at) => step * Math.floor(Math.max(0, at) / step));
    const start = isAhead ? later : now;
    if (fitting(tokenizer, lines.slice(start, line).join('\n'), reservedTokens * aboveShare) === undefined) continue;
    const text = lines.slice(start).join('\n');
    const ids = fitting(tokenizer, text, reservedTokens);
    return ids ? { ids, chars: text.length, reservedTokens, nearsMove: now !== later } : unbegun;
  }
  return unbegun;
}

function fitting(tokenizer: Tokenizer, text: string, tokens: number): readonly number[] | undefined {
  if (text.length > tokens * limits.generation.charsPerToken) return undefined;
  const ids = tokenizer.encode(text, { special: 'plain' });
  return ids.length <= tokens ? ids : undefined;
}
