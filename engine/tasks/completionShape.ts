/**
 * Ends an inline completion with its line, its statement or the cursor's block, before it closes a bracket that the file
 * already closes, and before it repeats the text after the cursor. All decisions use the language's tokens.
 */
import { type Frame, indentationOf, type Lexed, lex, type Token } from '../index/syntax/lexer.ts';
import { type Lexicon, lexiconOf } from '../index/syntax/lexicons.ts';
import { limits } from '../limits.ts';
import type { CompleteParams } from '../protocol/engineProtocol.ts';
import { loopStart, type OpenBlock, openBlockAt, opensBlock, repeatedLines, Scope } from './completionScope.ts';

/** The cursor's line, as many lines as its statement or block needs, or always a block. */
export type Multiline = NonNullable<CompleteParams['multiline']>;

export interface Cursor {
  /** Text before and after the cursor. */
  readonly prefix: string;
  readonly suffix: string;
  readonly languageId?: string | undefined;
  readonly multiline: Multiline;
}

export interface Shaped {
  readonly text: string;
  /** True if more output would not change the text. */
  readonly complete: boolean;
  /** The text before removing repetitions and closed brackets; absent: there were none. */
  readonly uncut?: string;
}

interface Line {
  readonly indentation: number;
  readonly tokens: readonly Token[];
}

/** The text after the cursor. */
interface LexedAfter {
  /** The rest of the cursor's line. */
  readonly rest: readonly Token[];
  /** The lines below, counted from the rest's end. */
  readonly below: readonly Token[];
  /** Number of frames open at the cursor that this text continues. */
  readonly depth: number;
  /** Unterminated strings and unopened brackets in it. */
  readonly unmatched: number;
}

export class CompletionShape {
  readonly #cursor: Cursor;
  readonly #lexicon: Lexicon;
  readonly #before: Lexed;
  readonly #linePrefix: string;
  /** Brackets open at the cursor that the text after it closes. */
  readonly #closedAfter: ReadonlySet<Frame>;
  /** Brackets and strings that are open where the text after the cursor begins. */
  readonly #depthAfter: number;
  /** The rest of the cursor's line, and the next line that is not blank. */
  readonly #rest: readonly Token[];
  readonly #nextLine: Line | undefined;

