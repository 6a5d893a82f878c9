/** Inline completion: builds the prompt, generates, and trims the text that is offered. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { z } from 'zod';
import type { SamplerSettings } from '../backend/sampler.ts';
import { checkedAt, type ErrorsWith } from '../index/syntax/source.ts';
import { limits } from '../limits.ts';
import type { CompleteResult, completeParams, FinishReason } from '../protocol/engineProtocol.ts';
import { free, HealedText, type LogitsProcessor } from '../sampling/logitsProcessor.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  type CompletionPrompt,
  type CompletionSource,
  completionPrompt,
  promptBudgetTokens,
} from './completionPrompt.ts';
import { CompletionShape, type Shaped } from './completionShape.ts';
import { generate, type SampleObserver } from './generate.ts';

type Params = z.output<typeof completeParams>;

export interface CompletionRequest
  extends CompletionSource,
    Readonly<Pick<Params, 'maxTokens' | 'multiline' | 'candidates' | 'confidence' | 'whole'>>,
    Readonly<Partial<Pick<Params, 'strictness'>>> {
  readonly stopStrings: readonly string[];
  /** Called with each piece of the model's text, before it is cut. */
  readonly onText?: ((text: string) => void) | undefined;
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** From now; absent: the default limit of a keystroke. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

const nothingToContinue: CompleteResult = {
  text: '',
  alternatives: [],
  finish: 'stop',
  statistics: { promptTokens: 0, cachedTokens: 0, generatedTokens: 0, timeToFirstTokenMs: 0, tokensPerSecond: 0 },
};

export async function complete(
  scheduler: Submitter,
  tokenizer: Tokenizer,
  contextTokens: number,
  request: CompletionRequest,
): Promise<CompleteResult> {
  const maxTokens = Math.min(request.maxTokens, Math.floor(contextTokens / 2));
  const prompt = completionPrompt(tokenizer, request, promptBudgetTokens(contextTokens, maxTokens));
  const shape = new CompletionShape(request);
  if (prompt.ids.length === 0 || !(request.whole || shape.isWorthwhile)) return nothingToContinue;
  const write = (first?: FirstToken) => attempt({ scheduler, tokenizer, request, shape, prompt, maxTokens }, first);
  const best = await write();
  const others = await Promise.all(best.otherFirst.map((first) => write(first)));
  const { logProbability, finish, statistics } = best;
  const told = { ...(logProbability !== undefined && { logProbability }), finish, statistics };
  if (request.whole) return { text: best.text, alternatives: [], ...told };
  const ranked = [best, ...others.toSorted((a, b) => (b.logProbability ?? 0) - (a.logProbability ?? 0))];
  const sure = ranked.filter((one) => isSureEnough(one.logProbability, request));
  const [text = '', ...alternatives] = new Set(sure.flatMap((one) => (one.text === '' ? [] : [one.text])));
  return { text, alternatives, ...told };
}

interface Attempt {
  readonly scheduler: Submitter;
  readonly tokenizer: Tokenizer;
  readonly request: CompletionRequest;
  readonly shape: CompletionShape;
  readonly prompt: CompletionPrompt;
  readonly maxTokens: number;
}

interface Attempted extends Omit<CompleteResult, 'alternatives'> {
  readonly otherFirst: readonly FirstToken[];
}

/** @param first forces the first token. */
async function attempt(
  { scheduler, tokenizer, request, shape, prompt, maxTokens }: Attempt,
  first: FirstToken | undefined,
): Promise<Attempted> {
  const { whole, confidence, candidates } = request;
  const parser = new HealedText(tokenizer, prompt.healing);
  const meter = new ConfidenceMeter(tokenizer.endIds, first ?? candidates - 1);
  let written = '';
  const { finish, statistics } = await generate(scheduler, {
    ...request,
    requestClass: 'keystroke',
    prompt: prompt.ids,
    boundaries: prompt.boundaries,
    maxTokens,
    stopIds: tokenizer.endIds,
    parser,
    processors: first ? [startingWith(first), parser] : [parser],
    observer: whole || (confidence === 'eager' && candidates === 1) ? undefined : meter,
    onPiece: ({ text }) => {
      written += text;
      // Only the first candidate streams; alternatives run at the same time.
      if (first === undefined) request.onText?.(text);
      return !whole && shape.shape(written, false).complete ? 'stop' : 'continue';
    },
    // A whole completion isn't cut short by the next key, so it has no default limit.
    timeoutMs: request.timeoutMs ?? (whole ? undefined : limits.generation.completionMs),
  });
  const text = whole ? written : await completedText(shape, written, finish, request);
  const { logProbability, otherFirst } = meter;
  return { text, ...(logProbability !== undefined && { logProbability }), otherFirst, finish, statistics };
}

