/**
 * Cutting text into the pieces that byte pairs merge within. A step cuts every piece that the step before it left.
 * The translation of Oniguruma patterns (what published files are written in) to JavaScript ones is
 * `@huggingface/tokenizers`'; its own splitting is not used, as `Digits` and `ByteLevel` there know ASCII digits and
 * JavaScript's idea of white space only, where the originals mean Unicode's.
 */
import { SplitPreTokenizer } from '@huggingface/tokenizers';
import { invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';
import { DeadlineError, withDeadline } from './watchdog.ts';

/** GPT-2's pattern, which a `ByteLevel` step brings along (openai/gpt-2, encoder.py). */
export const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`;

export interface SplitStep {
  readonly pattern: RegExp;
  /** Matches and what lies between them are pieces, or only one of the two. */
  readonly keep: 'both' | 'between' | 'matches';
  /** Takes time in proportion to the text; other patterns run against a deadline. */
  readonly tame: boolean;
}

/** @param tame the pattern is ours or a published one. */
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
  if (text === '') throw invalidInput('The tokenizer splits at an empty text.');
  return { pattern: new RegExp(text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&'), 'gu'), keep, tame: true };
}

/**
 * The pieces of `text`, some thousand at a time where it is long.
 * @throws HearthError `invalid-input` when a pattern takes too long on `text`, or a piece is too long for it.
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
      throw invalidInput(`A pattern of the tokenizer takes more than ${limits.text.patternMs} ms, so it was stopped.`);
    }
    // V8 matches on a stack of its own, which a run of millions of characters of one kind fills.
    if (error instanceof RangeError) throw invalidInput('The text holds a run of characters too long to be read.');
    throw error;
  }
}

/** Shorter texts are cut in one go, which is twice as fast. */
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
    // Most pieces of a later step are short and stay whole, so nothing is allocated for them.
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
    // Published patterns leave nothing out, and `match` is twice as fast as positions are.
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
 * Refuses what can take exponential time: a repetition of something that itself repeats without bound. Patterns come
 * with a checkpoint, and no published one of our families needs that.
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
      if (inner && outer) throw invalidInput(`The tokenizer's pattern ${quote(source)} repeats a repetition.`);
      repeats[repeats.length - 1] = (repeats.at(-1) ?? false) || inner || outer;
    } else if (/^(?:[+*]|\{\d*,\})$/.test(token)) repeats[repeats.length - 1] = true;
  }
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text);
}