  constructor(cursor: Cursor) {
    const { prefix, suffix, languageId } = cursor;
    this.#cursor = cursor;
    this.#lexicon = lexiconOf(languageId);
    this.#before = lex(prefix, this.#lexicon);
    this.#linePrefix = prefix.slice(prefix.lastIndexOf('\n') + 1);
    const { rest, below, depth } = this.#lexedAfter();
    this.#depthAfter = depth;
    const open = new Set(this.#frames);
    const closed = [...rest, ...below].flatMap(({ closes }) => (closes && open.has(closes) ? [closes] : []));
    this.#closedAfter = new Set(closed);
    this.#rest = rest;
    this.#nextLine = linesOf(suffix.slice(endOfLine(suffix)), below).find(({ tokens }) => tokens.length > 0);
  }

  /** Whether to offer anything here: not on ruler lines, above the first code of a file, or after the end of a comment. */
  get isWorthwhile(): boolean {
    const { prefix, suffix } = this.#cursor;
    const isNowhere = prefix.trim() === '' && suffix.trim() === '';
    if (isNowhere || /\n(?:[^\S\n]*\n){3}[^\S\n]*$/.test(prefix)) return false;
    const { tokens } = this.#before;
    const isComment = this.#frames.some(({ kind }) => kind === 'comment');
    if (isComment && /[-=*#_~/]{3,}\s*$/.test(this.#linePrefix)) return false;
    if (isComment) return tokens.some(({ isCode, text }) => isCode && text !== '\n');
    const last = tokens.at(-1);
    return !this.#lexicon.blockComments.some(([, end]) => last?.text === end && last.closes);
  }

  /**
   * @param written the model's text so far.
   * @param ended whether the model is done, so the last line is complete.
   */
  shape(written: string, ended: boolean): Shaped {
    const text = this.#withoutDoubledIndentation(written.replace(ended ? '' : /\r$/, '').replaceAll('\r\n', '\n'));
    const all = lex(ended ? `${text}\n` : text, this.#lexicon, this.#frames, this.#linePrefix).tokens;
    // The last token may still grow, unless the model has ended.
    const tokens = ended || /^[\n()[\]{}]$/.test(all.at(-1)?.text ?? '') ? all : all.slice(0, -1);
    const ends = [this.#superfluousCloser(text, tokens), loopStart(text, all, this.#cursor.prefix)];
    const closer = Math.min(...ends.map((end) => end ?? text.length));
    const scope = this.#endOfScope(text, tokens, closer, ended);
    const end = scope ?? closer;
    const inside = tokens.filter(({ start }) => start < end);
    const repeats = this.#rest.length > 0 ? this.#repeatedRest(inside, ended) : this.#repeatedLine(text, inside, ended);
    const complete = scope !== undefined || closer < text.length || repeats?.isWhole === true;
    const cutAt = repeats?.at ?? end;
    const last = tokens.findLast(({ start }) => start < cutAt);
    const cut = this.#trimmed(text.slice(0, last && this.#isLastComma(last) ? last.start : cutAt));
    const uncut = this.#trimmed(text.slice(0, scope ?? endOfLine(text)));
    return { text: cut, complete, ...(uncut !== cut && ended && { uncut }) };
  }

  /** Whether the token is a comma after the last entry, which JSON forbids. */
  #isLastComma({ text, isCode }: Token): boolean {
    const next = this.#rest[0] ?? this.#nextLine?.tokens[0];
    return this.#lexicon.isData === true && next?.closes !== undefined && isCode && text === ',';
  }

  /** Prose has no syntax: a line counts as a statement. */
  get #isProse(): boolean {
    return !this.#lexicon.brackets && this.#lexicon.opensBlock === undefined;
  }

  get #frames(): readonly Frame[] {
    return this.#before.frames;
  }

  /**
   * A string that begins on this line, or that has the cursor in its embedded code, may be unfinished. Chooses the
   * reading of the following text that leaves the fewest strings open.
   */
  #lexedAfter(): LexedAfter {
    const { prefix, suffix } = this.#cursor;
    const end = endOfLine(suffix);
    const line = suffix.slice(0, end);
    const lexed = (depth: number): LexedAfter => {
      const rest = lex(line, this.#lexicon, this.#frames.slice(0, depth), this.#linePrefix);
      const below = lex(suffix.slice(end), this.#lexicon, rest.frames, this.#linePrefix + line);
      const open = below.frames.filter(({ kind }) => kind === 'string').length;
      const stray = [...rest.tokens, ...below.tokens].filter(({ isStray }) => isStray).length;
      return { rest: rest.tokens, below: below.tokens, depth, unmatched: open + below.cutStrings + stray };
    };
    const atEnd = lex(line, this.#lexicon, this.#frames, this.#linePrefix).frames;
    const isInside = this.#frames.at(-1)?.kind === 'bracket';
    const lineStart = prefix.length - this.#linePrefix.length;
    const open = this.#frames.findIndex((frame, i) => {
      return frame.kind === 'string' && frame === atEnd[i] && (isInside || frame.start >= lineStart);
    });
    if (open < 0) return lexed(this.#frames.length);
    const depths = this.#depthsFrom(open);
    const [usual = lexed(open), ...others] = (isInside ? depths : depths.reverse()).map(lexed);
    return others.reduce((best, own) => (own.unmatched < best.unmatched ? own : best), usual);
  }

  /**
   * Depths at which the following text may start: in the embedded code of a string open at the cursor, in its text, or
   * after it.
   */
  #depthsFrom(open: number): number[] {
    // A single-line string has ended with its line.
    const short = this.#frames.findIndex(({ kind, form }, i) => i >= open && kind === 'string' && !form?.spansLines);
    const deepest = short < 0 ? this.#frames.length : short;
    const ofStrings = this.#frames.flatMap(({ kind }, i) => (kind === 'string' ? [i, i + 1] : []));
    const depths = [...ofStrings, deepest].filter((depth) => depth >= open && depth <= deepest);
    return [...new Set(depths)].sort((a, b) => b - a);
  }

  /** Trims blanks at the end of the text, except those before the rest of the line. */
  #trimmed(text: string): string {
    if (text.trim() === '') return '';
    const isGlued = this.#rest.length > 0 && !/^\s/.test(this.#cursor.suffix);
    return isGlued ? text.replace(/\n\s*$/, '') : text.trimEnd();
  }

  /** Removes indentation that the model repeats although the cursor is already after it. */
  #withoutDoubledIndentation(text: string): string {
    const own = /^[^\S\n]+/.exec(text)?.[0] ?? '';
    if (own === '' || this.#linePrefix === '' || this.#linePrefix.trim() !== '') return text;
    const above = this.#lineAbove();
    const least = above === undefined ? 0 : indentationOf(above) + (opensBlock(above, this.#lexicon) ? 1 : 0);
    return indentationOf(this.#linePrefix) >= least ? text.slice(own.length) : text;
  }

  /** Index where the text leaves the cursor's line, statement or block; undefined: not yet. */
  #endOfScope(text: string, tokens: readonly Token[], end: number, ended: boolean): number | undefined {
    const breaks = tokens.filter((token) => token.text === '\n' && token.start < end);
    const scope = this.#scope();
    let statement: number | undefined;
    const isInText = this.#frames.at(-1)?.kind !== 'bracket' && this.#frames.length > 0;
    const lines = text.split('\n');
    const whole = (this.#linePrefix + text).split('\n').slice(0, ended ? undefined : -1);
    const repeated = repeatedLines(whole, this.#cursor.prefix);
    const isOneLine = this.#cursor.multiline === 'never' || (this.#isProse && !this.#takesSiblings);
    for (const [i, lineBreak] of breaks.entries()) {
      if (isOneLine || i + 1 >= limits.generation.completionLines || i + 1 === repeated)
        return statement ?? lineBreak.start;
      const goesOn = lineBreak.depth > this.#frames.length && (lineBreak.floor === this.#frames.length || !isInText);
      if ((this.#rest.length > 0 || (isInText && lineBreak.floor === this.#frames.length)) && !goesOn)
        return statement ?? lineBreak.start;
      if (this.#isInStringOfFile(lineBreak)) return statement ?? lineBreak.start;
      scope.take(lines[i] ?? '', lineBreak, this.#isMissingCloser(lineBreak));
      const next = lines[i + 1] ?? '';
      const isKnown = ended || i + 2 < lines.length || firstWordStands.test(next);
      if (!lineBreak.isCode || !isKnown || !scope.endsBefore(next)) continue;
      // An unclosed block is shown only as a whole; more than the statement but less than the block would not help.
      if (!scope.isInOpenBlock(next)) return (scope.isBlockOpen ? statement : undefined) ?? scope.end;
      statement ??= scope.end;
    }
    const last = tokens.find(({ start }) => start >= end);
    if (statement === undefined || !last) return ended ? statement : undefined;
    scope.take(text.slice(breaks.at(-1)?.end, end), last, false);
    return scope.isBlockOpen ? statement : undefined;
  }

  #scope(): Scope {
    return new Scope(this.#lexicon, {
      linePrefix: this.#linePrefix,
      cursorDepth: this.#frames.length,
      depth: this.#statementDepth,
      isList: this.#isList,
      takesSiblings: this.#takesSiblings,
      openBlock: this.#openBlock,
    });
  }

  get #openBlock(): OpenBlock | undefined {
    const depth = this.#frames.findLastIndex(({ kind, isExpression }) => kind === 'bracket' && isExpression === false);
    const frame = this.#frames[depth];
    if (frame && !this.#closedAfter.has(frame)) return { indentation: frame.indentation, depth };
    return openBlockAt(this.#cursor, this.#lexicon);
  }

  /** Whether the text has left a string's embedded code and is in its text, which the file continues. */
  #isInStringOfFile({ depth, floor, isCode }: Token): boolean {
    const frame = depth === floor && depth < this.#frames.length ? this.#frames[depth - 1] : undefined;
    return !isCode && frame !== undefined && this.#closedAfter.has(frame);
  }

  /** Whether the innermost bracket was opened before the cursor and is closed nowhere. */
  #isMissingCloser({ depth, floor }: Token): boolean {
    const frame = depth === floor ? this.#frames[depth - 1] : undefined;
    return frame?.kind === 'bracket' && !this.#closedAfter.has(frame);
  }

  /**
   * Index of a bracket that closes nothing or closes what the text after the cursor closes, or of a framing token
   * written as plain text.
   */
  #superfluousCloser(text: string, tokens: readonly Token[]): number | undefined {
    if (!this.#lexicon.brackets && this.#frames.length === 0) return undefined;
    return tokens.find(
      ({ closes, isStray, isCode, start }) =>
        isStray || (closes && this.#closedAfter.has(closes)) || (isCode && isFramingWord(text, start)),
    )?.start;
  }

  /** Index where the text begins to repeat the rest of the line, or as much of it as the text has room for. */
  #repeatedRest(tokens: readonly Token[], ended: boolean): Repetition | undefined {
    for (const [i, token] of tokens.entries()) {
      if (!this.#isAsOpenAsAfter(token)) continue;
      const equal = equalTokens(tokens.slice(i), this.#rest);
      const isWhole = equal === this.#rest.length;
      if (isWhole || (ended && i + equal === tokens.length)) return { at: token.start, isWhole };
    }
    return undefined;
  }

  /** Index where the text begins to repeat the next line. Brackets alone don't count. */
  #repeatedLine(text: string, tokens: readonly Token[], ended: boolean): Repetition | undefined {
    const next = this.#nextLine;
    if (next === undefined || next.tokens.every(({ text: own }) => /^[)\]}>;,]$/.test(own))) return undefined;
    const lines = linesOf(text, tokens);
    for (const [i, line] of lines.entries()) {
      const isWhole = (ended || i < lines.length - 1) && line.tokens.length === next.tokens.length;
      const [token] = line.tokens;
      if (!isWhole || !token || !this.#isAsOpenAsAfter(token)) continue;
      if (i === 0 && this.#linePrefix.trim() !== '') continue;
      const indentation = i === 0 ? indentationOf(this.#linePrefix) + line.indentation : line.indentation;
      if (indentation !== next.indentation) continue;
      if (equalTokens(line.tokens, next.tokens) === next.tokens.length) return { at: token.start, isWhole: true };
    }
    return undefined;
  }

  /**
   * Whether the brackets open at this token are those that the text after the cursor expects, apart from unclosed ones.
   */
  #isAsOpenAsAfter({ depth, floor }: Token): boolean {
    const closed = this.#frames.slice(depth);
    return depth === floor && depth <= this.#depthAfter && closed.every((frame) => !this.#closedAfter.has(frame));
  }

  /**
   * Depth of the cursor's statement. It includes unclosed parentheses and literals around the cursor, whichever line
   * they began on.
   */
  get #statementDepth(): number {
    const lineBreak = this.#before.tokens.findLast(({ text }) => text === '\n');
    let depth = Math.min(lineBreak?.depth ?? 0, this.#frames.length);
    for (; depth > 0; depth--) {
      const frame = this.#frames[depth - 1];
      if (!frame?.isExpression || this.#closedAfter.has(frame)) break;
    }
    return depth;
  }

  /** Whether the cursor's statement is an item between parentheses or of a literal. */
  get #isList(): boolean {
    return this.#frames[this.#statementDepth - 1]?.isExpression === true;
  }

  /**
   * Whether lines with the cursor's indentation belong to the completion: at the beginning of a body, or after a
   * comment that announces code.
   */
  get #takesSiblings(): boolean {
    const { multiline } = this.#cursor;
    if (this.#linePrefix.trim() !== '' || this.#rest.length > 0) return false;
    const above = this.#lineAbove();
    if (multiline !== 'auto' || above === undefined) return multiline === 'always';
    const isBelowComment = lex(above, this.#lexicon).frames.some(({ kind }) => kind === 'comment');
    return opensBlock(above, this.#lexicon) || (isBelowComment && !this.#isList);
  }

  #lineAbove(): string | undefined {
    const lines = this.#cursor.prefix.split('\n').slice(0, -1);
    return lines.findLast((line) => line.trim() !== '');
  }
}

interface Repetition {
  readonly at: number;
  /** True if later text can't change this repetition. */
  readonly isWhole: boolean;
}

function endOfLine(text: string): number {
  const end = text.indexOf('\n');
  return end < 0 ? text.length : end;
}

const firstWordStands = /^\s*(?:\w+\W|[^\w\s]+[\w\s])/;

const isFramingWord = (text: string, start: number): boolean =>
  /^<\|[a-z_]{2,40}\|>/.test(text.slice(start, start + 44));

/** Tokens without line breaks, by lines. */
function linesOf(text: string, tokens: readonly Token[]): Line[] {
  const lines: { indentation: number; tokens: Token[] }[] = [{ indentation: indentationOf(text), tokens: [] }];
  for (const token of tokens) {
    if (token.text !== '\n') lines.at(-1)?.tokens.push(token);
    else lines.push({ indentation: indentationOf(text.slice(token.end, token.end + 400)), tokens: [] });
  }
  return lines;
}

/** Length of the common prefix, in tokens. */
function equalTokens(tokens: readonly Token[], others: readonly Token[]): number {
  const different = tokens.findIndex(({ text }, i) => text !== others[i]?.text);
  return different < 0 ? Math.min(tokens.length, others.length) : different;
}
