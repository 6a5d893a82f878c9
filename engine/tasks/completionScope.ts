/** Decides which lines of a completion belong to the cursor's statement or block, and detects repetition loops. */
import { indentationOf, type Token } from '../index/syntax/lexer.ts';
import type { Lexicon } from '../index/syntax/lexicons.ts';

export const opensBlock = (line: string, lexicon: Lexicon): boolean =>
  /[{([]\s*$|=>\s*$/.test(line) || opensByWord(line, lexicon);

/** `def x; end` opens nothing. */
function opensByWord(line: string, { opensBlock: opens, closesBlock: closes }: Lexicon): boolean {
  const last = /(?<=[\s;])\w+[^\S\n]*[)\]},;]*\s*$/.exec(line)?.[0];
  return opens?.test(line.trimEnd()) === true && !(last !== undefined && closes?.test(last));
}

/** A block around the cursor that the file does not close. */
export interface OpenBlock {
  /** Indentation of the line that opens it, in columns. */
  readonly indentation: number;
  /** Number of brackets around it; absent: words open and close it. */
  readonly depth?: number;
}

/** The innermost block around the cursor, if words open it and the file does not close it. */
export function openBlockAt(
  cursor: { readonly prefix: string; readonly suffix: string },
  lexicon: Lexicon,
): OpenBlock | undefined {
  const { closesBlock: closes, continuesBlock: continues } = lexicon;
  if (!closes) return undefined;
  const above = cursor.prefix.split('\n');
  const own = indentationOf(above.pop() ?? '');
  const head = above.findLast((line) => line.trim() !== '' && indentationOf(line) < own);
  if (head === undefined || !opensByWord(head, lexicon)) return undefined;
  const indentation = indentationOf(head);
  const below = cursor.suffix.split('\n').slice(1);
  const next = below.find(
    (line) =>
      line.trim() !== '' &&
      (indentationOf(line) < indentation || (indentationOf(line) === indentation && !continues?.test(line))),
  );
  return next !== undefined && indentationOf(next) === indentation && closes.test(next) ? undefined : { indentation };
}

export interface ScopeOptions {
  readonly linePrefix: string;
  /** Brackets open at the cursor, and where its statement may end. */
  readonly cursorDepth: number;
  readonly depth: number;
  /** The cursor's line is an item of a list, so a comma ends it. */
  readonly isList: boolean;
  /** Lines with the cursor's indentation belong to the scope, up to an empty one. */
  readonly takesSiblings: boolean;
  readonly openBlock: OpenBlock | undefined;
}

/** Takes the lines of a completion one by one and tells before which line the text leaves the cursor's scope. */
export class Scope {
  readonly #lexicon: Lexicon;
  #indentation: number;
  readonly #cursorDepth: number;
  readonly #depth: number;
  readonly #isList: boolean;
  #takesSiblings: boolean;
  #mayClose = false;
  #openBlock: OpenBlock | undefined;
  #last: string;
  #isFirst = true;
  #hasOpened = false;
  #isOpen = false;
  #hasText = false;
  #isBehindBlank = false;
  /** End of the text when it leaves the scope: after the last line that is not blank. */
  end = 0;

  constructor(lexicon: Lexicon, options: ScopeOptions) {
    const { linePrefix, cursorDepth, depth, isList, takesSiblings, openBlock } = options;
    this.#lexicon = lexicon;
    this.#openBlock = openBlock;
    this.#indentation = indentationOf(linePrefix);
    this.#last = linePrefix;
    this.#cursorDepth = cursorDepth;
    this.#depth = depth;
    this.#isList = isList;
    this.#takesSiblings = takesSiblings;
  }

