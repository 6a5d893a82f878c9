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
    if (error instanceof RangeError) throw invalidInput('The text holds a run of characters too long to be read.');
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
