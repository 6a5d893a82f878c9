/**
 * Pre-tokenisation: splits text into pieces within which byte pairs merge. Each step splits the pieces of the step
 * before. `@huggingface/tokenizers` translates Oniguruma patterns (used in published files) to JavaScript. Its own
 * splitting isn't used, because its `Digits` and `ByteLevel` know only ASCII digits and JavaScript's white space
 * instead of Unicode's.
 */
import { SplitPreTokenizer } from '@huggingface/tokenizers';
import { invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';
import { DeadlineError, withDeadline } from './watchdog.ts';

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

/** @throws HearthError `invalid-input` if a checkpoint's pattern takes too long on `text`. */
export function preTokenise(text: string, steps: readonly SplitStep[]): readonly string[] {
  if (steps.every((step) => step.tame)) return cutBySteps(text, steps);
  try {
    return withDeadline(limits.text.patternMs, () => cutBySteps(text, steps));
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    throw invalidInput(`A pattern of the tokenizer took more than ${limits.text.patternMs} ms and was stopped.`);
  }
}

function cutBySteps(text: string, steps: readonly SplitStep[]): readonly string[] {
  let pieces: readonly string[] = text === '' ? [] : [text];
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
  let end = 0;
  for (const match of text.matchAll(step.pattern)) {
    if (step.keep !== 'matches' && match.index > end) pieces.push(text.slice(end, match.index));
    if (step.keep !== 'between' && match[0] !== '') pieces.push(match[0]);
    end = match.index + match[0].length;
  }
  if (step.keep !== 'matches' && end < text.length) pieces.push(text.slice(end));
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