  /** @param mayClose a bracket from before the cursor is open and nothing closes it. */
  take(line: string, lineBreak: Token, mayClose: boolean): void {
    this.#mayClose = mayClose;
    const shown = this.#isFirst ? this.#last + line : line;
    this.#isFirst = false;
    this.#isOpen = lineBreak.depth > this.#depth || !lineBreak.isCode;
    this.#isBehindBlank = shown.trim() === '';
    if (this.#isBehindBlank) return;
    this.#hasText = true;
    this.#last = shown;
    if (this.#openBlock && this.#closes(this.#openBlock, shown, lineBreak)) {
      this.#indentation = Math.min(this.#indentation, this.#openBlock.indentation);
      this.#openBlock = undefined;
      this.#takesSiblings = false;
    }
    // The text has closed a bracket from before the cursor, so it continues in an outer scope.
    if (lineBreak.depth < this.#cursorDepth) {
      this.#indentation = Math.min(this.#indentation, indentationOf(shown));
      this.#takesSiblings = false;
    }
    // Brackets are counted.
    this.#hasOpened ||= this.#opensBlock(shown);
    this.end = lineBreak.start;
  }

  /** @param line at least its first word. */
  endsBefore(line: string): boolean {
    if (this.#isOpen || !this.#hasText || line.trim() === '') return false;
    if (this.#mayClose && /^\s*[)\]}]/.test(line)) return false;
    const indentation = indentationOf(line);
    if (this.#openBlock?.depth === undefined && indentation === this.#openBlock?.indentation && this.#closesBlock(line))
      return false;
    // The body after a head of several lines.
    if (/^\s*\{\s*$/.test(line) && !this.#isList && !endsStatement.test(this.#last)) return false;
    if (indentation < this.#indentation) return true;
    if (indentation === this.#indentation && this.#takesSiblings) return this.#isBehindBlank;
    const isInBlock = this.#hasOpened || this.#takesSiblings;
    if (this.#isBehindBlank && !isInBlock) return true;
    if (indentation === this.#indentation)
      return !(this.#endsBlock(line) || this.#continuesBlock(line) || this.#goesOn(line));
    // In a block, a line is indented deeper than the one above only if that one opens a block.
    const isIndented = indentation > indentationOf(this.#last);
    const mayBeIndented = !isIndented || this.#opensBlock(this.#last);
    return !((isInBlock && mayBeIndented) || this.#goesOn(line) || this.#isContinued(line));
  }

  /** Whether the block around the cursor is still not closed. */
  get isBlockOpen(): boolean {
    return this.#openBlock !== undefined;
  }

  /** Whether the line belongs to that block. */
  isInOpenBlock(line: string): boolean {
    if (!this.#openBlock) return false;
    const deeper = indentationOf(line) - this.#openBlock.indentation;
    return deeper === 0 ? this.#continuesBlock(line) : deeper > 0;
  }

  #closes({ depth, indentation }: OpenBlock, line: string, { floor }: Token): boolean {
    return depth === undefined ? indentationOf(line) === indentation && this.#closesBlock(line) : floor <= depth;
  }

  #endsBlock(line: string): boolean {
    const isEnded = indentationOf(this.#last) === this.#indentation && this.#closesBlock(this.#last);
    return this.#hasOpened && this.#closesBlock(line) && !isEnded;
  }

  #opensBlock(line: string): boolean {
    return opensByWord(line, this.#lexicon);
  }

  #closesBlock(line: string): boolean {
    return this.#lexicon.closesBlock?.test(line) === true;
  }

  #continuesBlock(line: string): boolean {
    return continuesBlock.test(line) || this.#lexicon.continuesBlock?.test(line) === true;
  }

  /** Whether the line continues the statement above at the same indentation. */
  #goesOn(line: string): boolean {
    const above = this.#last;
    if (this.#lexicon.isData || endsStatement.test(above) || this.#opensBlock(above)) return false;
    // An item of a list that nothing closes yet.
    if (this.#mayClose && /,\s*$/.test(above)) return true;
    const isChain = chained.test(line) && chained.test(above);
    return (
      (openEnd.test(above) && !(this.#lexicon.patterns && /\/\s*$/.test(above))) ||
      this.#lexicon.openEnd?.test(above) ||
      /^\s*@[\w.]+(?:\(.*\))?\s*$/.test(above) ||
      /^\s*(?:&&|\||\?\?)/.test(line) ||
      isChain
    );
  }

  /** Whether the deeper line continues the statement above. */
  #isContinued(line: string): boolean {
    const above = this.#last;
    if (this.#lexicon.isData) return false;
    if (endsStatement.test(above)) return called.test(line);
    return (
      (!this.#lexicon.opensBlock && head.test(above)) ||
      (!this.#isList && /,\s*$/.test(above)) ||
      chained.test(line) ||
      continuation.test(line)
    );
  }
}

const endsStatement = /[;}]\s*$/;
/** After these heads, a statement without braces may follow. */
const head = /^\s*(?:\}\s*)?(?:else\s+)?(?:if|for|foreach|while|else)\b/;
const openEnd = /(?:[-+*/%=&|<\\]|(?<![\w$])\?|=>|\b(?:and|or|in|is|not|return|extends|implements|where))\s*$/;
const chained = /^\s*\??\.\w/;
/** A method call, where no CSS rule can stand. */
const called = /^\s*\??\.\w+(?:\(|::|\?\.)/;
const continuation = /^\s*(?:[?:&|+*/%=<>{-]|(?:and|or|is|in|as|implements|extends|throws|where)\b)/;

/** Lines that belong to the block above although they have the indentation of its head. */
const continuesBlock = /^\s*(\{|(else|elif|except|finally|catch|then|do|where)\b)/;

/** Repetitions may cut tokens: `is_not_fixture_is_not_fixture_is_not_`. */
const loop = /(\S[^\n]{9,79}?)\1{2,}[^\n]{0,79}$|(\S[^\n]{3,79}?)\2{3,}[^\n]{0,79}$/;
const searchedChars = 480;

/** Index where a line starts to repeat itself. Undefined if it doesn't, or if the file already has such lines. */
export function loopStart(text: string, tokens: readonly Token[], prefix: string): number | undefined {
  const searched = Math.max(text.lastIndexOf('\n') + 1, text.length - searchedChars);
  const found = loop.exec(text.slice(searched));
  const unit = found?.[1] ?? found?.[2];
  if (!found || unit === undefined || !/\p{L}{3}/u.test(unit) || prefix.includes(unit + unit)) return undefined;
  const first = searched + found.index;
  const second = first + unit.length;
  if (tokens.some(({ start }) => start === second) && tokens.some(({ start }) => start === first)) return second;
  return tokens.findLast(({ start }) => start <= first)?.start;
}

/** Index of the third copy of a line. */
export function repeatedLines(lines: readonly string[], prefix: string): number | undefined {
  const third = lines.findIndex(
    (line, i) => i > 1 && /\p{L}{2}|^\s*\./u.test(line) && line === lines[i - 1] && line === lines[i - 2],
  );
  return third < 0 || prefix.includes(`${lines[third]}\n${lines[third]}\n`) ? undefined : third - 1;
}