function startingWith({ id }: FirstToken): LogitsProcessor {
  let isFirst = true;
  return {
    next: () => (isFirst ? { kind: 'forced', token: id } : free),
    take: () => {
      isFirst = false;
    },
  };
}

/** The part of the text that is offered: only whole lines if the length limit cut the text off. */
export async function completedText(
  shape: CompletionShape,
  written: string,
  finish: FinishReason,
  place: Place,
): Promise<string> {
  const ended = finish === 'stop';
  const shaped = shape.shape(written, ended);
  const isCutOff = !ended && !shaped.complete;
  if (!isCutOff || !shaped.text.trimStart().includes('\n')) return withoutBreaking(shaped, place, isCutOff);
  const { text } = shape.shape(written.slice(0, written.lastIndexOf('\n')), true);
  return withoutBreaking({ text, complete: false }, place, isCutOff);
}

// Measures how confident the model is in a completion, and finds alternatives.

/**
 * A text is shown if the mean log-probability of its first tokens is at least this. Measured with SmolLM2 on held-out lines:
 * docs/proof.md, "Which completions are shown".
 */
const leastLogProbability: Readonly<Record<Params['confidence'], number>> = {
  eager: Number.NEGATIVE_INFINITY,
  balanced: -0.5,
  quiet: -0.2,
};

/** `strictness` 1 halves the distance from certainty (log-probability 0) that is allowed, −1 doubles it. */
export const isSureEnough = (
  logProbability: number | undefined,
  { confidence, strictness = 0 }: Pick<CompletionRequest, 'confidence' | 'strictness'>,
): boolean => logProbability === undefined || logProbability >= leastLogProbability[confidence] * 2 ** -strictness;

/** Most suggestions of one line are shorter; the device may sample later tokens. */
const observedTokens = 16;

/** A candidate for the first token. */
interface FirstToken {
  readonly id: number;
  readonly logProbability: number;
}

export class ConfidenceMeter implements SampleObserver {
  readonly tokens: number;
  readonly #endIds: ReadonlySet<number>;
  readonly #wanted: number;
  #sum = 0;
  #count = 0;
  /** The most likely first tokens except the chosen one. */
  otherFirst: readonly FirstToken[] = [];
  /** Log-probability of the least likely token; 0 if there was none. */
  least = 0;

  /** @param first the token that was forced, or how many others to remember */
  constructor(endIds: ReadonlySet<number>, first: FirstToken | number, tokens = observedTokens) {
    this.tokens = tokens;
    this.#endIds = endIds;
    this.#wanted = typeof first === 'number' ? first : 0;
    if (typeof first === 'object') this.#add(first.logProbability);
  }

  get logProbability(): number | undefined {
    return this.#count === 0 ? undefined : this.#sum / this.#count;
  }

  sampled(logits: Float32Array, token: number): void {
    if (this.#count === 0 && this.#wanted > 0) {
      const ids = largest(logits, this.#wanted + 1 + this.#endIds.size);
      const others = ids.filter((id) => id !== token && !this.#endIds.has(id)).slice(0, this.#wanted);
      this.otherFirst = others.map((id) => ({ id, logProbability: logProbabilityOf(logits, id) }));
    }
    this.#add(logProbabilityOf(logits, token));
  }

  #add(logProbability: number): void {
    this.#sum += logProbability;
    this.least = Math.min(this.least, logProbability);
    this.#count++;
  }
}

/** `[vocabulary]` */
function logProbabilityOf(logits: Float32Array, token: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > highest) highest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  return (logits[token] ?? Number.NEGATIVE_INFINITY) - highest - Math.log(sum);
}

function largest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? Number.NEGATIVE_INFINITY;
    if (logit === Number.NEGATIVE_INFINITY) continue;
    if (ids.length === count && logit <= (logits[ids[count - 1] ?? 0] ?? 0)) continue;
    const at = ids.findIndex((other) => logit > (logits[other] ?? 0));
    ids.splice(at < 0 ? ids.length : at, 0, id);
    ids.length = Math.min(ids.length, count);
  }
  return ids;
}

