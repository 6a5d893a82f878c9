import { limits } from '../limits.ts';
import { type Moment, opensBlock } from './moment.ts';

/**
 * What of a model's continuation is shown: at most the rest of the scope, nothing that already stands after the cursor,
 * no leaked control words, no trailing blanks. Empty: show nothing.
 */
export function trimSuggestion(raw: string, moment: Moment, multiline: boolean): string {
  let text = raw.replaceAll('\r\n', '\n');
  text = cutControlWords(text);
  text = multiline ? cutScope(text, moment) : firstLine(text);
  text = cutAtClosed(text, moment.lineSuffix);
  text = cutRepeatedSuffix(text, moment);
  text = cutLoop(text).trimEnd();
  return repeatsNextLine(text, moment) ? '' : text;
}

const firstLine = (text: string): string => text.split('\n', 1)[0] ?? '';

/** Words that models are trained to end with and that small ones also write out in plain letters. */
function cutControlWords(text: string): string {
  const at = text.search(/<\|[a-z_]{2,40}\|>|<\/?(fim_(prefix|suffix|middle|pad)|s|PRE|SUF|MID|EOT)>/);
  return at < 0 ? text : text.slice(0, at);
}

const indentOf = (line: string): number => (/^[ \t]*/.exec(line)?.[0] ?? '').length;
const isCloser = (line: string): boolean => /^\s*([)\]}]|end\b|<\/)/.test(line);

/** Ends where the block that the cursor is in, or that the line opens, ends. */
function cutScope(text: string, moment: Moment): string {
  const lines = text.split('\n');
  const opened = moment.linePrefix.trim() !== '' && opensBlock(moment.linePrefix + (lines[0] ?? ''), moment.languageId);
  const base = indentOf(moment.linePrefix);
  const kept = [lines[0] ?? ''];
  for (const line of lines.slice(1, limits.completion.multilineLines)) {
    const outside = line.trim() !== '' && indentOf(line) < base + (opened ? 1 : 0);
    if (!outside) kept.push(line);
    else {
      if (isCloser(line) && !nextLineCloses(moment)) kept.push(line);
      break;
    }
  }
  return kept.join('\n');
}

const nextFilled = (moment: Moment): string | undefined =>
  moment.suffix
    .split('\n')
    .slice(1)
    .find((line) => line.trim() !== '');

function nextLineCloses(moment: Moment): boolean {
  const next = nextFilled(moment);
  return isCloser(moment.lineSuffix) || (next !== undefined && isCloser(next));
}

const pairs: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' };

/**
 * `f(|)` and the model says `a, b)`: the bracket or quote that closes what was opened before the cursor is there already,
 * so the suggestion ends before it.
 */
function cutAtClosed(text: string, lineSuffix: string): string {
  const existing = lineSuffix.trimStart()[0];
  if (existing === undefined) return text;
  const at = /["'`]/.test(existing) ? unescapedIndex(text, existing) : unmatchedIndex(text, existing);
  return at < 0 ? text : text.slice(0, at);
}

function unmatchedIndex(text: string, closer: string): number {
  if (pairs[closer] === undefined) return -1;
  const open: string[] = [];
  for (let index = 0; index < text.length; index++) {
    const char = text[index] ?? '';
    const opener = pairs[char];
    if (opener === undefined) {
      if ('([{'.includes(char)) open.push(char);
    } else if (open.at(-1) === opener) open.pop();
    else return char === closer ? index : -1;
  }
  return -1;
}

function unescapedIndex(text: string, quote: string): number {
  for (let index = 0; index < text.length; index++) {
    if (text[index] === '\\') index++;
    else if (text[index] === quote) return index;
  }
  return -1;
}

/** Drops the end of the suggestion that repeats what follows on the line, and everything from a line that comes next. */
function cutRepeatedSuffix(text: string, moment: Moment): string {
  const rest = moment.lineSuffix.trimEnd();
  // Brackets and quotes alone are `cutAtClosed`'s: here they could be the suggestion's own.
  if (/[\w;,]/.test(rest) && text.trimEnd().endsWith(rest)) text = text.trimEnd().slice(0, -rest.length);
  const next = nextFilled(moment)?.trim();
  if (next === undefined) return text;
  const lines = text.split('\n');
  const repeat = lines.findIndex((line, index) => index > 0 && line.trim() === next);
  return repeat < 0 ? text : lines.slice(0, repeat).join('\n');
}

/** A small model that repeats itself: the second and later copies of a line are not shown. */
function cutLoop(text: string): string {
  const lines = text.split('\n');
  const loop = lines.findIndex(
    (line, index) => index > 1 && line.trim().length > 2 && line === lines[index - 1] && line === lines[index - 2],
  );
  return loop < 0 ? text : lines.slice(0, loop - 1).join('\n');
}

function repeatsNextLine(text: string, moment: Moment): boolean {
  if (text.trim() === '') return true;
  const whole = (moment.linePrefix + firstLine(text)).trim();
  return !text.includes('\n') && whole.length > 2 && whole === nextFilled(moment)?.trim();
}