// Keeps a completion from breaking the file's syntax, by comparing the syntax trees with and without it. Brackets that it
// opens and doesn't finish are closed; if that doesn't help, its end is cut off.

interface Place {
  readonly prefix: string;
  readonly suffix: string;
  readonly path?: string | undefined;
}

/** Each candidate is parsed, which takes about a millisecond. */
const maxCandidates = 12;

/**
 * @param isCutOff the model was stopped before its end.
 * @returns the longest prefix with which the file has the fewest errors; empty if the file parses without the completion
 * but with no prefix of it.
 */
export async function withoutBreaking(shaped: Shaped, place: Place, isCutOff: boolean): Promise<string> {
  const { path, prefix } = place;
  if (path === undefined || shaped.text === '') return shaped.text;
  const candidates = candidatesOf(shaped, prefix, isCutOff);
  const best = await checkedAt({ ...place, path }, (errorsWith) => fewestErrors(candidates, errorsWith));
  return best ?? shaped.text;
}

async function fewestErrors(candidates: readonly string[], errorsWith: ErrorsWith): Promise<string> {
  const before = errorsWith('');
  let best = candidates[0] ?? '';
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    // Lets other requests run between two parses.
    await nextTurn();
    const errors = errorsWith(candidate);
    if (errors < fewest) [best, fewest] = [candidate, errors];
    if (errors === 0) break;
  }
  // The code around the cursor is unfinished, so the parser can't tell better than the model.
  return before === 0 && fewest > 0 ? '' : best;
}

function candidatesOf({ text, uncut }: Shaped, prefix: string, isCutOff: boolean): string[] {
  const whole = uncut === undefined ? [text] : [text, uncut, ...between(text, uncut)];
  const lines = text.split('\n');
  const shorter = lines.slice(1).map((_, i) =>
    lines
      .slice(0, lines.length - 1 - i)
      .join('\n')
      .trimEnd(),
  );
  // A second statement after a finished one begins at a word.
  const atMarks = [...(lines.at(-1) ?? '').matchAll(/[)\]};,]+\s*$|[)\]}]|\s+(?=\S)/g)].reverse();
  const inLine = atMarks.map(({ index }) => text.slice(0, text.length - (lines.at(-1) ?? '').length + index).trimEnd());
  const all = isCutOff
    ? [...whole, ...whole.map((own) => closed(own, prefix)), ...shorter.flatMap((own) => [own, closed(own, prefix)])]
    : [...whole, ...inLine.slice(0, 6), ...shorter, ...whole.map((own) => closed(own, prefix))];
  return [...new Set(all)].filter((own) => own.trim() !== '').slice(0, maxCandidates);
}

/**
 * Texts between the shorter and the longer one that end with a bracket, because some brackets that were cut off may be
 * needed.
 */
function between(shorter: string, longer: string): string[] {
  if (!longer.startsWith(shorter)) return [];
  const marks = [...longer.slice(shorter.length).matchAll(/[)\]}]/g)].slice(0, 3);
  return marks.map(({ index }) => longer.slice(0, shorter.length + index + 1));
}

const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/**
 * Closes the brackets that the text opened: on the same line, or each block on a separate line with the indentation of
 * its opening line.
 */
function closed(text: string, prefix: string): string {
  const open: { readonly bracket: string; readonly indentation: string }[] = [];
  let line = prefix.slice(prefix.lastIndexOf('\n') + 1);
  let indentation = indentationOf(line);
  for (const char of text) {
    if (char === '\n') {
      line = '';
      indentation = '';
      continue;
    }
    line += char;
    indentation = indentationOf(line);
    if (char in closers) open.push({ bracket: char, indentation });
    else if (char === closers[open.at(-1)?.bracket ?? '']) open.pop();
  }
  return open.reverse().reduce((whole, own) => {
    const closer = closers[own.bracket] ?? '';
    return own.bracket === '{' && text.includes('\n') ? `${whole}\n${own.indentation}${closer}` : whole + closer;
  }, text);
}

const indentationOf = (line: string): string => /^[ \t]*/.exec(line)?.[0] ?? '';
